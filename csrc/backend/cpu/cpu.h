/* cpu.h: what the drivers in cpu/ops and the kernels in cpu/isa share. Private to backend/cpu.
 *
 * A driver (ops/NAME.c) cuts an operation into tiles whose borders depend on the shape of ONE image only, never on the
 * number of threads or images, and runs them with OpenMP; a kernel (isa/) is pure arithmetic on one tile: no memory, no
 * threads, no errors. Every kernel is written once, on vectors of MG_LANES floats (isa/vector.h), and compiled once per
 * instruction set (isa/kernels_SET.c).
 */
#ifndef MG_CPU_H
#define MG_CPU_H
#include "../backend.h"

struct mg_cpu_kernels {
    const char *isa; /* "scalar", "avx2", "avx512" */
    int panel;       /* columns of a packed B panel: a multiple of the vector length, at most MG_MAX_PANEL */

    /* isa/panel.inc ------------------------------------------------------------------------------------------- */
    /* C[m x panel] = (accumulate ? C : 0) + A[m x k] B[k x panel]; B contiguous, A and C with leading dimensions. */
    void (*gemm_panel)(int64_t m, int64_t k, const float *a, int64_t lda, const float *b, float *c, int64_t ldc,
                       bool accumulate);

    /* isa/winograd.inc: F(4x4, 3x3). See ops/winograd.c for the layouts. ------------------------------------------ */
    /* One panel of the filter, weight[9][c][panel]: u + q*stride receives position q, [c][panel]. */
    void (*winograd_weights)(float *u, int64_t stride, const float *weight, int64_t c);
    /* One 6x6 input tile: pixels[36] point at c floats each (or at zeros), v + q*stride receives position q. */
    void (*winograd_input)(float *v, int64_t stride, const float *const pixels[36], int64_t c);
    /* One 4x4 output tile of up to `panel` channels: m + q*stride holds position q. pixels[16] point at `count` floats
     * (NULL: outside the image). addend: `count` floats added to every pixel, or NULL; residual as pixels, or NULL; then
     * ReLU if asked. */
    void (*winograd_output)(float *const pixels[16], const float *m, int64_t stride, int64_t count, const float *addend,
                            const float *const residual[16], bool relu);

    /* isa/pointwise.inc: count >= 0, any alignment, out may be x ---------------------------------------------------- */
    void (*activate)(float *out, const float *x, int64_t count, mg_activation activation);
    void (*geglu)(float *out, const float *value, const float *gate, int64_t count);      /* value * gelu(gate) */
    void (*scale)(float *out, const float *x, float factor, float offset, int64_t count); /* x * factor + offset */
    void (*add)(float *out, const float *a, const float *b, int64_t count);
    /* out = act(c + bias) + residual on a rows x columns block; bias or residual may be NULL; out may be c or residual. */
    void (*epilogue)(float *out, int64_t ldo, const float *c, int64_t ldc, int64_t rows, int64_t columns,
                     const float *bias, mg_activation activation, const float *residual, int64_t ldr);
    /* out[0..count) = f0 a + f1 b + f2 noise (noise may be NULL). */
    void (*combine)(float *out, const float *a, const float *b, const float *noise, const float factors[3],
                    int64_t count);

    /* isa/norm.inc --------------------------------------------------------------------------------------------------- */
    /* Adds to sum[c] and sum_of_squares[c] (doubles) the statistics of rows x channels values x - shift[c]. */
    void (*channel_sums)(double *sum, double *sum_of_squares, const float *x, const float *shift, int64_t rows,
                         int64_t channels);
    /* out = x * factor[c] + offset[c], then SiLU if asked. */
    void (*channel_affine)(float *out, const float *x, const float *factor, const float *offset, int64_t rows,
                           int64_t channels, bool silu);
    void (*layernorm)(float *out, const float *x, const float *gamma, const float *beta, int64_t rows, int64_t channels,
                      float epsilon);

    /* isa/softmax.inc: one block of online softmax, rows x columns of scores (leading dimension ld), in place ---------- */
    /* For each row: m' = max(running_max, scale*max(row)); p = exp(scale*row - m'); correction = exp(running_max - m');
     * running_sum = running_sum*correction + sum(p). correction[r] is returned for rescaling the output row. */
    void (*softmax_block)(float *scores, int64_t ld, int64_t rows, int64_t columns, float scale, float *running_max,
                          float *running_sum, float *correction);
};

enum { MG_MAX_PANEL = 32 };

extern const struct mg_cpu_kernels mg_cpu_kernels_scalar;
#if defined(__x86_64__)
extern const struct mg_cpu_kernels mg_cpu_kernels_avx2, mg_cpu_kernels_avx512;
#endif

/* cpu_features.c */
bool mg_cpu_has(const char *isa);

static inline const struct mg_cpu_kernels *mg_cpu_kernels_of(const struct mg_context *context) {
    return context->backend_state;
}

/* One driver per operation: run, and the scratch it needs (NULL: none). */
struct mg_cpu_driver {
    void (*run)(const struct mg_context *context, const struct mg_op_call *call);
    size_t (*workspace_bytes)(const struct mg_context *context, const struct mg_op_shape *op);
};
#define MG_OP(ID, name, inputs, required, alias, meaning) extern const struct mg_cpu_driver mg_cpu_##name;
#include "../../graph/ops.def"
#undef MG_OP

static inline int64_t mg_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* sum of sizes, or SIZE_MAX on overflow */
static inline size_t mg_workspace_floats(size_t per_thread, size_t threads, size_t shared) {
    size_t floats, bytes;
    if (!mg_size_mul(&floats, per_thread, threads) || !mg_size_add(&floats, floats, shared) ||
        !mg_size_mul(&bytes, floats, sizeof(float)))
        return SIZE_MAX;
    return bytes;
}
#endif
