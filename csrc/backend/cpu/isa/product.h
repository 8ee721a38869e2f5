/* product.h: the matrix product C (+)= A B on packed panels, the inner loop of linear layers, convolution and attention,
 * for four types of operands. Reached through the table.
 *
 * A step multiplies four bytes of a row of A (one float, two bfloat16, two int16 or four int8) with as many of each column
 * of B, which is packed in panels of 2*MG_LANES columns: [step][column][four bytes]. A register tile holds up to 12 rows of
 * two vectors of sums; 8 on ARM, where product_lanes.h has the inner loop. With AMX product_tiles.h multiplies bfloat16 and
 * bytes. Every element of C is a chain of additions in the order of the steps, whatever the tile: results do not depend on
 * how rows are grouped. */
#ifndef MG_PRODUCT_H
#define MG_PRODUCT_H
#include "vector.h"

/* Rows of the largest register tile: two sums a row, two vectors of B and one of A must fit the registers; on ARM one of A
 * for each row. */
#if MG_HAS_NEON
#define MG_LARGEST_TILE 8
#elif MG_VECTOR_REGISTERS >= 32
#define MG_LARGEST_TILE 12
#else
#define MG_LARGEST_TILE 6
#endif

/* What a step multiplies: a float, two bfloat16, two 16-bit integers, or four bytes (unsigned of A, signed of B). */
enum mg_operands { MG_OPERANDS_F32, MG_OPERANDS_BF16, MG_OPERANDS_I16, MG_OPERANDS_U8I8 };

/* ---- one step: sum + x . y in each lane ---- */
static inline mg_vf mg_dot_f32(mg_vf sum, mg_vi x, mg_vi y) { return sum + (mg_vf)x * (mg_vf)y; }

static inline mg_vf mg_dot_bf16(mg_vf sum, mg_vi x, mg_vi y) {
#if MG_HAS_AVX512BF16
    return (mg_vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
#elif MG_HAS_BF16
    return (mg_vf)vbfdotq_f32((float32x4_t)sum, (bfloat16x8_t)x, (bfloat16x8_t)y);
#else
    const mg_vi upper = (mg_vi){0} - 0x10000; /* the odd elements are floats already, but for the even one's bits */
    return sum + (mg_vf)(x << 16) * (mg_vf)(y << 16) + (mg_vf)(x & upper) * (mg_vf)(y & upper);
#endif
}

static inline mg_vi mg_dot_i16(mg_vi sum, mg_vi x, mg_vi y) {
#if MG_HAS_AVX512VNNI
    return (mg_vi)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)x, (__m512i)y);
#elif MG_HAS_AVXVNNI
    return (mg_vi)_mm256_dpwssd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)y);
#elif MG_HAS_AVX512
    return sum + (mg_vi)_mm512_madd_epi16((__m512i)x, (__m512i)y);
#elif MG_HAS_AVX2
    return sum + (mg_vi)_mm256_madd_epi16((__m256i)x, (__m256i)y);
#else
    return sum + (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
#endif
}

/* x: unsigned bytes, y: signed bytes. Sums are exact: instructions that saturate at 16 bits are not used. */
static inline mg_vi mg_dot_u8i8(mg_vi sum, mg_vi x, mg_vi y) {
#if MG_HAS_AVX512VNNI
    return (mg_vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)y);
#elif MG_HAS_AVXVNNI
    return (mg_vi)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)y);
#elif MG_HAS_AVX512
    const __m512i even = _mm512_set1_epi16(0xff), z = (__m512i)y;
    sum += (mg_vi)_mm512_madd_epi16((__m512i)x & even, _mm512_srai_epi16(_mm512_slli_epi16(z, 8), 8));
    return sum + (mg_vi)_mm512_madd_epi16(_mm512_srli_epi16((__m512i)x, 8), _mm512_srai_epi16(z, 8));
#elif MG_HAS_AVX2
    const __m256i even = _mm256_set1_epi16(0xff), z = (__m256i)y;
    sum += (mg_vi)_mm256_madd_epi16((__m256i)x & even, _mm256_srai_epi16(_mm256_slli_epi16(z, 8), 8));
    return sum + (mg_vi)_mm256_madd_epi16(_mm256_srli_epi16((__m256i)x, 8), _mm256_srai_epi16(z, 8));
#else
    for (int shift = 0; shift < 32; shift += 8)
        sum += (x >> shift & 0xff) * (y << (24 - shift) >> 24);
    return sum;
#endif
}

/* Sums of floats are passed as their bits, so that one function serves all operands. */
MG_ALWAYS_INLINE mg_vi mg_dot(enum mg_operands operands, mg_vi sum, mg_vi x, mg_vi y) {
    switch (operands) {
    case MG_OPERANDS_F32:
        return (mg_vi)mg_dot_f32((mg_vf)sum, x, y);
    case MG_OPERANDS_BF16:
        return (mg_vi)mg_dot_bf16((mg_vf)sum, x, y);
    case MG_OPERANDS_I16:
        return mg_dot_i16(sum, x, y);
    default:
        return mg_dot_u8i8(sum, x, y);
    }
}

