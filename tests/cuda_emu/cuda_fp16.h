/* cuda_fp16.h of the emulation. */
#ifndef MG_EMU_CUDA_FP16_H
#define MG_EMU_CUDA_FP16_H
#include <cmath>
#include <cstdint>
#include <cstring>

struct __half {
    uint16_t bits;
};

static inline float __half2float(__half x) {
    const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
    const float magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                            : exponent == 0 ? std::ldexp((float)fraction, -24)
                                            : std::ldexp((float)(fraction + 1024), exponent - 25);
    return x.bits >> 15 ? -magnitude : magnitude;
}

/* To the nearest, ties to even; beyond the range infinite. */
static inline __half __float2half(float x) {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const float magnitude = std::fabs(x);
    if (x != x)
        return {0x7fff};
    if (magnitude == 0.0f)
        return {sign};
    if (magnitude >= 65520.0f)
        return {(uint16_t)(sign | 0x7c00)};
    int exponent;
    std::frexp(magnitude, &exponent);
    exponent = exponent < -13 ? -13 : exponent; /* subnormal below 2^-14 */
    const int steps = (int)std::nearbyint(std::ldexp(magnitude, 11 - exponent));
    return {(uint16_t)(sign | (((exponent + 13) << 10) + steps))};
}
#endif
