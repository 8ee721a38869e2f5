/* conv2d_gradient.c: the gradients of a convolution.
 *
 * Of its input: a convolution of dy, dilated by the stride (zeros between), with the transposed and flipped filter, by the driver of
 * conv2d. Workspace: the filter, dilated dy, what that convolution needs.
 * Of its filter: weight_gradient.c. */
#include <string.h>

#include "tiles.h"
#include "transposed_weight.h"
#include "weight_gradient.h"

struct backward {
    struct mg_op_shape forward; /* the convolution of dy */
    size_t weight, dilated;     /* bytes */
};

static struct backward backward_of(const struct mg_context *context, const struct mg_op_shape *op) {
    const struct mg_conv2d *p = &op->params.conv2d;
    const int64_t *dy = op->in[0].dim, *weight = op->in[1].dim;
    struct backward b = {.forward = {.kind = MG_OP_CONV2D, .in = {op->in[0]}, .out = op->out}};
    b.forward.in[1] = mg_transposed_shape(&op->in[1]);
    b.forward.in[3] = op->in[2];
    b.forward.in[0].dim[1] = (dy[1] - 1) * p->stride + 1;
    b.forward.in[0].dim[2] = (dy[2] - 1) * p->stride + 1;
    /* What the forward padding cut off is negative here. */
    b.forward.params.conv2d = (struct mg_conv2d){
        .stride = 1, .pad_top = (int)weight[2] - 1 - p->pad_top, .pad_left = (int)weight[3] - 1 - p->pad_left};
    b.weight = mg_transposed_weight_bytes(context, &op->in[1]);
    b.dilated = p->stride == 1 ? 0 : mg_aligned(mg_tensor_bytes(&b.forward.in[0]));
    return b;
}

static size_t workspace_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    const struct backward b = backward_of(context, op);
    size_t bytes = mg_cpu_conv2d.workspace_bytes(context, &b.forward);
    if (b.weight == SIZE_MAX || bytes == SIZE_MAX || !mg_size_add(&bytes, bytes, b.weight) ||
        !mg_size_add(&bytes, bytes, b.dilated))
        return SIZE_MAX;
    return bytes;
}

static void dilate(char *out, const struct backward *b, const struct mg_op_call *call) {
    const int64_t *dy = call->op->in[0].dim, *size = b->forward.in[0].dim;
    const int64_t stride = call->op->params.conv2d.stride, pixel = dy[3] * mg_element_bytes(&call->op->in[0]);
    const char *from = call->in[0];
    memset(out, 0, b->dilated);
    for (int64_t row = 0; row < dy[0] * dy[1]; row++)
        for (int64_t x = 0; x < dy[2]; x++)
            memcpy(out + ((row / dy[1] * size[1] + row % dy[1] * stride) * size[2] + x * stride) * pixel,
                   from + (row * dy[2] + x) * pixel, (size_t)pixel);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct backward b = backward_of(context, call->op);
    char *workspace = call->workspace, *weight = workspace, *dilated = workspace + b.weight;
    mg_transpose_weight(context, weight, call->in[1], &call->op->in[1]);
    if (b.dilated)
        dilate(dilated, &b, call);
    mg_cpu_conv2d.run(context,
                      &(struct mg_op_call){.op = &b.forward,
                                           .in = {b.dilated ? dilated : call->in[0], weight, NULL, call->in[2]},
                                           .out = call->out,
                                           .workspace = workspace + b.weight + b.dilated});
}

const struct mg_cpu_driver mg_cpu_conv2d_input_gradient = {.run = run, .workspace_bytes = workspace_bytes};
const struct mg_cpu_driver mg_cpu_conv2d_weight_gradient = {.run = mg_weight_gradient_run,
                                                            .workspace_bytes = mg_weight_gradient_bytes};