static inline mg_vi mg_load_bits(const void *p) {
    mg_vi v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void mg_store_bits(void *p, mg_vi v) { memcpy(p, &v, sizeof v); }

static inline mg_vi mg_splat_bits(const void *p) {
    int32_t bits;
    memcpy(&bits, p, sizeof bits);
    return (mg_vi){0} + bits;
}

/* ---- register tiles. `operands` and `rows` are constants; leading dimensions are in bytes ---- */

#if MG_HAS_NEON
#include "product_lanes.h"
#else
#if MG_HAS_AMX
#include "product_tiles.h"
#endif
/* The rows of the next tile are asked for a cache line ahead: in many short rows the processor's own prefetchers see no
 * stream. Addresses past the last row may be asked for, too; a prefetch tolerates that. */
MG_ALWAYS_INLINE void mg_add_steps(enum mg_operands operands, int rows, mg_vi *left, mg_vi *right, int64_t steps,
                                   const char *a, int64_t lda, const char *b) {
    for (int64_t p = 0; p < steps;) {
        const int64_t end = steps - p > 16 ? p + 16 : steps;
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++)
            __builtin_prefetch(a + (rows + i) * lda + p * 4, 0, 2);
        for (; p < end; p++) {
            const mg_vi b0 = mg_load_bits(b + p * 8 * MG_LANES), b1 = mg_load_bits(b + p * 8 * MG_LANES + 4 * MG_LANES);
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++) {
                const mg_vi x = mg_splat_bits(a + i * lda + p * 4);
                left[i] = mg_dot(operands, left[i], x, b0);
                right[i] = mg_dot(operands, right[i], x, b1);
            }
        }
    }
}
#endif

/* C is of the sums' own type: floats, or 32-bit integers for bytes. */
MG_ALWAYS_INLINE void mg_plain_tile(enum mg_operands operands, int rows, int64_t steps, const char *a, int64_t lda,
                                    const char *b, char *c, int64_t ldc, bool accumulate) {
    mg_vi left[MG_LARGEST_TILE], right[MG_LARGEST_TILE];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        left[i] = accumulate ? mg_load_bits(c + i * ldc) : (mg_vi){0};
        right[i] = accumulate ? mg_load_bits(c + i * ldc + 4 * MG_LANES) : (mg_vi){0};
    }
    mg_add_steps(operands, rows, left, right, steps, a, lda, b);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        mg_store_bits(c + i * ldc, left[i]);
        mg_store_bits(c + i * ldc + 4 * MG_LANES, right[i]);
    }
}

/* C, in float32, receives the sums times a scale of the row and one of the column. */
MG_ALWAYS_INLINE void mg_fixed_tile(int rows, int64_t steps, const char *a, int64_t lda, const float *a_scales,
                                    const char *b, const float *b_scales, float *c, int64_t ldc, bool accumulate) {
    mg_vi left[MG_LARGEST_TILE], right[MG_LARGEST_TILE];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
        left[i] = right[i] = (mg_vi){0};
    mg_add_steps(MG_OPERANDS_I16, rows, left, right, steps, a, lda, b);
    const mg_vf s0 = mg_load(b_scales), s1 = mg_load(b_scales + MG_LANES);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        float *row = c + i * ldc;
        const mg_vf scale = mg_splat(a_scales[i]);
        /* Always a sum, so that the compiler contracts it in the tiles of all heights or in none: bits would differ. */
        const mg_vf before0 = accumulate ? mg_load(row) : mg_splat(0.0f);
        const mg_vf before1 = accumulate ? mg_load(row + MG_LANES) : mg_splat(0.0f);
        mg_store(row, __builtin_convertvector(left[i], mg_vf) * (s0 * scale) + before0);
        mg_store(row + MG_LANES, __builtin_convertvector(right[i], mg_vf) * (s1 * scale) + before1);
    }
}

/* ---- any number of rows: the largest tile that fits, again and again ---- */

