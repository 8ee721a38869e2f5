/* vector.h: vectors of MG_LANES floats in the compilers' own vector notation, so that a kernel is written once and
 * compiled for each instruction set. A file isa/kernels_SET.c defines
 *   MG_LANES             floats of a vector
 *   MG_VECTOR_REGISTERS  how many vectors the processor holds: how many rows a register tile may have
 *   MG_HAS_NAME 1        for instructions that are used by their name: AVX2, AVXVNNI; AVX512 (F, VL, BW, DQ), AVX512VNNI, AVX512BF16,
 *                        AMX; on ARM NEON, DOTPROD, BF16, I8MM
 *   MG_ISA               the suffix of its functions' names
 * and includes kernels.h. Without them (a tool that reads this file alone) it is the baseline.
 */
#ifndef MG_VECTOR_H
#define MG_VECTOR_H
#ifndef MG_LANES
#define MG_LANES 4
#define MG_VECTOR_REGISTERS 16
#define MG_ISA scalar
#endif
#include <stdint.h>
#include <string.h>

#include "../cpu.h"
#if MG_HAS_AVX2 || MG_HAS_AVX512
#include <immintrin.h>
#endif
#if MG_HAS_NEON
#include <arm_neon.h>
#endif

/* For functions whose constant arguments choose what they do: loops over rows are unrolled, branches go. */
#define MG_ALWAYS_INLINE static inline __attribute__((always_inline))

typedef float mg_vf __attribute__((vector_size(MG_LANES * 4)));
typedef int32_t mg_vi __attribute__((vector_size(MG_LANES * 4)));

#define MG_PASTE_(a, b) a##__##b
#define MG_PASTE(a, b) MG_PASTE_(a, b)
#define MG_KERNEL(name) MG_PASTE(name, MG_ISA) /* gemm_panel -> gemm_panel__avx512 */

static inline mg_vf mg_load(const float *p) {
    mg_vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void mg_store(float *p, mg_vf v) { memcpy(p, &v, sizeof v); }
/* x - 0 and not 0 + x, which a compiler may not fold: -0 + 0 is +0. */
static inline mg_vf mg_splat(float x) { return x - (mg_vf){0}; }
/* The first `count` lanes (others zero), 0 <= count <= MG_LANES; for the ends of rows. Pieces of constant size, because
 * a memcpy of variable size is a call into the C library. */
static inline mg_vf mg_load_part(const float *p, int64_t count) {
    float lane[MG_LANES] = {0};
    int64_t i = 0;
    if (count >= MG_LANES)
        return mg_load(p);
#if MG_LANES > 8
    if (count & 8) {
        memcpy(lane, p, 32);
        i = 8;
    }
#endif
#if MG_LANES > 4
    if (count & 4) {
        memcpy(lane + i, p + i, 16);
        i += 4;
    }
#endif
    if (count & 2) {
        memcpy(lane + i, p + i, 8);
        i += 2;
    }
    if (count & 1)
        lane[i] = p[i];
    return mg_load(lane);
}
static inline void mg_store_part(float *p, mg_vf v, int64_t count) {
    float lane[MG_LANES];
    int64_t i = 0;
    if (count >= MG_LANES) {
        mg_store(p, v);
        return;
    }
    mg_store(lane, v);
#if MG_LANES > 8
    if (count & 8) {
        memcpy(p, lane, 32);
        i = 8;
    }
#endif
#if MG_LANES > 4
    if (count & 4) {
        memcpy(p + i, lane + i, 16);
        i += 4;
    }
#endif
    if (count & 2) {
        memcpy(p + i, lane + i, 8);
        i += 2;
    }
    if (count & 1)
        p[i] = lane[i];
}

/* ---- bfloat16 in memory, float32 in registers ---- */
typedef uint16_t mg_vh __attribute__((vector_size(MG_LANES * 2)));
typedef uint32_t mg_vu __attribute__((vector_size(MG_LANES * 4)));
typedef int16_t mg_vs __attribute__((vector_size(MG_LANES * 2)));
typedef uint8_t mg_vb __attribute__((vector_size(MG_LANES)));

static inline mg_vf mg_load_bf16(const mg_bf16 *p) {
    mg_vh v;
    memcpy(&v, p, sizeof v);
    return (mg_vf)(__builtin_convertvector(v, mg_vu) << 16);
}

/* To the nearest, ties to even. A NaN keeps its upper bits, of which the quiet bit is set, lest rounding make it infinite. */
static inline mg_vh mg_round_bf16(mg_vf v) {
#if MG_HAS_AVX512BF16
    return (mg_vh)_mm512_cvtneps_pbh((__m512)v);
#elif MG_HAS_BF16
    return (mg_vh)vcvt_bf16_f32((float32x4_t)v);
#else
    const mg_vu bits = (mg_vu)v, is_nan = (mg_vu)(v != v);
    const mg_vu rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return __builtin_convertvector((rounded & ~is_nan) | ((bits >> 16 | 0x40) & is_nan), mg_vh);
#endif
}

static inline void mg_store_bf16(mg_bf16 *p, mg_vf v) {
    const mg_vh halves = mg_round_bf16(v);
    memcpy(p, &halves, sizeof halves);
}

static inline mg_vf mg_load_part_bf16(const mg_bf16 *p, int64_t count) {
    mg_bf16 lane[MG_LANES] = {{0}};
    for (int64_t i = 0; i < MG_LANES; i++)
        if (i < count)
            lane[i] = p[i];
    return mg_load_bf16(lane);
}

static inline void mg_store_part_bf16(mg_bf16 *p, mg_vf v, int64_t count) {
    mg_bf16 lane[MG_LANES];
    mg_store_bf16(lane, v);
    for (int64_t i = 0; i < MG_LANES; i++)
        if (i < count)
            p[i] = lane[i];
}

/* One name for both element types: by the type of the pointer. */
#define mg_get(p)                                                                                                      \
    _Generic((p), float *: mg_load, const float *: mg_load, mg_bf16 *: mg_load_bf16, const mg_bf16 *: mg_load_bf16)(p)
#define mg_put(p, v) _Generic((p), float * : mg_store, mg_bf16 * : mg_store_bf16)(p, v)
#define mg_get_part(p, count)                                                                                          \
    _Generic((p),                                                                                                      \
        float *: mg_load_part,                                                                                         \
        const float *: mg_load_part,                                                                                   \
        mg_bf16 *: mg_load_part_bf16,                                                                                  \
        const mg_bf16 *: mg_load_part_bf16)(p, count)
#define mg_put_part(p, v, count) _Generic((p), float * : mg_store_part, mg_bf16 * : mg_store_part_bf16)(p, v, count)

/* How many of the lanes from element i on are elements of a row of `count`. */
static inline int64_t mg_lanes_left(int64_t count, int64_t i) { return count - i < MG_LANES ? count - i : MG_LANES; }
#endif
