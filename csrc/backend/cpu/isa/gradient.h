/* gradient.h: kernels of the backward pass, on float32. Included by kernels.h after elements.h, whose
 * row_sums it uses; reached through the table by the drivers of gradients. */
#ifndef MG_GRADIENT_H
#define MG_GRADIENT_H
#include "doubles.h"
#include "product.h"
#include "vector_math.h"

/* ---- products over pixels: C[m x panel] += sum over p of A[p][offset + i] B[p][panel], for weight gradients and those of keys ---- */

/* Every element of C is a chain of additions in the order of the pixels, however they are cut into calls. Elements of A and B
 * have four bytes: a float, or the bfloat16 of two pixels. */
MG_ALWAYS_INLINE void mg_pixel_tile(enum mg_operands operands, int rows, int64_t k, const void *const *a,
                                    int64_t offset, const char *b, float *c) {
    mg_vf left[MG_LARGEST_TILE], right[MG_LARGEST_TILE];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        left[i] = mg_load(c + i * 2 * MG_LANES);
        right[i] = mg_load(c + i * 2 * MG_LANES + MG_LANES);
    }
    for (int64_t p = 0; p < k; p++) {
        const char *x = (const char *)a[p] + offset * 4;
        const mg_vi b0 = mg_load_bits(b + p * 8 * MG_LANES), b1 = mg_load_bits(b + p * 8 * MG_LANES + 4 * MG_LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            const mg_vi v = mg_splat_bits(x + 4 * i);
            left[i] = operands == MG_OPERANDS_F32 ? mg_dot_f32(left[i], v, b0) : mg_dot_bf16(left[i], v, b0);
            right[i] = operands == MG_OPERANDS_F32 ? mg_dot_f32(right[i], v, b1) : mg_dot_bf16(right[i], v, b1);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        mg_store(c + i * 2 * MG_LANES, left[i]);
        mg_store(c + i * 2 * MG_LANES + MG_LANES, right[i]);
    }
}

MG_ALWAYS_INLINE void mg_pixel_rows(enum mg_operands operands, int64_t m, int64_t k, const void *const *a,
                                    int64_t offset, const void *b, float *c) {
    for (int rows; m > 0; m -= rows, offset += rows, c += rows * 2 * MG_LANES)
        switch (rows = mg_tile_rows(m)) {
#if MG_LARGEST_TILE >= 12
        case 12:
            mg_pixel_tile(operands, 12, k, a, offset, b, c);
            break;
#endif
#if MG_LARGEST_TILE >= 8
        case 8:
            mg_pixel_tile(operands, 8, k, a, offset, b, c);
            break;
#endif
        case 6:
            mg_pixel_tile(operands, 6, k, a, offset, b, c);
            break;
        case 4:
            mg_pixel_tile(operands, 4, k, a, offset, b, c);
            break;
        case 2:
            mg_pixel_tile(operands, 2, k, a, offset, b, c);
            break;
        default:
            mg_pixel_tile(operands, 1, k, a, offset, b, c);
        }
}

static void MG_KERNEL(product_pixels)(int64_t m, int64_t k, const void *const *a, int64_t offset, const void *b,
                                      float *c) {
    mg_pixel_rows(MG_OPERANDS_F32, m, k, a, offset, b, c);
}

#if MG_HAS_AMX
#include "pixel_tiles.h"
#else
static void MG_KERNEL(product_pixels_half)(int64_t m, int64_t k, const void *const *a, int64_t offset, const void *b,
                                           float *c) {
    mg_pixel_rows(MG_OPERANDS_BF16, m, k, a, offset, b, c);
}
#endif

static void MG_KERNEL(pair_rows)(uint32_t *out, const mg_bf16 *a, const mg_bf16 *b, int64_t count) {
    int64_t i = 0;
    for (; b && i + MG_LANES <= count; i += MG_LANES) {
        mg_vh low, high;
        memcpy(&low, a + i, sizeof low);
        memcpy(&high, b + i, sizeof high);
        const mg_vu pairs = __builtin_convertvector(low, mg_vu) | __builtin_convertvector(high, mg_vu) << 16;
        memcpy(out + i, &pairs, sizeof pairs);
    }
    for (; i < count; i++)
        out[i] = (uint32_t)a[i].bits | (b ? (uint32_t)b[i].bits << 16 : 0);
}

/* ---- derivatives ---- */
static inline mg_vf mg_gelu_slope(mg_vf x) {
    return 0.5f * (1.0f + mg_erf(x * 0.707106781186547524f)) + x * mg_exp(-0.5f * x * x) * 0.398942280401432678f;
}

