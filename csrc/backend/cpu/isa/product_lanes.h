/* product_lanes.h: the inner loop of product.h on ARM, whose instructions take one operand from a lane of a register: a
 * register holds four steps of a row of A, so that a row is loaded once for four steps. Included by product.h.
 *
 *   float32            fmla by lane
 *   bfloat16           bfmmla; where it is missing product_widened.h makes floats of them
 *   16-bit integers    smlal by lane, of columns whose pairs have been taken apart
 *   bytes              usmmla; sdot by lane; or widened to 16 bits, and smlal
 *
 * bfmmla and usmmla multiply squares: two rows by two columns, eight bytes of each. Sums are in squares while steps are
 * added. What is the same for all rows is done once for a tile. */
#ifndef MG_PRODUCT_LANES_H
#define MG_PRODUCT_LANES_H
#include "vector.h"

#ifndef MG_HAS_DOTPROD
#define MG_HAS_DOTPROD 0
#endif
#ifndef MG_HAS_BF16
#define MG_HAS_BF16 0
#endif
#ifndef MG_HAS_I8MM
#define MG_HAS_I8MM 0
#endif

enum { MG_LANE_STEPS = 4, MG_PANEL_BYTES = 8 * MG_LANES };

/* f(sum, y, x, lane) with a lane that the compiler must see as a number; `lane` is a constant once loops are unrolled. */
#define MG_BY_LANE(f, sum, y, x, lane)                                                                                 \
    ((lane) == 0 ? f(sum, y, x, 0) : (lane) == 1 ? f(sum, y, x, 1) : (lane) == 2 ? f(sum, y, x, 2) : f(sum, y, x, 3))

MG_ALWAYS_INLINE mg_vi mg_lane_f32(mg_vi sum, mg_vi y, mg_vi x, int lane) {
    return (mg_vi)MG_BY_LANE(vfmaq_laneq_f32, (float32x4_t)sum, (float32x4_t)y, (float32x4_t)x, lane);
}

/* Four columns, of which `y` has 16 bits each, times one 16-bit number of the eight in x. */
MG_ALWAYS_INLINE mg_vi mg_lane_i16(mg_vi sum, int16x4_t y, mg_vi x, int number) {
    const int32x4_t s = (int32x4_t)sum;
    const int16x8_t numbers = (int16x8_t)x;
    switch (number) {
    case 0:
        return (mg_vi)vmlal_laneq_s16(s, y, numbers, 0);
    case 1:
        return (mg_vi)vmlal_laneq_s16(s, y, numbers, 1);
    case 2:
        return (mg_vi)vmlal_laneq_s16(s, y, numbers, 2);
    case 3:
        return (mg_vi)vmlal_laneq_s16(s, y, numbers, 3);
    case 4:
        return (mg_vi)vmlal_laneq_s16(s, y, numbers, 4);
    case 5:
        return (mg_vi)vmlal_laneq_s16(s, y, numbers, 5);
    case 6:
        return (mg_vi)vmlal_laneq_s16(s, y, numbers, 6);
    default:
        return (mg_vi)vmlal_laneq_s16(s, y, numbers, 7);
    }
}

/* ---- four steps, for each kind of operands; a: the first row, b: the panel ---- */

MG_ALWAYS_INLINE void mg_steps_f32(int rows, mg_vi *left, mg_vi *right, const char *a, int64_t lda, const char *b) {
    mg_vi x[MG_LARGEST_TILE];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
        x[i] = mg_load_bits(a + i * lda);
#pragma GCC unroll 4
    for (int step = 0; step < MG_LANE_STEPS; step++) {
        const mg_vi b0 = mg_load_bits(b + step * MG_PANEL_BYTES), b1 = mg_load_bits(b + step * MG_PANEL_BYTES + 16);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            left[i] = mg_lane_f32(left[i], b0, x[i], step);
            right[i] = mg_lane_f32(right[i], b1, x[i], step);
        }
    }
}

