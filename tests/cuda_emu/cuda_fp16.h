/* cuda_fp16.h of the emulation. */
#ifndef MG_EMU_CUDA_FP16_H
#define MG_EMU_CUDA_FP16_H
#include <cstdint>
#include <cstring>

struct __half {
    uint16_t bits;
};

static inline float mg_emu_float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Exponents of a float are 112 greater; subnormals become normal by the product. */
static inline float __half2float(__half x) {
    const uint32_t sign = (uint32_t)(x.bits & 0x8000) << 16, magnitude = (uint32_t)(x.bits & 0x7fff) << 13;
    const float value = mg_emu_float_of_bits(magnitude) * 0x1p112f;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits |= magnitude >= 0x7c00u << 13 ? 0x7f800000u : 0;
    return mg_emu_float_of_bits(bits | sign);
}

/* To the nearest, ties to even; beyond the range infinite. A sum with 0.5 rounds subnormals where they end. */
static inline __half __float2half(float x) {
    uint32_t bits, sum;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    const float with_half = mg_emu_float_of_bits(bits) + 0.5f;
    memcpy(&sum, &with_half, sizeof sum);
    const uint32_t subnormal = sum - 0x3f000000u, normal = (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13;
    const uint32_t magnitude = bits > 0x7f800000u    ? 0x7fffu
                               : bits >= 0x477ff000u ? 0x7c00u
                               : bits < 0x38800000u  ? subnormal
                                                     : normal;
    return {(uint16_t)(sign | magnitude)};
}
#endif
