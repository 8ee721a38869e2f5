/* conv2d.h: the two algorithms behind the driver of conv2d, and what they share. Private to backend/cpu/ops. */
#ifndef MG_CPU_CONV2D_H
#define MG_CPU_CONV2D_H
#include "../cpu.h"

/* Everything the algorithms share: sizes of one call, and which input pixel a (virtual, upsampled) pixel is. */
struct mg_conv_sizes {
    int64_t n, in_h, in_w, c;
    int64_t virtual_h, virtual_w; /* after the nearest upsampling */
    int64_t out_h, out_w, k, r, s;
    int stride, pad_top, pad_left;
    float scale_h, scale_w;         /* in / virtual, float32 as torch computes it */
    const struct mg_tensor *x;      /* for the type of the activations */
    int64_t bytes;                  /* of one of their elements */
    struct mg_weight_layout layout; /* of the filter */
    struct mg_panels panels;
};
struct mg_conv_sizes mg_conv_sizes_of(const struct mg_context *context, const struct mg_op_shape *op);

/* Pointer to the C channels of virtual pixel (y, x) of an image, or `outside` beyond the border. */
static inline const char *mg_conv_pixel(const struct mg_conv_sizes *z, const char *image, int64_t y, int64_t x,
                                        const void *outside) {
    if (y < 0 || x < 0 || y >= z->virtual_h || x >= z->virtual_w)
        return outside;
    if (z->virtual_h != z->in_h) {
        y = (int64_t)((float)y * z->scale_h);
        y = y < z->in_h ? y : z->in_h - 1;
    }
    if (z->virtual_w != z->in_w) {
        x = (int64_t)((float)x * z->scale_w);
        x = x < z->in_w ? x : z->in_w - 1;
    }
    return image + (y * z->in_w + x) * z->c * z->bytes;
}

static inline const char *mg_conv_image(const struct mg_conv_sizes *z, const struct mg_op_call *call, int64_t n) {
    return (const char *)call->in[0] + n * z->in_h * z->in_w * z->c * z->bytes;
}

/* bias + channel vector of one image: into out[k], or the bias itself, or NULL when there is neither. */
const float *mg_conv_addend(const struct mg_cpu_kernels *kernels, const struct mg_op_call *call, int64_t image,
                            float *out);
bool mg_conv_uses_winograd(const struct mg_conv_sizes *z);

/* ---- winograd.c, winograd_weight_gradient.c ---- */
size_t mg_winograd_workspace(const struct mg_context *context, const struct mg_conv_sizes *z);
void mg_winograd_run(const struct mg_context *context, const struct mg_op_call *call, const struct mg_conv_sizes *z);
size_t mg_winograd_trailing_gap(const struct mg_context *context, const struct mg_conv_sizes *z);
/* The gradient of the filter; false: the image is too large, or the convolution no case for Winograd. */
bool mg_winograd_has_weight_gradient(const struct mg_context *context, const struct mg_conv_sizes *z);
size_t mg_winograd_weight_gradient_bytes(const struct mg_context *context, const struct mg_conv_sizes *z);
void mg_winograd_weight_gradient(const struct mg_context *context, const struct mg_conv_sizes *z, const void *x,
                                 const void *dy, float *gradient, void *workspace);

/* ---- direct.c ---- */
size_t mg_direct_workspace(const struct mg_context *context, const struct mg_conv_sizes *z);
void mg_direct_run(const struct mg_context *context, const struct mg_op_call *call, const struct mg_conv_sizes *z);
#endif