MG_ALWAYS_INLINE void mg_steps_i16(int rows, mg_vi *left, mg_vi *right, const char *a, int64_t lda, const char *b) {
    mg_vi x[MG_LARGEST_TILE];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
        x[i] = mg_load_bits(a + i * lda);
#pragma GCC unroll 4
    for (int step = 0; step < MG_LANE_STEPS; step++) {
        const int16x8_t b0 = (int16x8_t)mg_load_bits(b + step * MG_PANEL_BYTES);
        const int16x8_t b1 = (int16x8_t)mg_load_bits(b + step * MG_PANEL_BYTES + 16);
        const int16x8_t first = vuzp1q_s16(b0, b1), second = vuzp2q_s16(b0, b1); /* of the pairs of eight columns */
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            left[i] = mg_lane_i16(left[i], vget_low_s16(first), x[i], 2 * step);
            right[i] = mg_lane_i16(right[i], vget_high_s16(first), x[i], 2 * step);
            left[i] = mg_lane_i16(left[i], vget_low_s16(second), x[i], 2 * step + 1);
            right[i] = mg_lane_i16(right[i], vget_high_s16(second), x[i], 2 * step + 1);
        }
    }
}

/* Two steps at a time, as a register holds eight bytes of a row in 16 bits each. */
MG_ALWAYS_INLINE void mg_steps_widened_u8i8(int rows, mg_vi *left, mg_vi *right, const char *a, int64_t lda,
                                            const char *b) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        mg_vi x[MG_LARGEST_TILE];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
            x[i] = (mg_vi)vmovl_u8(vld1_u8((const uint8_t *)a + i * lda + 8 * half));
#pragma GCC unroll 2
        for (int step = 0; step < 2; step++) {
            const char *row = b + (2 * half + step) * MG_PANEL_BYTES;
            /* Bytes 0 and 2, and bytes 1 and 3, of eight columns. */
            const int8x16_t b0 = (int8x16_t)mg_load_bits(row), b1 = (int8x16_t)mg_load_bits(row + 16);
            const int8x16_t even = vuzp1q_s8(b0, b1), odd = vuzp2q_s8(b0, b1);
            const int8x16_t y02 = vuzp1q_s8(even, even), y13 = vuzp1q_s8(odd, odd);
            const int8x16_t y20 = vuzp2q_s8(even, even), y31 = vuzp2q_s8(odd, odd);
            const int16x8_t y[4] = {vmovl_s8(vget_low_s8(y02)), vmovl_s8(vget_low_s8(y13)), vmovl_s8(vget_low_s8(y20)),
                                    vmovl_s8(vget_low_s8(y31))};
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
                for (int byte = 0; byte < 4; byte++) {
                    left[i] = mg_lane_i16(left[i], vget_low_s16(y[byte]), x[i], 4 * step + byte);
                    right[i] = mg_lane_i16(right[i], vget_high_s16(y[byte]), x[i], 4 * step + byte);
                }
        }
    }
}

#if MG_HAS_DOTPROD
/* sdot has no unsigned operand: it multiplies x - 128, and column_sums[2] are of the columns, of which 128 are added in the
 * end. */
MG_ALWAYS_INLINE void mg_steps_dot_u8i8(int rows, mg_vi *left, mg_vi *right, const char *a, int64_t lda, const char *b,
                                        mg_vi *column_sums) {
    int8x16_t x[MG_LARGEST_TILE];
    const int8x16_t ones = vdupq_n_s8(1);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
        x[i] = (int8x16_t)(mg_load_bits(a + i * lda) ^ (int32_t)0x80808080);
#pragma GCC unroll 4
    for (int step = 0; step < MG_LANE_STEPS; step++) {
        const int8x16_t b0 = (int8x16_t)mg_load_bits(b + step * MG_PANEL_BYTES);
        const int8x16_t b1 = (int8x16_t)mg_load_bits(b + step * MG_PANEL_BYTES + 16);
        column_sums[0] = (mg_vi)vdotq_s32((int32x4_t)column_sums[0], b0, ones);
        column_sums[1] = (mg_vi)vdotq_s32((int32x4_t)column_sums[1], b1, ones);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            left[i] = (mg_vi)MG_BY_LANE(vdotq_laneq_s32, (int32x4_t)left[i], b0, x[i], step);
            right[i] = (mg_vi)MG_BY_LANE(vdotq_laneq_s32, (int32x4_t)right[i], b1, x[i], step);
        }
    }
}
#endif

