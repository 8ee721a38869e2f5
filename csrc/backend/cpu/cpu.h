/* cpu.h: what the drivers in cpu/ops and the kernels in cpu/isa share. Private to backend/cpu.
 *
 * A driver (ops/NAME.c) cuts an operation into tiles whose borders depend on the shape of ONE image only, never on the
 * number of threads or images, and shares them out to threads; a kernel (isa/) is pure arithmetic on one tile: no memory, no
 * threads, no errors. Every kernel is written once, on vectors of MG_LANES floats (isa/vector.h), and compiled once per
 * instruction set (isa/kernels_SET.c).
 */
#ifndef MG_CPU_H
#define MG_CPU_H
#include "../backend.h"

/* The kernels that read and write activations, once per element type: void pointers are arrays of that type, everything
 * else is float32. Sums, statistics and transforms are float32 or better whatever the type. */
struct mg_cpu_elements {
    /* isa/pointwise.h: count >= 0, any alignment, out may be an input ------------------------------------------------ */
    void (*activate)(void *out, const void *x, int64_t count, mg_activation activation);
    void (*geglu)(void *out, const void *value, const void *gate, int64_t count);       /* value * gelu(gate) */
    void (*scale)(void *out, const void *x, float factor, float offset, int64_t count); /* x * factor + offset */
    void (*add)(void *out, const void *a, const void *b, int64_t count);
    /* out = act(c + bias) + residual on a rows x columns block; bias or residual may be NULL; out may be c or residual. */
    void (*epilogue)(void *out, int64_t ldo, const float *c, int64_t ldc, int64_t rows, int64_t columns,
                     const float *bias, mg_activation activation, const void *residual, int64_t ldr);
    void (*widen)(float *out, const void *x, int64_t count);
    void (*narrow)(void *out, const float *x, int64_t count);

    /* isa/norm.h -------------------------------------------------------------------------------------------------- */
    /* Adds to sum[c] and sum_of_squares[c] (doubles) the statistics of rows x channels values x - shift[c]. */
    void (*channel_sums)(double *sum, double *sum_of_squares, const void *x, const float *shift, int64_t rows,
                         int64_t channels);
    /* out = x * factor[c] + offset[c], then SiLU if asked. */
    void (*channel_affine)(void *out, const void *x, const float *factor, const float *offset, int64_t rows,
                           int64_t channels, bool silu);
    void (*layernorm)(void *out, const void *x, const float *gamma, const float *beta, int64_t rows, int64_t channels,
                      float epsilon);

    /* isa/winograd.h: F(4x4, 3x3). See ops/winograd.c for the layouts. -------------------------------------------- */
    /* One 6x6 input tile: pixels[36] point at c elements each (or at zeros), v + q*stride receives position q. */
    void (*winograd_input)(float *v, int64_t stride, const void *const pixels[36], int64_t c);
    /* The same for `count` <= MG_FIXED_CHANNELS channels from `begin` on, in fixed point: v + q*stride receives integers (an
     * even number of them), scales[q*scale_stride] what turns them back. */
    void (*winograd_input_fixed)(int16_t *v, int64_t stride, float *scales, int64_t scale_stride,
                                 const void *const pixels[36], int64_t begin, int64_t count);
    /* One 4x4 output tile of up to `panel` channels: m + q*stride holds position q. pixels[16] point at `count` elements
     * (NULL: outside the image). addend: `count` floats added to every pixel, or NULL; residual as pixels, or NULL; then
     * ReLU if asked. */
    void (*winograd_output)(void *const pixels[16], const float *m, int64_t stride, int64_t count, const float *addend,
                            const void *const residual[16], bool relu);
    /* One 4x4 tile of the output's gradient: pixels[16] point at c elements each (or at zeros), v + q*stride receives position q
     * of what the input's are multiplied with. */
    void (*winograd_gradient)(float *v, int64_t stride, const void *const pixels[16], int64_t c);

    /* isa/quantise.h ---------------------------------------------------------------------------------------------- */
    /* round(x * 127 / largest) + 128, padded to a multiple of 4 bytes; *scale turns them back. */
    void (*quantise_row)(uint8_t *out, float *scale, const void *x, int64_t count);
};

enum { MG_CPU_F32, MG_CPU_BF16, MG_CPU_ELEMENT_TYPES };

