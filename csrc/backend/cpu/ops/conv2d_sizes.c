/* conv2d_sizes.c: what the algorithms of a convolution share: its sizes, which of them is chosen (by the shape of one image, never
 * by batch or threads), and what is added to every pixel. */
#include "conv2d.h"

/* Winograd pays when a transformed filter is used for enough tiles; measured in benchmarks/LOG.md. */
enum { WINOGRAD_MIN_TILES = 6 };

struct mg_conv_sizes mg_conv_sizes_of(const struct mg_context *context, const struct mg_op_shape *op) {
    const struct mg_conv2d *p = &op->params.conv2d;
    const int64_t *x = op->in[0].dim, *weight = op->in[1].dim, *out = op->out.dim;
    struct mg_conv_sizes z = {.n = x[0],
                              .in_h = x[1],
                              .in_w = x[2],
                              .c = x[3],
                              .out_h = out[1],
                              .out_w = out[2],
                              .k = weight[0],
                              .r = weight[2],
                              .s = weight[3],
                              .stride = p->stride,
                              .pad_top = p->pad_top,
                              .pad_left = p->pad_left,
                              .x = &op->in[0],
                              .bytes = (int64_t)mg_dtype_bytes(op->in[0].dtype),
                              .layout = mg_cpu_weight_layout(context, op, 1)};
    (void)mg_panels_of(&z.panels, z.layout, &op->in[1]); /* refused when the weight is bound, if not addressable */
    z.virtual_h = p->upsampled_h ? p->upsampled_h : z.in_h;
    z.virtual_w = p->upsampled_w ? p->upsampled_w : z.in_w;
    z.scale_h = (float)z.in_h / (float)z.virtual_h;
    z.scale_w = (float)z.in_w / (float)z.virtual_w;
    return z;
}

bool mg_conv_uses_winograd(const struct mg_conv_sizes *z) {
    int64_t tiles = ((z->out_h + 3) / 4) * ((z->out_w + 3) / 4);
    return z->r == 3 && z->s == 3 && z->stride == 1 && tiles >= WINOGRAD_MIN_TILES;
}

const float *mg_conv_addend(const struct mg_cpu_kernels *kernels, const struct mg_op_call *call, int64_t image,
                            float *out) {
    const float *bias = call->in[2], *vector = call->in[4];
    int64_t k = call->op->out.dim[3];
    if (!vector)
        return bias;
    if (call->op->in[4].dim[0] != 1)
        vector += image * k;
    if (!bias)
        return vector;
    kernels->of[MG_CPU_F32].add(out, bias, vector, k);
    return out;
}