/* Of x sigmoid(factor x). */
static inline mg_vf mg_gate_slope(mg_vf x, float factor) {
    const mg_vf scaled = factor * x, gate = 1.0f / (1.0f + mg_exp(-scaled));
    return gate * (1.0f + scaled * (1.0f - gate));
}

/* To be called with a constant, or where the branch is the same over a whole loop. */
static inline mg_vf mg_slope(mg_vf x, mg_activation activation) {
    switch (activation) {
    case MG_ACT_SILU:
        return mg_gate_slope(x, 1.0f);
    case MG_ACT_GELU:
        return mg_gelu_slope(x);
    case MG_ACT_QUICK_GELU:
        return mg_gate_slope(x, 1.702f);
    case MG_ACT_RELU:
        return mg_select(x > 0.0f, mg_splat(1.0f), mg_splat(0.0f));
    case MG_ACT_TANH: {
        const mg_vf y = mg_tanh(x);
        return (1.0f - y) * (1.0f + y);
    }
    case MG_ACT_NONE:
        break;
    }
    return mg_splat(1.0f);
}

static void MG_KERNEL(activation_gradient)(float *out, const float *x, const float *dy, int64_t count,
                                           mg_activation activation) {
    for (int64_t i = 0; i < count; i += MG_LANES) {
        const int64_t n = mg_lanes_left(count, i);
        mg_store_part(out + i, mg_load_part(dy + i, n) * mg_slope(mg_load_part(x + i, n), activation), n);
    }
}

static void MG_KERNEL(geglu_gradient)(float *out_value, float *out_gate, const float *value, const float *gate,
                                      const float *dy, int64_t count) {
    for (int64_t i = 0; i < count; i += MG_LANES) {
        const int64_t n = mg_lanes_left(count, i);
        const mg_vf v = mg_load_part(value + i, n), g = mg_load_part(gate + i, n), d = mg_load_part(dy + i, n);
        mg_store_part(out_value + i, d * mg_gelu(g), n);
        mg_store_part(out_gate + i, d * v * mg_gelu_slope(g), n);
    }
}

/* ---- normalisation ---- */
static inline void mg_add_lanes(double *sum, mg_vf v, int64_t n) {
    float lane[MG_LANES];
    mg_store(lane, v);
    if (n == MG_LANES) {
        mg_add_to(sum, mg_widened(lane));
        mg_add_to(sum + MG_LANES / 2, mg_widened(lane + MG_LANES / 2));
    } else
        for (int64_t i = 0; i < n; i++)
            sum[i] += lane[i];
}

enum { MG_SUMMED_ROWS = 16 }; /* so many float32 sums before the doubles in memory are touched */

static void MG_KERNEL(column_sums)(double *sum, const float *x, int64_t rows, int64_t channels) {
    for (int64_t r = 0; r < rows; r += MG_SUMMED_ROWS) {
        const int64_t some = rows - r < MG_SUMMED_ROWS ? rows - r : MG_SUMMED_ROWS;
        for (int64_t c = 0; c < channels; c += MG_LANES) {
            const int64_t n = mg_lanes_left(channels, c);
            mg_vf s = {0};
            for (int64_t i = r; i < r + some; i++)
                s += mg_load_part(x + i * channels + c, n);
            mg_add_lanes(sum + c, s, n);
        }
    }
}

/* The gradient before the SiLU of what is behind it. */
static inline mg_vf mg_before_silu(mg_vf normal, mg_vf dy, const struct mg_cpu_normal *p, int64_t c, int64_t n,
                                   bool silu) {
    if (!silu)
        return dy;
    return dy * mg_gate_slope(normal * mg_load_part(p->gamma + c, n) + mg_load_part(p->beta + c, n), 1.0f);
}

static inline mg_vf mg_normal(const float *x, const struct mg_cpu_normal *p, int64_t c, int64_t n) {
    return (mg_load_part(x + c, n) - mg_load_part(p->mean + c, n)) * mg_load_part(p->inverse + c, n);
}