/* For the gradient of a normalisation, by channel: normal = (x - mean) inverse; y = gamma normal + beta; the gradient of x is
 * gain g - average - projection normal, g being that of y. */
struct mg_cpu_normal {
    const float *mean, *inverse, *gamma, *beta, *gain, *average, *projection;
};

struct mg_cpu_kernels {
    const char *isa; /* its name: see cpu_features.c */
    int panel;       /* columns of a packed B panel: a multiple of the vector length, at most MG_MAX_PANEL */

    /* isa/product.h: C[m x panel] = (accumulate ? C : 0) + A[m x k] B[k x panel]; A and C with leading dimensions, B
     * contiguous: k rows of the panel, the 1, 2 or 4 of a group side by side for each column ---------------------------- */
    void (*product_f32)(int64_t m, int64_t k, const float *a, int64_t lda, const float *b, float *c, int64_t ldc,
                        bool accumulate);
    /* k even; any number of panels, ldb elements apart, whose columns lie side by side in C */
    void (*product_bf16)(int64_t m, int64_t k, int64_t panels, const mg_bf16 *a, int64_t lda, const mg_bf16 *b,
                         int64_t ldb, float *c, int64_t ldc, bool accumulate);
    /* k a multiple of 4; sums are exact; panels as above */
    void (*product_u8i8)(int64_t m, int64_t k, int64_t panels, const uint8_t *a, int64_t lda, const int8_t *b,
                         int64_t ldb, int32_t *c, int64_t ldc, bool accumulate);
    /* Integers with a scale for each row of A and each column of B; k even, at most MG_FIXED_CHANNELS. */
    void (*product_fixed)(int64_t m, int64_t k, const int16_t *a, int64_t lda, const float *a_scales, const int16_t *b,
                          const float *b_scales, float *c, int64_t ldc, bool accumulate);
    /* Sums of product_u8i8 to float32 in place: (c - 128 column_sums) row_scales column_scales; columns a multiple of the
     * vector length. */
    void (*dequantise)(void *c, int64_t ldc, int64_t rows, int64_t columns, const float *row_scales,
                       const float *column_scales, const int32_t *column_sums);

    /* isa/stored.h: few rows and a weight as it is stored, floats. A is contiguous, C has a leading dimension -------- */
    /* C[m x n] = A[m x k] W[n x k]^T; W contiguous */
    void (*dot_rows)(int64_t m, int64_t n, int64_t k, const float *a, const float *w, float *c, int64_t ldc);
    /* C[m x n] = (accumulate ? C : 0) + A[m x k] B[k x n]; B with a leading dimension */
    void (*sum_rows)(int64_t m, int64_t n, int64_t k, const float *a, const float *b, int64_t ldb, float *c,
                     int64_t ldc, bool accumulate);

    /* isa/panels.h: rows of a panel in pairs (bfloat16) or fours (int8, times scales[panel]) to [count][panel] floats - */
    void (*widen_pairs)(float *out, const mg_bf16 *pairs, int64_t count);
    void (*widen_quads)(float *out, const int8_t *quads, const float *scales, int64_t count);

    /* isa/winograd_weights.h -------------------------------------------------------------------------------------- */
    /* One panel of the filter, weight[9][c][panel]: u + q*stride receives position q, [c][panel]. */
    void (*winograd_weights)(float *u, int64_t stride, const float *weight, int64_t c);
    /* The same for an even `count` <= MG_FIXED_CHANNELS of channels, in fixed point: position q as [count/2][panel][2] and
     * scales[q][panel]. */
    void (*winograd_weights_fixed)(int16_t *u, int64_t stride, float *scales, const float *taps, int64_t count);

    /* From position q of the products' sums, at m + q*stride, the gradient of the filter: added to tap t at t*tap_stride. count
     * elements, a multiple of the vector length. */
    void (*winograd_weight_gradient)(float *gradient, int64_t tap_stride, const float *m, int64_t stride,
                                     int64_t count);

    /* isa/combine.h: out[0..count) = f0 a + f1 b + f2 noise (noise may be NULL). ---------------------------------- */
    void (*combine)(float *out, const float *a, const float *b, const float *noise, const float factors[3],
                    int64_t count);