/* Rows of the next tile of `left` rows. */
static inline int mg_tile_rows(int64_t left) {
    if (MG_LARGEST_TILE >= 8 && left >= 8)
        return MG_LARGEST_TILE >= 12 && left >= 12 ? 12 : 8;
    return left >= 6 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

MG_ALWAYS_INLINE void mg_plain_rows(enum mg_operands operands, int64_t m, int64_t steps, const void *from, int64_t lda,
                                    const void *panel, void *to, int64_t ldc, bool accumulate) {
    const char *a = from, *b = panel;
    char *c = to;
    for (int rows; m > 0; m -= rows, a += rows * lda, c += rows * ldc)
        switch (rows = mg_tile_rows(m)) {
#if MG_LARGEST_TILE >= 12
        case 12:
            mg_plain_tile(operands, 12, steps, a, lda, b, c, ldc, accumulate);
            break;
#endif
#if MG_LARGEST_TILE >= 8
        case 8:
            mg_plain_tile(operands, 8, steps, a, lda, b, c, ldc, accumulate);
            break;
#endif
        case 6:
            mg_plain_tile(operands, 6, steps, a, lda, b, c, ldc, accumulate);
            break;
        case 4:
            mg_plain_tile(operands, 4, steps, a, lda, b, c, ldc, accumulate);
            break;
        case 2:
            mg_plain_tile(operands, 2, steps, a, lda, b, c, ldc, accumulate);
            break;
        default:
            mg_plain_tile(operands, 1, steps, a, lda, b, c, ldc, accumulate);
        }
}

static void MG_KERNEL(product_f32)(int64_t m, int64_t k, const float *a, int64_t lda, const float *b, float *c,
                                   int64_t ldc, bool accumulate) {
    mg_plain_rows(MG_OPERANDS_F32, m, k, a, lda * 4, b, c, ldc * 4, accumulate);
}

#if MG_HAS_AVX512BF16 || MG_HAS_BF16 /* elsewhere see product_widened.h */
static void MG_KERNEL(product_bf16)(int64_t m, int64_t k, int64_t panels, const mg_bf16 *a, int64_t lda,
                                    const mg_bf16 *b, int64_t ldb, float *c, int64_t ldc, bool accumulate) {
#if MG_HAS_AMX
    mg_tile_product(false, m, k / 2, panels, a, lda * 2, b, ldb * 2, c, ldc * 4, accumulate);
#else
    for (int64_t p = 0; p < panels; p++)
        mg_plain_rows(MG_OPERANDS_BF16, m, k / 2, a, lda * 2, b + p * ldb, c + p * 2 * MG_LANES, ldc * 4, accumulate);
#endif
}
#endif

static void MG_KERNEL(product_u8i8)(int64_t m, int64_t k, int64_t panels, const uint8_t *a, int64_t lda,
                                    const int8_t *b, int64_t ldb, int32_t *c, int64_t ldc, bool accumulate) {
#if MG_HAS_AMX
    mg_tile_product(true, m, k / 4, panels, a, lda, b, ldb, c, ldc * 4, accumulate);
#else
    for (int64_t p = 0; p < panels; p++)
        mg_plain_rows(MG_OPERANDS_U8I8, m, k / 4, a, lda, b + p * ldb, c + p * 2 * MG_LANES, ldc * 4, accumulate);
#endif
}

static void MG_KERNEL(product_fixed)(int64_t m, int64_t k, const int16_t *from, int64_t lda, const float *a_scales,
                                     const int16_t *panel, const float *b_scales, float *c, int64_t ldc,
                                     bool accumulate) {
    const char *a = (const char *)from, *b = (const char *)panel;
    const int64_t steps = k / 2, row = lda * 2;
    for (int rows; m > 0; m -= rows, a += rows * row, a_scales += rows, c += rows * ldc)
        switch (rows = mg_tile_rows(m)) {
#if MG_LARGEST_TILE >= 12
        case 12:
            mg_fixed_tile(12, steps, a, row, a_scales, b, b_scales, c, ldc, accumulate);
            break;
#endif
#if MG_LARGEST_TILE >= 8
        case 8:
            mg_fixed_tile(8, steps, a, row, a_scales, b, b_scales, c, ldc, accumulate);
            break;
#endif
        case 6:
            mg_fixed_tile(6, steps, a, row, a_scales, b, b_scales, c, ldc, accumulate);
            break;
        case 4:
            mg_fixed_tile(4, steps, a, row, a_scales, b, b_scales, c, ldc, accumulate);
            break;
        case 2:
            mg_fixed_tile(2, steps, a, row, a_scales, b, b_scales, c, ldc, accumulate);
            break;
        default:
            mg_fixed_tile(1, steps, a, row, a_scales, b, b_scales, c, ldc, accumulate);
        }
}

/* Exact sums of (x + 128) y to float32 in place: (c - 128 sum of y) times the scales of row and column. */
static void MG_KERNEL(dequantise)(void *c, int64_t ldc, int64_t rows, int64_t columns, const float *row_scales,
                                  const float *column_scales, const int32_t *column_sums) {
    for (int64_t r = 0; r < rows; r++) {
        int32_t *sums = (int32_t *)c + r * ldc;
        for (int64_t at = 0; at < columns; at += MG_LANES) {
            const mg_vi exact = mg_load_bits(sums + at) - 128 * mg_load_bits(column_sums + at);
            const mg_vf y = __builtin_convertvector(exact, mg_vf) * (mg_load(column_scales + at) * row_scales[r]);
            memcpy(sums + at, &y, sizeof y);
        }
    }
}
#endif
