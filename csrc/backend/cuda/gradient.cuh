/* gradient.cuh: what the drivers of gradients share. */
#ifndef MG_CUDA_GRADIENT_CUH
#define MG_CUDA_GRADIENT_CUH
#include "cuda.cuh"

/* Derivative of mg_activate. */
__device__ inline float mg_activation_derivative(float x, mg_activation activation) {
    const float gate = 1.0f / (1.0f + expf(activation == MG_ACT_QUICK_GELU ? -1.702f * x : -x));
    switch (activation) {
    case MG_ACT_SILU:
        return gate * (1.0f + x * (1.0f - gate));
    case MG_ACT_GELU:
        return 0.5f * erfcf(-x * 0.70710678f) + x * expf(-0.5f * x * x) * 0.39894228f;
    case MG_ACT_QUICK_GELU:
        return gate * (1.0f + 1.702f * x * (1.0f - gate));
    case MG_ACT_RELU:
        return x > 0.0f ? 1.0f : 0.0f;
    case MG_ACT_TANH:
        return 1.0f - tanhf(x) * tanhf(x);
    case MG_ACT_NONE:
        break;
    }
    return 1.0f;
}

/* ---- ops/conv2d_gradient.cu: gradients of the input and of the filter; of linear layers, too ---- */
void mg_cuda_dgrad(struct mg_cuda_state *state, const struct mg_op_call *call);
size_t mg_cuda_dgrad_bytes(const struct mg_op_shape *op);
void mg_cuda_wgrad(struct mg_cuda_state *state, const struct mg_op_call *call);
size_t mg_cuda_wgrad_bytes(const struct mg_op_shape *op);

/* ---- partial_sums.cu ---- */
/* Long sums take two kernels: one makes partial sums of so many elements in float32, this one adds them up in double,
 * always in the same order. partials (positions, count, columns); out[position * stride + column] = sum of its partial
 * sums, + sum[...] if there is one, which may be `out`. */
constexpr int MG_CUDA_PARTIAL_LENGTH = 64;
struct mg_cuda_partials {
    const float *partials, *sum;
    int64_t positions, count, columns, stride;
};
void mg_cuda_sum_partials(struct mg_cuda_state *state, float *out, const struct mg_cuda_partials *p);

/* ---- ops/reduce.cu: of vector_gradient, too ---- */
void mg_cuda_reduction_run(struct mg_cuda_state *state, const struct mg_op_call *call);
size_t mg_cuda_reduction_bytes(const struct mg_op_shape *op);

/* ---- ops/groupnorm.cu ---- */
/* Mean and 1 / deviation of each group of in[0], for each channel: (N, C). `partials`: mg_cuda_group_partials_bytes of scratch. */
void mg_cuda_group_statistics(struct mg_cuda_state *state, const struct mg_op_shape *op, const void *x,
                              float2 *statistics, void *partials);
size_t mg_cuda_group_partials_bytes(const struct mg_op_shape *op);

/* ---- sums of normalisations ---- */
/* Sums for each channel, and over which pixels they go: strips of MG_CUDA_PARTIAL_LENGTH. */
struct mg_cuda_channel_sums {
    int64_t pixels, channels, strips;
    bool silu;
};

static inline struct mg_cuda_channel_sums mg_cuda_channel_sums_of(const struct mg_op_shape *op) {
    const int64_t pixels = op->in[0].dim[1] * op->in[0].dim[2];
    return {pixels, op->in[0].dim[3], mg_cuda_divide_up(pixels, MG_CUDA_PARTIAL_LENGTH), false};
}

static inline size_t mg_cuda_channel_sums_bytes(const struct mg_op_shape *op) {
    const struct mg_cuda_channel_sums p = mg_cuda_channel_sums_of(op);
    return mg_aligned((size_t)(op->in[0].dim[0] * p.strips * 2 * p.channels) * sizeof(float));
}
#endif