    /* isa/softmax.h: one block of online softmax, rows x columns of scores (leading dimension ld), in place ---------- */
    /* For each row: m' = max(running_max, scale*max(row)); p = exp(scale*row - m'); correction = exp(running_max - m');
     * running_sum = running_sum*correction + sum(p). correction[r] is returned for rescaling the output row. */
    void (*softmax_block)(float *scores, int64_t ld, int64_t rows, int64_t columns, float scale, float *running_max,
                          float *running_sum, float *correction);
    /* The same by the coarse exponential, for results that are rounded to bfloat16. */
    void (*softmax_block_coarse)(float *scores, int64_t ld, int64_t rows, int64_t columns, float scale,
                                 float *running_max, float *running_sum, float *correction);
    /* And rounded, with a zero behind an odd number of columns; out has the leading dimension of the scores. */
    void (*softmax_block_half)(mg_bf16 *out, const float *scores, int64_t ld, int64_t rows, int64_t columns,
                               float scale, float *running_max, float *running_sum, float *correction);

    /* isa/gradient.h: out may be an input of its size ---------------------------------------------------------------- */
    /* C[m x panel] += sum over k pixels of a[p][offset + i] b[p][panel], floats; b and c contiguous */
    void (*product_pixels)(int64_t m, int64_t k, const void *const *a, int64_t offset, const void *b, float *c);
    /* The same over k pairs of pixels: elements of a and b are pairs of bfloat16. */
    void (*product_pixels_half)(int64_t m, int64_t k, const void *const *a, int64_t offset, const void *b, float *c);
    /* out[i] = a[i] and b[i] (NULL: zeros) as a pair */
    void (*pair_rows)(uint32_t *out, const mg_bf16 *a, const mg_bf16 *b, int64_t count);
    void (*activation_gradient)(float *out, const float *x, const float *dy, int64_t count, mg_activation activation);
    void (*geglu_gradient)(float *out_value, float *out_gate, const float *value, const float *gate, const float *dy,
                           int64_t count);
    void (*column_sums)(double *sum, const float *x, int64_t rows, int64_t channels); /* added to sum[channels] */
    /* Adds the sums over rows of g and of g times normal; silu: g is dy behind the SiLU of y. */
    void (*normal_sums)(double *sum, double *products, const float *x, const float *dy, const struct mg_cpu_normal *p,
                        int64_t rows, int64_t channels, bool silu);
    void (*normal_gradient)(float *out, const float *x, const float *dy, const struct mg_cpu_normal *p, int64_t rows,
                            int64_t channels, bool silu);
    void (*layernorm_sums)(double *sum, double *products, const float *x, const float *dy, int64_t rows,
                           int64_t channels, float epsilon);
    void (*layernorm_gradient)(float *out, const float *x, const float *gamma, const float *dy, int64_t rows,
                               int64_t channels, float epsilon);
    /* scores become probabilities exp(scale*score - log_sum), products p * (product - dot) * scale; log_sums and dots belong
     * to rows or to columns. */
    void (*score_gradient)(float *scores, float *products, int64_t ld, int64_t rows, int64_t columns, float scale,
                           const float *log_sums, const float *dots, bool by_column);

    /* p *= factors[r]; gradients = p * (product - dot) * scale; p and gradients with the leading dimension ld. */
    void (*attention_gradient)(float *p, float *gradients, int64_t ld, const float *products, int64_t ld_products,
                               int64_t rows, int64_t columns, float scale, const float *factors, const float *dots);
    /* The same of p in float32, into pairs of rows (ld pairs apart; zeros beside an odd last row) and, the gradients, into rows
     * as well (ld_products apart), with a zero behind an odd number of columns. */
    void (*attention_gradient_half)(uint32_t *p_pairs, uint32_t *gradient_pairs, int64_t ld, mg_bf16 *gradients,
                                    int64_t ld_products, const float *p, const float *products, int64_t rows,
                                    int64_t columns, float scale, const float *factors, const float *dots);

    /* isa/optimizer.h: see mg_backend */
    void (*adam)(float *weight, float *gradient, float *m, float *v, int64_t count, const struct mg_adam *params);
    double (*sum_of_squares)(const float *x, int64_t count);

    struct mg_cpu_elements of[MG_CPU_ELEMENT_TYPES];
};

