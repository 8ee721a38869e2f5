/* softmax.h: one block of a softmax that sees its row in pieces (ops/attention.c keeps the running maximum and sum of
 * each row and rescales what it has summed so far by `correction`). Reached through the table.
 */
#ifndef MG_SOFTMAX_H
#define MG_SOFTMAX_H
#include "vector_math.h"

static inline float mg_row_max(const float *x, int64_t count) {
    mg_vf m0 = mg_splat(-__builtin_inff()), m1 = m0;
    int64_t i = 0;
    for (; i + 2 * MG_LANES <= count; i += 2 * MG_LANES) {
        m0 = mg_max(m0, mg_load(x + i));
        m1 = mg_max(m1, mg_load(x + i + MG_LANES));
    }
    for (; i < count; i += MG_LANES) {
        int64_t rest = count - i < MG_LANES ? count - i : MG_LANES;
        m0 = mg_max(m0, mg_select(mg_first_lanes(rest), mg_load_part(x + i, rest), m0));
    }
    return mg_max_lanes(mg_max(m0, m1));
}

/* x = exp(scale x - maximum); returns the sum. */
static inline float mg_row_exp(float *x, int64_t count, float scale, float maximum) {
    mg_vf s0 = {0}, s1 = {0};
    int64_t i = 0;
    for (; i + 2 * MG_LANES <= count; i += 2 * MG_LANES) {
        mg_vf p0 = mg_exp(mg_load(x + i) * scale - maximum), p1 = mg_exp(mg_load(x + i + MG_LANES) * scale - maximum);
        mg_store(x + i, p0);
        mg_store(x + i + MG_LANES, p1);
        s0 += p0;
        s1 += p1;
    }
    for (; i < count; i += MG_LANES) {
        int64_t rest = count - i < MG_LANES ? count - i : MG_LANES;
        mg_vf p = mg_exp(mg_load_part(x + i, rest) * scale - maximum);
        mg_store_part(x + i, p, rest);
        s0 += mg_select(mg_first_lanes(rest), p, (mg_vf){0});
    }
    return mg_sum_lanes(s0 + s1);
}

/* 2^y, and nothing for what is less than the smallest normal number. */
static inline mg_vf mg_coarse_probability(mg_vf y) { return (mg_vf)((mg_vi)mg_coarse_exp2(y) & ~(mg_vi)(y < -126.0f)); }

/* x = 2^(scale x - maximum), by the coarse exponential; returns the sum. */
static inline float mg_row_exp2(float *x, int64_t count, float scale, float maximum) {
    mg_vf s0 = {0}, s1 = {0};
    int64_t i = 0;
    for (; i + 2 * MG_LANES <= count; i += 2 * MG_LANES) {
        const mg_vf p0 = mg_coarse_probability(mg_load(x + i) * scale - maximum);
        const mg_vf p1 = mg_coarse_probability(mg_load(x + i + MG_LANES) * scale - maximum);
        mg_store(x + i, p0);
        mg_store(x + i + MG_LANES, p1);
        s0 += p0;
        s1 += p1;
    }
    for (; i < count; i += MG_LANES) {
        const int64_t rest = count - i < MG_LANES ? count - i : MG_LANES;
        const mg_vf p = mg_coarse_probability(mg_load_part(x + i, rest) * scale - maximum);
        mg_store_part(x + i, p, rest);
        s0 += mg_select(mg_first_lanes(rest), p, (mg_vf){0});
    }
    return mg_sum_lanes(s0 + s1);
}

/* out = 2^(scale x - maximum) in bfloat16, by the coarse exponential; returns the sum of what was rounded. */
static inline float mg_row_exp2_half(mg_bf16 *out, const float *x, int64_t count, float scale, float maximum) {
    mg_vf s0 = {0}, s1 = {0};
    int64_t i = 0;
    for (; i + 2 * MG_LANES <= count; i += 2 * MG_LANES) {
        const mg_vf p0 = mg_coarse_probability(mg_load(x + i) * scale - maximum);
        const mg_vf p1 = mg_coarse_probability(mg_load(x + i + MG_LANES) * scale - maximum);
        mg_store_bf16(out + i, p0);
        mg_store_bf16(out + i + MG_LANES, p1);
        s0 += p0;
        s1 += p1;
    }
    for (; i < count; i += MG_LANES) {
        const int64_t rest = count - i < MG_LANES ? count - i : MG_LANES;
        const mg_vf p = mg_coarse_probability(mg_load_part(x + i, rest) * scale - maximum);
        mg_store_part_bf16(out + i, p, rest);
        s0 += mg_select(mg_first_lanes(rest), p, (mg_vf){0});
    }
    return mg_sum_lanes(s0 + s1);
}

#define MG_LOG2_E 1.44269504088896f

/* The largest of a row times scale and what was seen before; and what to subtract: a row whose every score is masked
 * (-infinity) so far adds nothing, and must not become inf - inf. */
static inline float mg_new_maximum(float *subtracted, const float *row, int64_t columns, float scale, float before) {
    const float highest = mg_row_max(row, columns) * scale, maximum = highest > before ? highest : before;
    *subtracted = maximum == -__builtin_inff() ? 0.0f : maximum;
    return maximum;
}

static inline void mg_update_sum(float *running_sum, float *running_max, float *correction, float sum, float maximum,
                                 float subtracted) {
    *correction = mg_exp(mg_splat(*running_max - subtracted))[0];
    *running_sum = *running_sum * *correction + sum;
    *running_max = maximum;
}

static void MG_KERNEL(softmax_block)(float *scores, int64_t ld, int64_t rows, int64_t columns, float scale,
                                     float *running_max, float *running_sum, float *correction) {
    for (int64_t r = 0; r < rows; r++) {
        float *row = scores + r * ld, subtracted;
        const float maximum = mg_new_maximum(&subtracted, row, columns, scale, running_max[r]);
        const float sum = mg_row_exp(row, columns, scale, subtracted);
        mg_update_sum(running_sum + r, running_max + r, correction + r, sum, maximum, subtracted);
    }
}

static void MG_KERNEL(softmax_block_coarse)(float *scores, int64_t ld, int64_t rows, int64_t columns, float scale,
                                            float *running_max, float *running_sum, float *correction) {
    for (int64_t r = 0; r < rows; r++) {
        float *row = scores + r * ld, subtracted;
        const float maximum = mg_new_maximum(&subtracted, row, columns, scale, running_max[r]);
        const float sum = mg_row_exp2(row, columns, scale * MG_LOG2_E, subtracted * MG_LOG2_E);
        mg_update_sum(running_sum + r, running_max + r, correction + r, sum, maximum, subtracted);
    }
}

static void MG_KERNEL(softmax_block_half)(mg_bf16 *out, const float *scores, int64_t ld, int64_t rows, int64_t columns,
                                          float scale, float *running_max, float *running_sum, float *correction) {
    for (int64_t r = 0; r < rows; r++) {
        const float *row = scores + r * ld;
        float subtracted;
        const float maximum = mg_new_maximum(&subtracted, row, columns, scale, running_max[r]);
        const float sum = mg_row_exp2_half(out + r * ld, row, columns, scale * MG_LOG2_E, subtracted * MG_LOG2_E);
        if (columns % 2)
            out[r * ld + columns] = (mg_bf16){0};
        mg_update_sum(running_sum + r, running_max + r, correction + r, sum, maximum, subtracted);
    }
}
#endif