/* ---- squares: sums of two rows by two columns in a register ---- */
#if MG_HAS_BF16 || MG_HAS_I8MM
enum { MG_SQUARE_ROWS = (MG_LARGEST_TILE + 1) / 2, MG_SQUARE_COLUMNS = MG_LANES };

static inline mg_vi mg_lower_halves(mg_vi a, mg_vi b) { return (mg_vi)vzip1q_s64((int64x2_t)a, (int64x2_t)b); }
static inline mg_vi mg_upper_halves(mg_vi a, mg_vi b) { return (mg_vi)vzip2q_s64((int64x2_t)a, (int64x2_t)b); }

MG_ALWAYS_INLINE mg_vi mg_square(enum mg_operands operands, mg_vi sums, mg_vi x, mg_vi y) {
#if MG_HAS_I8MM
    if (operands == MG_OPERANDS_U8I8)
        return (mg_vi)vusmmlaq_s32((int32x4_t)sums, (uint8x16_t)x, (int8x16_t)y);
#endif
    (void)operands;
    return (mg_vi)vbfmmlaq_f32((float32x4_t)sums, (bfloat16x8_t)x, (bfloat16x8_t)y);
}

/* From rows to squares, and back: the same exchange of halves. An odd last row has zeros beside it. */
MG_ALWAYS_INLINE void mg_to_squares(int rows, mg_vi squares[][MG_SQUARE_COLUMNS], const mg_vi *left,
                                    const mg_vi *right) {
#pragma GCC unroll 4
    for (int i = 0; i < rows; i += 2) {
        const mg_vi none = {0}, left1 = i + 1 < rows ? left[i + 1] : none, right1 = i + 1 < rows ? right[i + 1] : none;
        squares[i / 2][0] = mg_lower_halves(left[i], left1);
        squares[i / 2][1] = mg_upper_halves(left[i], left1);
        squares[i / 2][2] = mg_lower_halves(right[i], right1);
        squares[i / 2][3] = mg_upper_halves(right[i], right1);
    }
}

MG_ALWAYS_INLINE void mg_from_squares(int rows, mg_vi squares[][MG_SQUARE_COLUMNS], mg_vi *left, mg_vi *right) {
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        const mg_vi *row = squares[i / 2];
        left[i] = i % 2 ? mg_upper_halves(row[0], row[1]) : mg_lower_halves(row[0], row[1]);
        right[i] = i % 2 ? mg_upper_halves(row[2], row[3]) : mg_lower_halves(row[2], row[3]);
    }
}

MG_ALWAYS_INLINE void mg_steps_squares(enum mg_operands operands, int rows, mg_vi squares[][MG_SQUARE_COLUMNS],
                                       const char *a, int64_t lda, const char *b) {
    mg_vi x[MG_SQUARE_ROWS][2]; /* two rows' first two steps, and their others */
#pragma GCC unroll 4
    for (int i = 0; i < rows; i += 2) {
        const mg_vi x0 = mg_load_bits(a + i * lda), x1 = i + 1 < rows ? mg_load_bits(a + (i + 1) * lda) : (mg_vi){0};
        x[i / 2][0] = mg_lower_halves(x0, x1);
        x[i / 2][1] = mg_upper_halves(x0, x1);
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            const char *row = b + 2 * half * MG_PANEL_BYTES + 16 * j;
            const int32x4_t y0 = (int32x4_t)mg_load_bits(row), y1 = (int32x4_t)mg_load_bits(row + MG_PANEL_BYTES);
            const mg_vi first = (mg_vi)vzip1q_s32(y0, y1), second = (mg_vi)vzip2q_s32(y0, y1);
#pragma GCC unroll 4
            for (int i = 0; i < (rows + 1) / 2; i++) {
                squares[i][2 * j] = mg_square(operands, squares[i][2 * j], x[i][half], first);
                squares[i][2 * j + 1] = mg_square(operands, squares[i][2 * j + 1], x[i][half], second);
            }
        }
}
#endif