/* Block floating point of Winograd's products: |value| <= MG_FIXED_VALUE, and the magnitudes of a column's weights add up to
 * MG_FIXED_WEIGHT_SUM at most, so that a sum over MG_FIXED_CHANNELS channels fits 32 bits whatever the values are. */
enum { MG_FIXED_CHANNELS = 128, MG_FIXED_WEIGHT_SUM = 524288 };
#define MG_FIXED_VALUE 4095.0f
#define MG_FIXED_LEAST 1e-30f /* blocks smaller than this are zero */

enum { MG_MAX_PANEL = 32 };

extern const struct mg_cpu_kernels mg_cpu_kernels_scalar;
#if defined(__x86_64__)
extern const struct mg_cpu_kernels mg_cpu_kernels_avx2, mg_cpu_kernels_avxvnni, mg_cpu_kernels_avx512,
    mg_cpu_kernels_avx512vnni, mg_cpu_kernels_avx512bf16, mg_cpu_kernels_amx;
#elif defined(__aarch64__)
extern const struct mg_cpu_kernels mg_cpu_kernels_neon, mg_cpu_kernels_neon_dotprod, mg_cpu_kernels_neon_bf16,
    mg_cpu_kernels_neon_i8mm;
#endif

/* weight_layout.c: how the drivers read a weight. */
struct mg_weight_layout mg_cpu_weight_layout(const struct mg_context *context, const struct mg_op_shape *op, int slot);

/* ops/optimizer.c: see mg_backend */
void mg_cpu_adam(const struct mg_context *context, float *weight, float *gradient, float *m, float *v, int64_t count,
                 const struct mg_adam *params);
double mg_cpu_sum_of_squares(const struct mg_context *context, const float *x, int64_t count);
void mg_cpu_average(const struct mg_context *context, float *average, const float *x, int64_t count, float keep,
                    float take);

/* ops/measure.c: see measure in backend.h */
mg_status mg_cpu_measure(const struct mg_context *context, double seconds, struct mg_machine_speed *out,
                         struct mg_err *err);

/* openblas.c: puts the products of few rows by OpenBLAS in place of those of isa/stored.h, if MARIGOLD_BLAS asks for it. */
mg_status mg_cpu_choose_blas(struct mg_cpu_kernels *kernels, struct mg_err *err);

/* cpu_features.c */
bool mg_cpu_has(const char *isa);

static inline const struct mg_cpu_kernels *mg_cpu_kernels_of(const struct mg_context *context) {
    return context->backend_state;
}

/* The kernels for activations of the type of `tensor`: float32 or bfloat16. */
static inline const struct mg_cpu_elements *mg_cpu_elements_of(const struct mg_context *context,
                                                               const struct mg_tensor *tensor) {
    return &mg_cpu_kernels_of(context)->of[tensor->dtype == MG_BF16 ? MG_CPU_BF16 : MG_CPU_F32];
}

/* One driver per operation: run, the scratch it needs (NULL: none), and how its output may follow upon its input (NULL: not; see
 * mg_backend). */
struct mg_cpu_driver {
    void (*run)(const struct mg_context *context, const struct mg_op_call *call);
    size_t (*workspace_bytes)(const struct mg_context *context, const struct mg_op_shape *op);
    size_t (*trailing_gap)(const struct mg_context *context, const struct mg_op_shape *op);
    bool widened; /* computes on float32 alone: bfloat16 is widened for it, see ops/widened.h */
};
#define MG_OP(ID, name, inputs, required, alias, meaning) extern const struct mg_cpu_driver mg_cpu_##name;
#include "../../op/ops.def"
#undef MG_OP

static inline int64_t mg_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Of a part of the workspace, whose parts all begin at a multiple of MG_ALIGNMENT. */
static inline size_t mg_aligned_bytes(int64_t elements, size_t bytes) { return mg_aligned((size_t)elements * bytes); }

/* sum of sizes, or SIZE_MAX on overflow */
static inline size_t mg_workspace_floats(size_t per_thread, size_t threads, size_t shared) {
    size_t floats, bytes;
    if (!mg_size_mul(&floats, per_thread, threads) || !mg_size_add(&floats, floats, shared) ||
        !mg_size_mul(&bytes, floats, sizeof(float)))
        return SIZE_MAX;
    return bytes;
}
#endif
