/* winograd_weights.h: G g G^T of one panel of filters, in float32 or in fixed point. Reached through the table by
 * ops/winograd.c; fixed point is explained there. */
#ifndef MG_WINOGRAD_WEIGHTS_H
#define MG_WINOGRAD_WEIGHTS_H
#include <math.h>

#include "fixed_point.h"
#include "vector_math.h"
#include "winograd_lines.h"

static void MG_KERNEL(winograd_weights)(float *u, int64_t stride, const float *weight, int64_t c) {
    const int64_t panel = 2 * MG_LANES;
    for (int64_t at = 0; at < c * panel; at += MG_LANES) {
        mg_vf g[3][3], half[6][3], line[6];
        for (int r = 0; r < 3; r++)
            for (int s = 0; s < 3; s++)
                g[r][s] = mg_load(weight + (r * 3 + s) * c * panel + at);
        for (int s = 0; s < 3; s++) {
            MG_KERNEL(weight_line)(line, g[0][s], g[1][s], g[2][s]);
            for (int i = 0; i < 6; i++)
                half[i][s] = line[i];
        }
        for (int i = 0; i < 6; i++) {
            MG_KERNEL(weight_line)(line, half[i][0], half[i][1], half[i][2]);
            for (int j = 0; j < 6; j++)
                mg_store(u + (i * 6 + j) * stride + at, line[j]);
        }
    }
}

/* The sum (or the maximum) of |G g G^T| over channels is at most |G| m |G|^T, m the sums (maxima) of |g|: nine numbers for
 * each filter instead of 36. */
static inline void MG_KERNEL(weight_bounds)(mg_vf bound[36], const mg_vf m[9]) {
    mg_vf half[6][3], line[6];
    for (int s = 0; s < 3; s++) {
        MG_KERNEL(weight_bound_line)(line, m[s], m[3 + s], m[6 + s]);
        for (int i = 0; i < 6; i++)
            half[i][s] = line[i];
    }
    for (int i = 0; i < 6; i++)
        MG_KERNEL(weight_bound_line)(bound + 6 * i, half[i][0], half[i][1], half[i][2]);
}

/* factor[q]: what a transformed weight is multiplied by to become an integer; 0 where all are too small to matter, NaN where
 * one is no number, so that the filter's outputs are none. */
static inline void MG_KERNEL(weight_factors)(mg_vf factor[36], const float *taps, int64_t count) {
    const int64_t panel = 2 * MG_LANES;
    mg_vf sums[9], largest[9], sum_bound[36], bound[36];
    for (int t = 0; t < 9; t++) {
        sums[t] = largest[t] = mg_splat(0.0f);
        for (int64_t c = 0; c < count; c++) {
            const mg_vf g = mg_abs(mg_load(taps + (t * count + c) * panel));
            sums[t] += g;
            largest[t] = mg_max(g, largest[t]);
        }
    }
    MG_KERNEL(weight_bounds)(sum_bound, sums);
    MG_KERNEL(weight_bounds)(bound, largest);
    const float sum_limit = (float)MG_FIXED_WEIGHT_SUM - 0.5f * (float)count; /* rounding adds half a unit to each */
    for (int q = 0; q < 36; q++) {
        const mg_vf by_sum = sum_limit / sum_bound[q], by_largest = 32767.0f / bound[q];
        factor[q] = mg_select(by_sum < by_largest, by_sum, by_largest);
        factor[q] = mg_select(bound[q] > MG_FIXED_LEAST, factor[q], mg_splat(0.0f));
        factor[q] = mg_select(sum_bound[q] < INFINITY, factor[q], mg_splat(NAN));
    }
}

/* a and b rounded to integers below 2^15 in magnitude, side by side in 32 bits: adding 1.5 * 2^23 leaves the integer in the
 * lowest bits of the float. */
static inline mg_vi MG_KERNEL(fixed_pair)(mg_vf a, mg_vf b) {
    const mg_vi low = (mg_vi)(a + 12582912.0f), high = (mg_vi)(b + 12582912.0f);
    return (low & 0xffff) | (mg_vi)((mg_vu)high << 16);
}

static inline void MG_KERNEL(weight_half)(mg_vf half[6][3], const float *taps, int64_t count) {
    const int64_t panel = 2 * MG_LANES;
    mg_vf line[6];
    for (int s = 0; s < 3; s++) {
        const float *g = taps + s * count * panel;
        MG_KERNEL(weight_line)(line, mg_load(g), mg_load(g + 3 * count * panel), mg_load(g + 6 * count * panel));
        for (int i = 0; i < 6; i++)
            half[i][s] = line[i];
    }
}

/* taps[9][count][panel] -> u + q*stride, as [count/2][panel][2], and scales[q][panel]; count is even. */
static void MG_KERNEL(winograd_weights_fixed)(int16_t *u, int64_t stride, float *scales, const float *taps,
                                              int64_t count) {
    const int64_t panel = 2 * MG_LANES;
    for (int64_t column = 0; column < panel; column += MG_LANES) {
        mg_vf factor[36], first[6][3], second[6][3], a[6], b[6];
        MG_KERNEL(weight_factors)(factor, taps + column, count);
        for (int q = 0; q < 36; q++)
            mg_store(scales + q * panel + column, mg_select(factor[q] == 0.0f, mg_splat(0.0f), 1.0f / factor[q]));
        for (int64_t c = 0; c < count; c += 2) {
            MG_KERNEL(weight_half)(first, taps + c * panel + column, count);
            MG_KERNEL(weight_half)(second, taps + (c + 1) * panel + column, count);
            for (int i = 0; i < 6; i++) {
                MG_KERNEL(weight_line)(a, first[i][0], first[i][1], first[i][2]);
                MG_KERNEL(weight_line)(b, second[i][0], second[i][1], second[i][2]);
                for (int j = 0; j < 6; j++) {
                    const int q = i * 6 + j;
                    const mg_vi pair = MG_KERNEL(fixed_pair)(a[j] * factor[q], b[j] * factor[q]);
                    memcpy(u + q * stride + (c * panel + 2 * column), &pair, sizeof pair);
                }
            }
        }
    }
}

/* G^T m G, added to nine taps: position q of m at q*stride, tap t of the gradient at t*tap_stride; count whole vectors. */
static void MG_KERNEL(winograd_weight_gradient)(float *gradient, int64_t tap_stride, const float *m, int64_t stride,
                                                int64_t count) {
    for (int64_t at = 0; at < count; at += MG_LANES) {
        mg_vf half[3][6], line[3], column[6];
        for (int j = 0; j < 6; j++) {
            for (int i = 0; i < 6; i++)
                column[i] = mg_load(m + (i * 6 + j) * stride + at);
            MG_KERNEL(weight_gradient_line)(line, column);
            for (int r = 0; r < 3; r++)
                half[r][j] = line[r];
        }
        for (int r = 0; r < 3; r++) {
            MG_KERNEL(weight_gradient_line)(line, half[r]);
            for (int s = 0; s < 3; s++) {
                float *to = gradient + (r * 3 + s) * tap_stride + at;
                mg_store(to, mg_load(to) + line[s]);
            }
        }
    }
}
#endif
