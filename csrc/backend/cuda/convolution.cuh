/* convolution.cuh: the shape of a convolution, and the input pixel under a position of the filter (im2col without
 * writing it). */
#ifndef MG_CUDA_CONVOLUTION_CUH
#define MG_CUDA_CONVOLUTION_CUH
#include "cuda.cuh"

struct convolution {
    int64_t pixels;                   /* of all images' outputs */
    int64_t h, w, c;                  /* of the input as stored */
    int64_t upsampled_h, upsampled_w; /* after upsampling */
    float ratio_h, ratio_w;           /* of the nearest source pixel, in float32 as in torch */
    int64_t out_h, out_w, k;
    int64_t padded_c, positions; /* channels of a filter in aligned chunks; R * S */
    int filter_w, stride, pad_top, pad_left;
    bool is_upsampled, aligned, relu; /* aligned: pixels of the input are made of whole chunks */
    int64_t vector_stride;            /* 0: one vector for all images */
};

/* The input coordinates under the filter's first position, for one output pixel. */
struct input_origin {
    int64_t image, y, x; /* image -1: past the last pixel */
};

__device__ static inline struct input_origin input_origin_of(const struct convolution &p, int64_t pixel) {
    struct input_origin at = {-1, 0, 0};
    if (pixel < p.pixels) {
        at.image = pixel / (p.out_h * p.out_w);
        at.y = pixel / p.out_w % p.out_h * p.stride - p.pad_top;
        at.x = pixel % p.out_w * p.stride - p.pad_left;
    }
    return at;
}

/* The input pixel under a position of the filter; NULL in the padding. */
template <class T>
__device__ inline const T *pixel_at(const struct convolution &p, const T *x, const struct input_origin &at,
                                    int64_t position) {
    int64_t row = at.y + position / p.filter_w, column = at.x + position % p.filter_w;
    if (at.image < 0 || row < 0 || row >= p.upsampled_h || column < 0 || column >= p.upsampled_w)
        return NULL;
    if (p.is_upsampled) {
        row = mg_nearest(row, p.ratio_h, p.h);
        column = mg_nearest(column, p.ratio_w, p.w);
    }
    return x + ((at.image * p.h + row) * p.w + column) * p.c;
}

static inline struct convolution convolution_of(const struct mg_op_shape *op) {
    const struct mg_conv2d *q = &op->params.conv2d;
    const int64_t *in = op->in[0].dim, *out = op->out.dim;
    struct convolution p = {};
    p.pixels = out[0] * out[1] * out[2];
    p.h = in[1];
    p.w = in[2];
    p.c = in[3];
    p.upsampled_h = q->upsampled_h ? q->upsampled_h : p.h;
    p.upsampled_w = q->upsampled_w ? q->upsampled_w : p.w;
    p.is_upsampled = q->upsampled_h || q->upsampled_w;
    p.ratio_h = (float)p.h / (float)p.upsampled_h;
    p.ratio_w = (float)p.w / (float)p.upsampled_w;
    p.out_h = out[1];
    p.out_w = out[2];
    p.k = out[3];
    p.padded_c = mg_cuda_padded(p.c, op->in[0].dtype);
    p.positions = op->in[1].dim[2] * op->in[1].dim[3];
    p.filter_w = (int)op->in[1].dim[3];
    p.stride = q->stride;
    p.pad_top = q->pad_top;
    p.pad_left = q->pad_left;
    p.aligned = p.c == p.padded_c;
    p.relu = q->relu;
    p.vector_stride = op->in[4].ndim && op->in[4].dim[0] > 1 ? p.k : 0;
    return p;
}
#endif