static void MG_KERNEL(normal_sums)(double *sum, double *products, const float *x, const float *dy,
                                   const struct mg_cpu_normal *p, int64_t rows, int64_t channels, bool silu) {
    for (int64_t r = 0; r < rows; r += MG_SUMMED_ROWS) {
        const int64_t some = rows - r < MG_SUMMED_ROWS ? rows - r : MG_SUMMED_ROWS;
        for (int64_t c = 0; c < channels; c += MG_LANES) {
            const int64_t n = mg_lanes_left(channels, c);
            mg_vf s = {0}, q = {0};
            for (int64_t i = r; i < r + some; i++) {
                const mg_vf normal = mg_normal(x + i * channels, p, c, n);
                const mg_vf g = mg_before_silu(normal, mg_load_part(dy + i * channels + c, n), p, c, n, silu);
                s += g;
                q += g * normal;
            }
            mg_add_lanes(sum + c, s, n);
            mg_add_lanes(products + c, q, n);
        }
    }
}

static void MG_KERNEL(normal_gradient)(float *out, const float *x, const float *dy, const struct mg_cpu_normal *p,
                                       int64_t rows, int64_t channels, bool silu) {
    for (int64_t r = 0; r < rows; r++, out += channels, x += channels, dy += channels)
        for (int64_t c = 0; c < channels; c += MG_LANES) {
            const int64_t n = mg_lanes_left(channels, c);
            const mg_vf normal = mg_normal(x, p, c, n);
            const mg_vf g = mg_before_silu(normal, mg_load_part(dy + c, n), p, c, n, silu);
            mg_store_part(out + c,
                          g * mg_load_part(p->gain + c, n) - mg_load_part(p->average + c, n) -
                              normal * mg_load_part(p->projection + c, n),
                          n);
        }
}

/* Mean and 1 / deviation of a row, as layernorm (norm.h) finds them. */
static inline void mg_row_statistics(float *mean, float *rest, float *inverse, const float *x, int64_t channels,
                                     float epsilon) {
    const float share = 1.0f / (float)channels;
    float sum, squares;
    MG_PASTE(MG_PASTE(row_sums, f32), MG_ISA)(&sum, &squares, x, x[0], channels);
    *mean = x[0] + sum * share;
    MG_PASTE(MG_PASTE(row_sums, f32), MG_ISA)(&sum, &squares, x, *mean, channels);
    *rest = sum * share;
    const float variance = squares * share - *rest * *rest;
    *inverse = 1.0f / sqrtf((variance < 0.0f ? 0.0f : variance) + epsilon);
}

static void MG_KERNEL(layernorm_sums)(double *sum, double *products, const float *x, const float *dy, int64_t rows,
                                      int64_t channels, float epsilon) {
    for (int64_t r = 0; r < rows; r++, x += channels, dy += channels) {
        float mean, rest, inverse;
        mg_row_statistics(&mean, &rest, &inverse, x, channels, epsilon);
        for (int64_t c = 0; c < channels; c += MG_LANES) {
            const int64_t n = mg_lanes_left(channels, c);
            const mg_vf g = mg_load_part(dy + c, n);
            mg_add_lanes(sum + c, g, n);
            mg_add_lanes(products + c, g * ((mg_load_part(x + c, n) - mean) - rest) * inverse, n);
        }
    }
}

static void MG_KERNEL(layernorm_gradient)(float *out, const float *x, const float *gamma, const float *dy, int64_t rows,
                                          int64_t channels, float epsilon) {
    for (int64_t r = 0; r < rows; r++, out += channels, x += channels, dy += channels) {
        float mean, rest, inverse;
        mg_vf s = {0}, q = {0};
        mg_row_statistics(&mean, &rest, &inverse, x, channels, epsilon);
        for (int64_t c = 0; c < channels; c += MG_LANES) {
            const int64_t n = mg_lanes_left(channels, c);
            const mg_vf g = mg_load_part(gamma + c, n) * mg_load_part(dy + c, n);
            s += g;
            q += g * mg_load_part(x + c, n) - g * mean - g * rest; /* lanes past the end: g is 0 */
        }
        const float average = mg_sum_lanes(s) / (float)channels;
        const float projection = mg_sum_lanes(q) * inverse / (float)channels;
        for (int64_t c = 0; c < channels; c += MG_LANES) {
            const int64_t n = mg_lanes_left(channels, c);
            const mg_vf g = mg_load_part(gamma + c, n) * mg_load_part(dy + c, n);
            const mg_vf normal = ((mg_load_part(x + c, n) - mean) - rest) * inverse;
            mg_store_part(out + c, (g - average - normal * projection) * inverse, n);
        }
    }
}