/* ---- any number of steps ---- */

/* What a tile adds up beside its rows: squares in place of them, or sums of columns. */
struct mg_lane_sums {
#if MG_HAS_BF16 || MG_HAS_I8MM
    mg_vi squares[MG_SQUARE_ROWS][MG_SQUARE_COLUMNS];
#endif
    mg_vi column_sums[2];
};

MG_ALWAYS_INLINE bool mg_in_squares(enum mg_operands operands) {
    return (MG_HAS_BF16 && operands == MG_OPERANDS_BF16) || (MG_HAS_I8MM && operands == MG_OPERANDS_U8I8);
}

MG_ALWAYS_INLINE void mg_add_four_steps(enum mg_operands operands, int rows, mg_vi *left, mg_vi *right,
                                        struct mg_lane_sums *sums, const char *a, int64_t lda, const char *b) {
#if MG_HAS_BF16 || MG_HAS_I8MM
    if (mg_in_squares(operands)) {
        mg_steps_squares(operands, rows, sums->squares, a, lda, b);
        return;
    }
#endif
    (void)sums;
    switch (operands) {
    case MG_OPERANDS_F32:
        mg_steps_f32(rows, left, right, a, lda, b);
        break;
    case MG_OPERANDS_I16:
        mg_steps_i16(rows, left, right, a, lda, b);
        break;
    default:
#if MG_HAS_DOTPROD
        mg_steps_dot_u8i8(rows, left, right, a, lda, b, sums->column_sums);
#else
        mg_steps_widened_u8i8(rows, left, right, a, lda, b);
#endif
    }
}

/* The steps that do not fill a register are copied beside zeros, which add nothing. */
MG_ALWAYS_INLINE void mg_add_steps(enum mg_operands operands, int rows, mg_vi *left, mg_vi *right, int64_t steps,
                                   const char *a, int64_t lda, const char *b) {
    struct mg_lane_sums sums = {.column_sums = {{0}}};
    int64_t p = 0;
#if MG_HAS_BF16 || MG_HAS_I8MM
    if (mg_in_squares(operands))
        mg_to_squares(rows, sums.squares, left, right);
#endif
    for (; p + MG_LANE_STEPS <= steps; p += MG_LANE_STEPS)
        mg_add_four_steps(operands, rows, left, right, &sums, a + 4 * p, lda, b + p * MG_PANEL_BYTES);
    if (p < steps) {
        char x[MG_LARGEST_TILE][4 * MG_LANE_STEPS] = {{0}}, y[MG_LANE_STEPS * MG_PANEL_BYTES] = {0};
        for (int i = 0; i < rows; i++)
            memcpy(x[i], a + i * lda + 4 * p, (size_t)(4 * (steps - p)));
        memcpy(y, b + p * MG_PANEL_BYTES, (size_t)((steps - p) * MG_PANEL_BYTES));
        mg_add_four_steps(operands, rows, left, right, &sums, x[0], sizeof x[0], y);
    }
#if MG_HAS_BF16 || MG_HAS_I8MM
    if (mg_in_squares(operands))
        mg_from_squares(rows, sums.squares, left, right);
#endif
    if (MG_HAS_DOTPROD && operands == MG_OPERANDS_U8I8 && !mg_in_squares(operands))
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            left[i] += 128 * sums.column_sums[0];
            right[i] += 128 * sums.column_sums[1];
        }
}
#endif
