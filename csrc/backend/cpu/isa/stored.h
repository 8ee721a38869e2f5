/* stored.h: products of few rows with a weight as it is stored, where packing it into panels would cost more than the
 * product: what is read of it is met by all rows. Reached through the table by ops/linear.c and ops/linear_gradient.c.
 *
 * Every element of C is the same chain of additions whatever the tile: results do not depend on how rows and columns are
 * grouped. */
#ifndef MG_STORED_H
#define MG_STORED_H
#include "vector.h"

/* A tile has four columns, or vectors of columns, and as many rows as the registers can hold sums of. */
enum { MG_STORED_COLUMNS = 4, MG_STORED_ROWS = MG_VECTOR_REGISTERS >= 32 ? 4 : 2 };

static inline int mg_stored_rows(int64_t left) { return left >= MG_STORED_ROWS ? MG_STORED_ROWS : left >= 2 ? 2 : 1; }

/* Halves are added until one lane is left. */
static inline float mg_lane_sum(mg_vf v) {
    float lane[MG_LANES];
    mg_store(lane, v);
    for (int half = MG_LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

/* ---- C[m x n] = A[m x k] W[n x k]^T: each element a vector of sums over the channels ---- */

MG_ALWAYS_INLINE void mg_dot_tile(int rows, int columns, int64_t k, const float *a, const float *w, float *c,
                                  int64_t ldc) {
    mg_vf sum[MG_STORED_ROWS][MG_STORED_COLUMNS] = {{{0}}};
    int64_t p = 0;
    for (; p + MG_LANES <= k; p += MG_LANES)
#pragma GCC unroll 4
        for (int j = 0; j < columns; j++) {
            const mg_vf y = mg_load(w + j * k + p);
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++)
                sum[i][j] += mg_load(a + i * k + p) * y;
        }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < columns; j++) {
            if (p < k)
                sum[i][j] += mg_load_part(a + i * k + p, k - p) * mg_load_part(w + j * k + p, k - p);
            c[i * ldc + j] = mg_lane_sum(sum[i][j]);
        }
}

MG_ALWAYS_INLINE void mg_dot_columns(int columns, int64_t m, int64_t k, const float *a, const float *w, float *c,
                                     int64_t ldc) {
    for (int rows; m > 0; m -= rows, a += rows * k, c += rows * ldc)
        switch (rows = mg_stored_rows(m)) {
#if MG_VECTOR_REGISTERS >= 32
        case 4:
            mg_dot_tile(4, columns, k, a, w, c, ldc);
            break;
#endif
        case 2:
            mg_dot_tile(2, columns, k, a, w, c, ldc);
            break;
        default:
            mg_dot_tile(1, columns, k, a, w, c, ldc);
        }
}

static void MG_KERNEL(dot_rows)(int64_t m, int64_t n, int64_t k, const float *a, const float *w, float *c,
                                int64_t ldc) {
    int64_t j = 0;
    for (; j + MG_STORED_COLUMNS <= n; j += MG_STORED_COLUMNS)
        mg_dot_columns(MG_STORED_COLUMNS, m, k, a, w + j * k, c + j, ldc);
    for (; j < n; j++)
        mg_dot_columns(1, m, k, a, w + j * k, c + j, ldc);
}

/* ---- C[m x n] (+)= A[m x k] B[k x n]: rows of B, each times a number, added up in vectors of columns ---- */

/* `count`: columns of the last vector. */
MG_ALWAYS_INLINE void mg_sum_tile(int rows, int vectors, int64_t count, int64_t k, const float *a, const float *b,
                                  int64_t ldb, float *c, int64_t ldc, bool accumulate) {
    mg_vf sum[MG_STORED_ROWS][MG_STORED_COLUMNS] = {{{0}}};
    if (accumulate)
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                sum[i][j] = mg_load_part(c + i * ldc + j * MG_LANES, j == vectors - 1 ? count : MG_LANES);
    for (int64_t p = 0; p < k; p++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            const mg_vf y = mg_load_part(b + p * ldb + j * MG_LANES, j == vectors - 1 ? count : MG_LANES);
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++)
                sum[i][j] += mg_splat(a[i * k + p]) * y;
        }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            mg_store_part(c + i * ldc + j * MG_LANES, sum[i][j], j == vectors - 1 ? count : MG_LANES);
}

MG_ALWAYS_INLINE void mg_sum_columns(int vectors, int64_t count, int64_t m, int64_t k, const float *a, const float *b,
                                     int64_t ldb, float *c, int64_t ldc, bool accumulate) {
    for (int rows; m > 0; m -= rows, a += rows * k, c += rows * ldc)
        switch (rows = mg_stored_rows(m)) {
#if MG_VECTOR_REGISTERS >= 32
        case 4:
            mg_sum_tile(4, vectors, count, k, a, b, ldb, c, ldc, accumulate);
            break;
#endif
        case 2:
            mg_sum_tile(2, vectors, count, k, a, b, ldb, c, ldc, accumulate);
            break;
        default:
            mg_sum_tile(1, vectors, count, k, a, b, ldb, c, ldc, accumulate);
        }
}

static void MG_KERNEL(sum_rows)(int64_t m, int64_t n, int64_t k, const float *a, const float *b, int64_t ldb, float *c,
                                int64_t ldc, bool accumulate) {
    const int64_t wide = MG_STORED_COLUMNS * MG_LANES;
    int64_t j = 0;
    for (; j + wide <= n; j += wide)
        mg_sum_columns(MG_STORED_COLUMNS, MG_LANES, m, k, a, b + j, ldb, c + j, ldc, accumulate);
    for (; j < n; j += MG_LANES)
        mg_sum_columns(1, mg_lanes_left(n, j), m, k, a, b + j, ldb, c + j, ldc, accumulate);
}
#endif
