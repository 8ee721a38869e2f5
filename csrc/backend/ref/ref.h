/* ref.h: what the files of the reference backend share. Private to backend/ref.
 *
 * The reference backend is the specification of every operation: one function per line of ops.def, plain loops over
 * N H W C, sums in double, one rounding to float32 when an element of the output is written. It uses no scratch memory
 * (but for sums of an operation's gradient) and no threads, and is the oracle that the other backends are tested against. */
#ifndef MG_REF_H
#define MG_REF_H
#include <math.h>

#include "../backend.h"

#define MG_OP(ID, name, inputs, required, alias, meaning) void mg_ref_##name(const struct mg_op_call *call);
#include "../../op/ops.def"
#undef MG_OP

static inline double mg_ref_silu(double x) { return x / (1.0 + exp(-x)); }

/* Exact GELU, x Phi(x). erfc keeps the relative accuracy of the left tail, where 1 + erf cancels. */
static inline double mg_ref_gelu(double x) { return 0.5 * x * erfc(-x * 0.70710678118654752440); }

static inline double mg_ref_activate(double x, mg_activation activation) {
    switch (activation) {
    case MG_ACT_SILU:
        return mg_ref_silu(x);
    case MG_ACT_GELU:
        return mg_ref_gelu(x);
    case MG_ACT_QUICK_GELU:
        return x / (1.0 + exp(-1.702 * x));
    case MG_ACT_RELU:
        return x < 0 ? 0 : x;
    case MG_ACT_TANH:
        return tanh(x);
    case MG_ACT_NONE:
        break;
    }
    return x;
}

/* The derivative of an activation at x. */
static inline double mg_ref_activation_derivative(double x, mg_activation activation) {
    const double gate = 1.0 / (1.0 + exp(activation == MG_ACT_QUICK_GELU ? -1.702 * x : -x));
    switch (activation) {
    case MG_ACT_SILU:
        return gate * (1.0 + x * (1.0 - gate));
    case MG_ACT_GELU:
        return 0.5 * erfc(-x * 0.70710678118654752440) + x * exp(-0.5 * x * x) * 0.39894228040143267794;
    case MG_ACT_QUICK_GELU:
        return gate * (1.0 + 1.702 * x * (1.0 - gate));
    case MG_ACT_RELU:
        return x > 0 ? 1 : 0;
    case MG_ACT_TANH:
        return 1.0 - tanh(x) * tanh(x);
    case MG_ACT_NONE:
        break;
    }
    return 1;
}

/* Copies `count` channels of every pixel, from channel `in_begin` of in_channels to `out_begin` of out_channels. */
static inline void mg_ref_copy_channels(float *out, int64_t out_begin, int64_t out_channels, const float *in,
                                        int64_t in_begin, int64_t in_channels, int64_t count, int64_t pixels) {
    for (int64_t pixel = 0; pixel < pixels; pixel++)
        for (int64_t c = 0; c < count; c++)
            out[pixel * out_channels + out_begin + c] = in[pixel * in_channels + in_begin + c];
}

/* ---- ops/conv2d.c ---- */
/* Nearest upsampling as torch does it: the source of row or column `index` of `upsampled` (0: there is no upsampling). */
int64_t mg_ref_source_index(int64_t index, int64_t in_size, int64_t upsampled);

/* ---- ops/conv2d_gradient.c ---- */
size_t mg_ref_conv2d_input_gradient_bytes(const struct mg_op_shape *op);

/* ---- ops/self_attention_gradient.c ---- */
size_t mg_ref_self_attention_gradient_bytes(const struct mg_op_shape *op);

/* ---- ops/optimizer.c: see backend.h ---- */
void mg_ref_adam(const struct mg_context *context, float *weight, float *gradient, float *m, float *v, int64_t count,
                 const struct mg_adam *params);
double mg_ref_sum_of_squares(const struct mg_context *context, const float *x, int64_t count);
void mg_ref_average(const struct mg_context *context, float *average, const float *x, int64_t count, float keep,
                    float take);

/* ---- statistics.c ---- */
/* What is normalised together: `rows` runs of `columns` adjacent floats, `stride` apart. gamma and beta belong to columns. */
struct mg_ref_block {
    int64_t rows, columns, stride;
};
void mg_ref_statistics(double *mean, double *inverse_deviation, const float *x, struct mg_ref_block block,
                       double epsilon);
/* (x - mean) * inverse_deviation * gamma + beta, then the activation. */
void mg_ref_normalise(float *out, const float *x, const float *gamma, const float *beta, struct mg_ref_block block,
                      double epsilon, mg_activation activation);
#endif