/* ---- attention: a block of scores becomes probabilities, the block of dy v^T the gradient of the scores times scale ---- */
static void MG_KERNEL(score_gradient)(float *scores, float *products, int64_t ld, int64_t rows, int64_t columns,
                                      float scale, const float *log_sums, const float *dots, bool by_column) {
    for (int64_t r = 0; r < rows; r++, scores += ld, products += ld)
        for (int64_t c = 0; c < columns; c += MG_LANES) {
            const int64_t n = mg_lanes_left(columns, c);
            const mg_vf log_sum = by_column ? mg_load_part(log_sums + c, n) : mg_splat(log_sums[r]);
            const mg_vf dot = by_column ? mg_load_part(dots + c, n) : mg_splat(dots[r]);
            const mg_vf p = mg_exp(mg_load_part(scores + c, n) * scale - log_sum);
            mg_store_part(scores + c, p, n);
            mg_store_part(products + c, p * (mg_load_part(products + c, n) - dot) * scale, n);
        }
}

static void MG_KERNEL(attention_gradient)(float *p, float *gradients, int64_t ld, const float *products,
                                          int64_t ld_products, int64_t rows, int64_t columns, float scale,
                                          const float *factors, const float *dots) {
    for (int64_t r = 0; r < rows; r++, p += ld, gradients += ld, products += ld_products) {
        const mg_vf factor = mg_splat(factors[r]), dot = mg_splat(dots[r]);
        for (int64_t c = 0; c < columns; c += MG_LANES) {
            const int64_t n = mg_lanes_left(columns, c);
            const mg_vf probability = mg_load_part(p + c, n) * factor;
            mg_store_part(p + c, probability, n);
            mg_store_part(gradients + c, probability * (mg_load_part(products + c, n) - dot) * scale, n);
        }
    }
}

/* Two rows of bfloat16 as pairs. */
static inline void mg_store_pairs(uint32_t *out, mg_vh low, mg_vh high, int64_t n) {
    const mg_vu pairs = __builtin_convertvector(low, mg_vu) | __builtin_convertvector(high, mg_vu) << 16;
    mg_store_part((float *)out, (mg_vf)pairs, n);
}

/* Some columns of one row or two, n of them: the whole vector where n is the constant MG_LANES. */
static inline void mg_half_gradients(uint32_t *p_pairs, uint32_t *gradient_pairs, mg_bf16 *gradients,
                                     int64_t ld_gradients, const float *p, int64_t ld, const float *products,
                                     int64_t rows, int64_t n, float scale, const float *factors, const float *dots) {
    mg_vh probability[2] = {{0}}, gradient[2] = {{0}};
    for (int64_t i = 0; i < rows; i++) {
        const mg_vf exact = mg_load_part(p + i * ld, n) * factors[i];
        probability[i] = mg_round_bf16(exact);
        gradient[i] = mg_round_bf16(exact * (mg_load_part(products + i * ld_gradients, n) - dots[i]) * scale);
        memcpy(gradients + i * ld_gradients, &gradient[i], (size_t)n * sizeof *gradients);
    }
    mg_store_pairs(p_pairs, probability[0], probability[1], n);
    mg_store_pairs(gradient_pairs, gradient[0], gradient[1], n);
}

static void MG_KERNEL(attention_gradient_half)(uint32_t *p_pairs, uint32_t *gradient_pairs, int64_t ld,
                                               mg_bf16 *gradients, int64_t ld_products, const float *p,
                                               const float *products, int64_t rows, int64_t columns, float scale,
                                               const float *factors, const float *dots) {
    for (int64_t r = 0; r < rows; r += 2) {
        for (int64_t i = 0; i < 2 && r + i < rows && columns % 2; i++)
            gradients[(r + i) * ld_products + columns] = (mg_bf16){0};
        const int64_t have = rows - r < 2 ? 1 : 2;
        uint32_t *to_p = p_pairs + r / 2 * ld, *to_gradient = gradient_pairs + r / 2 * ld;
        mg_bf16 *row = gradients + r * ld_products;
        const float *from = p + r * ld, *product = products + r * ld_products;
        int64_t c = 0;
        for (; have == 2 && c + MG_LANES <= columns; c += MG_LANES)
            mg_half_gradients(to_p + c, to_gradient + c, row + c, ld_products, from + c, ld, product + c, 2, MG_LANES,
                              scale, factors + r, dots + r);
        for (int64_t n; c < columns; c += n) {
            n = columns - c < MG_LANES ? columns - c : MG_LANES;
            mg_half_gradients(to_p + c, to_gradient + c, row + c, ld_products, from + c, ld, product + c, have, n,
                              scale, factors + r, dots + r);
        }
    }
}
#endif
