/* fixed_point.h: numbers of 16 bits with a common scale: block floating point, as Winograd's products use it (ops/winograd.c
 * says why). Included by kernels.h before the kernels that use it. */
#ifndef MG_FIXED_POINT_H
#define MG_FIXED_POINT_H
#include "vector.h"

/* Maxima of magnitudes, compared as integers: NaN is larger than infinity, infinity than every number. */
static inline mg_vi mg_max_bits(mg_vi a, mg_vi b) {
#if MG_HAS_AVX512
    return (mg_vi)_mm512_max_epi32((__m512i)a, (__m512i)b);
#elif MG_HAS_AVX2
    return (mg_vi)_mm256_max_epi32((__m256i)a, (__m256i)b);
#elif MG_HAS_NEON
    return (mg_vi)vmaxq_s32((int32x4_t)a, (int32x4_t)b);
#else
    const mg_vi mask = a > b;
    return (a & mask) | (b & ~mask);
#endif
}

static inline float mg_max_lanes_bits(mg_vi v) {
    int32_t lane[MG_LANES], largest;
    memcpy(lane, &v, sizeof v);
    for (int half = MG_LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
    largest = lane[0];
    float x;
    memcpy(&x, &largest, sizeof x);
    return x;
}

/* What values of at most `largest` are multiplied by; *scale is what turns the integers back. A block that is not finite
 * makes its whole result NaN. */
static inline float mg_fixed_factor(float *scale, float largest) {
    if (!(largest <= 3.4e38f)) {
        *scale = __builtin_nanf("");
        return 0.0f;
    }
    if (largest < MG_FIXED_LEAST) {
        *scale = 0.0f;
        return 0.0f;
    }
    *scale = largest / MG_FIXED_VALUE;
    return MG_FIXED_VALUE / largest;
}

/* To the nearest integer: adding 1.5 * 2^23 leaves it in the lowest bits of the float. */
static inline mg_vs mg_to_fixed(mg_vf v) { return __builtin_convertvector((mg_vi)(v + 12582912.0f), mg_vs); }

static inline void mg_store_fixed(int16_t *p, mg_vf v) {
    const mg_vs integers = mg_to_fixed(v);
    memcpy(p, &integers, sizeof integers);
}

static inline void mg_store_part_fixed(int16_t *p, mg_vf v, int64_t count) {
    int16_t lane[MG_LANES];
    mg_store_fixed(lane, v);
    for (int64_t i = 0; i < MG_LANES; i++)
        if (i < count)
            p[i] = lane[i];
}

/* The first `count` lanes, integers 0..255 after rounding. */
static inline void mg_store_byte(uint8_t *p, mg_vf v, int64_t count) {
    const mg_vb bytes = __builtin_convertvector((mg_vi)(v + 12582912.0f), mg_vb);
    if (count >= MG_LANES) {
        memcpy(p, &bytes, sizeof bytes);
        return;
    }
    uint8_t lane[MG_LANES];
    memcpy(lane, &bytes, sizeof bytes);
    for (int64_t i = 0; i < MG_LANES; i++)
        if (i < count)
            p[i] = lane[i];
}
#endif
