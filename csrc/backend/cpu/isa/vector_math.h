/* vector_math.h: elementary functions of a vector of floats, and sums and maxima over its lanes. Included by kernels.h
 * before the kernels that use them; knows vector.h only.
 *
 * Comparisons of vectors give all ones or all zeros in each lane; a choice between two vectors is made through such a
 * mask.
 */
#ifndef MG_VECTOR_MATH_H
#define MG_VECTOR_MATH_H
#include "vector.h"

static inline mg_vf mg_select(mg_vi mask, mg_vf yes, mg_vf no) {
    return (mg_vf)((mask & (mg_vi)yes) | (~mask & (mg_vi)no));
}

/* b where a lane of a is not a number */
static inline mg_vf mg_max(mg_vf a, mg_vf b) {
#if MG_HAS_AVX512
    return (mg_vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif MG_HAS_AVX2
    return (mg_vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return mg_select(a > b, a, b);
#endif
}

static inline mg_vf mg_abs(mg_vf x) { return (mg_vf)((mg_vi)x & 0x7fffffff); }

/* A mask of the first `count` lanes. */
static inline mg_vi mg_first_lanes(int64_t count) {
    static const int32_t index[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    mg_vi lane;
    memcpy(&lane, index, sizeof lane);
    return lane < (int32_t)count;
}

/* Sums and maxima over the lanes by halving: the order of summation is fixed. */
static inline float mg_sum_lanes(mg_vf v) {
    float lane[MG_LANES];
    mg_store(lane, v);
    for (int half = MG_LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

static inline float mg_max_lanes(mg_vf v) {
    float lane[MG_LANES];
    mg_store(lane, v);
    for (int half = MG_LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
    return lane[0];
}

/* e^x within 1e-7 of itself. Below e^-87.3, where floats lose digits, it is 0; above the largest float infinite; NaN
 * stays. x = n ln 2 + r with |r| <= ln(2)/2; e^r by a minimax polynomial, 2^n by adding n to the exponent's bits. */
static inline mg_vf mg_exp(mg_vf x) {
    const float lowest = -87.3f, highest = 88.72283f;
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer in the lowest bits */
    mg_vf shifted = x * 1.44269504088896f + round;
    mg_vf n = shifted - round;
    mg_vf r = x - n * 0.693145751953125f;
    r = r - n * 1.42860682030941723e-6f;
    mg_vf p = mg_splat(1.381459879e-3f);
    p = p * r + 8.368716575e-3f;
    p = p * r + 4.166838899e-2f;
    p = p * r + 1.666652113e-1f;
    p = p * r + 4.999999404e-1f;
    p = p * (r * r) + r;
    p = p + 1.0f;
    mg_vf y = (mg_vf)((mg_vu)p + ((mg_vu)shifted << 23));
    y = (mg_vf)((mg_vi)y & ~(mg_vi)(x < lowest));
    return mg_select(x <= highest, y, x + __builtin_inff());
}

/* The error function, absolutely within 1e-7 and near 0 relatively so: an odd polynomial up to 1, beyond it
 * 1 - e^q(|x|) with q the logarithm of the complement, fitted up to 4, where the rest is below half a float. */
static inline mg_vf mg_erf(mg_vf x) {
    mg_vf t = mg_abs(x), s = x * x;
    mg_vf small = mg_splat(7.853908028e-5f);
    small = small * s - 8.010208840e-4f;
    small = small * s + 5.188329611e-3f;
    small = small * s - 2.685381286e-2f;
    small = small * s + 1.128358543e-1f;
    small = small * s - 3.761262596e-1f;
    small = small * s + 1.283791070e-1f;
    small = small * x + x;
    t = mg_select(t > 4.0f, mg_splat(4.0f), t);
    mg_vf q = mg_splat(-1.150418073e-3f);
    q = q * t + 1.477808971e-2f;
    q = q * t - 8.863408864e-2f;
    q = q * t - 6.544891000e-1f;
    q = q * t - 1.117438436f;
    q = q * t - 2.671726281e-3f;
    mg_vf large = 1.0f - mg_exp(q);
    large = (mg_vf)((mg_vi)large | ((mg_vi)x & ~0x7fffffff));
    return mg_select(t > 1.0f, large, small);
}

/* tanh within 1e-7 of itself: an odd polynomial up to 0.625, beyond it 1 - 2 / (e^2|x| + 1). NaN stays. */
static inline mg_vf mg_tanh(mg_vf x) {
    mg_vf s = x * x;
    mg_vf small = mg_splat(-5.704983199e-3f);
    small = small * s + 2.063908380e-2f;
    small = small * s - 5.373971401e-2f;
    small = small * s + 1.333144218e-1f;
    small = small * s - 3.333328194e-1f;
    small = small * s * x + x;
    mg_vf large = 1.0f - 2.0f / (mg_exp(2.0f * mg_abs(x)) + 1.0f);
    large = (mg_vf)((mg_vi)large | ((mg_vi)x & ~0x7fffffff));
    return mg_select(mg_abs(x) > 0.625f, large, small);
}

/* ---- activations: x / (1 + e^-x) and not x * sigmoid(x), which rounds twice ---- */
static inline mg_vf mg_silu(mg_vf x) { return x / (1.0f + mg_exp(-x)); }
static inline mg_vf mg_quick_gelu(mg_vf x) { return x / (1.0f + mg_exp(-1.702f * x)); }
static inline mg_vf mg_relu(mg_vf x) { return mg_max(mg_splat(0.0f), x); } /* NaN stays */
static inline mg_vf mg_gelu(mg_vf x) { return 0.5f * x * (1.0f + mg_erf(x * 0.707106781186547524f)); }

/* ---- for results that are rounded to bfloat16: within 2e-4 of themselves, a twentieth of that rounding ---- */

/* 2^y for -126 <= y <= 126. With n an integer and |f| <= 1/2, 2^(n + f): a polynomial of three terms less than mg_exp's. */
static inline mg_vf mg_coarse_exp2(mg_vf y) {
    const float round = 12582912.0f; /* as in mg_exp */
    const mg_vf shifted = y + round, f = y - (shifted - round);
    mg_vf p = mg_splat(0.05517167f);
    p = p * f + 0.24261112f;
    p = p * f + 0.69326099f;
    p = p * f + 0.99992807f;
    return (mg_vf)((mg_vu)p + ((mg_vu)shifted << 23));
}

/* Where there is an instruction for it, with a reciprocal of 14 bits. */
static inline mg_vf mg_coarse_silu(mg_vf x) {
    mg_vf y = x * -1.44269504088896f;
    y = mg_select(y < -126.0f, mg_splat(-126.0f), y);
    y = mg_select(y > 126.0f, mg_splat(126.0f), y);
    const mg_vf exponential = mg_coarse_exp2(y);
#if MG_HAS_AVX512
    return x * (mg_vf)_mm512_rcp14_ps((__m512)(1.0f + exponential));
#else
    return x / (1.0f + exponential);
#endif
}

/* x Phi(x) = max(x, 0) - |x| Phi(-|x|); the base-2 logarithm of the normal distribution's tail by a polynomial, fitted up to 7,
 * where the tail is 1e-12. */
static inline mg_vf mg_coarse_gelu(mg_vf x) {
    mg_vf t = mg_abs(x);
    t = mg_select(t > 7.0f, mg_splat(7.0f), t);
    mg_vf p = mg_splat(1.748766044e-5f);
    p = p * t - 5.137293483e-4f;
    p = p * t + 6.554157939e-3f;
    p = p * t - 4.925563186e-2f;
    p = p * t - 4.638671279e-1f;
    p = p * t - 1.148913980f;
    p = p * t - 1.000162959f;
    return mg_relu(x) - t * mg_coarse_exp2(p);
}

/* To be called with a constant, or where the branch is the same over a whole loop. */
static inline mg_vf mg_activate(mg_vf x, mg_activation activation) {
    switch (activation) {
    case MG_ACT_SILU:
        return mg_silu(x);
    case MG_ACT_GELU:
        return mg_gelu(x);
    case MG_ACT_QUICK_GELU:
        return mg_quick_gelu(x);
    case MG_ACT_RELU:
        return mg_relu(x);
    case MG_ACT_TANH:
        return mg_tanh(x);
    case MG_ACT_NONE:
        break;
    }
    return x;
}
#endif
