/* norm_gradient.cuh: what the gradients of group and layer normalisation share.
 *
 * With y = gamma n + beta, n = (x - mean) / deviation, and g the gradient of y: the gradient of x is
 * (gamma g - mean(gamma g) - n mean(gamma g n)) / deviation, means over what is normalised together. */
#ifndef MG_CUDA_NORM_GRADIENT_CUH
#define MG_CUDA_NORM_GRADIENT_CUH
#include "gradient.cuh"

/* Sums for each channel, and over which pixels they go. */
struct channel_sums {
    int64_t pixels, channels, strips;
    bool silu;
};

static inline struct channel_sums channel_sums_of(const struct mg_op_shape *op) {
    const int64_t pixels = op->in[0].dim[1] * op->in[0].dim[2];
    return {pixels, op->in[0].dim[3], mg_cuda_divide_up(pixels, MG_CUDA_PARTIAL_LENGTH), false};
}

static inline size_t partials_bytes(const struct mg_op_shape *op) {
    const struct channel_sums p = channel_sums_of(op);
    return mg_aligned((size_t)(op->in[0].dim[0] * p.strips * 2 * p.channels) * sizeof(float));
}
#endif
