/* product_widened.h: products of bfloat16 where no instruction makes them: blocks of both operands become floats beside each
 * other in the first-level cache, where the product of floats finds them. A panel's block is widened once for all rows, and
 * a row's block once for a panel. Few rows are widened in registers instead, to the same bits. Reached through the table. */
#ifndef MG_PRODUCT_WIDENED_H
#define MG_PRODUCT_WIDENED_H
#include "panels.h"
#include "product.h"

#if !MG_HAS_AVX512BF16 && !MG_HAS_BF16
enum { MG_WIDENED = 128 /* elements of a row in a block; even */ };

static inline void mg_widen_row(float *out, const mg_bf16 *x, int64_t count) {
    int64_t at = 0;
    for (; at + MG_LANES <= count; at += MG_LANES)
        mg_store(out + at, mg_load_bf16(x + at));
    if (at < count)
        mg_store(out + at, mg_load_part_bf16(x + at, count - at));
}

static inline void mg_widened_product(int64_t m, int64_t k, const mg_bf16 *a, int64_t lda, const mg_bf16 *b, float *c,
                                      int64_t ldc, bool accumulate) {
    const int64_t panel = 2 * MG_LANES;
    float x[MG_LARGEST_TILE * MG_WIDENED], y[MG_WIDENED * 2 * MG_LANES];
    int64_t begin = 0;
#if !MG_HAS_NEON
    if (m <= MG_LARGEST_TILE) {
        mg_plain_rows(MG_OPERANDS_BF16, m, k / 2, a, lda * 2, b, c, ldc * 4, accumulate);
        return;
    }
#endif
    do {
        const int64_t count = k - begin < MG_WIDENED ? k - begin : MG_WIDENED;
        MG_KERNEL(widen_pairs)(y, b + begin * panel, count);
        for (int64_t row = 0; row < m; row += MG_LARGEST_TILE) {
            const int64_t rows = m - row < MG_LARGEST_TILE ? m - row : MG_LARGEST_TILE;
            for (int64_t i = 0; i < rows; i++)
                mg_widen_row(x + i * MG_WIDENED, a + (row + i) * lda + begin, count);
            MG_KERNEL(product_f32)(rows, count, x, MG_WIDENED, y, c + row * ldc, ldc, accumulate || begin);
        }
        begin += count;
    } while (begin < k);
}

static void MG_KERNEL(product_bf16)(int64_t m, int64_t k, int64_t panels, const mg_bf16 *a, int64_t lda,
                                    const mg_bf16 *b, int64_t ldb, float *c, int64_t ldc, bool accumulate) {
    for (int64_t p = 0; p < panels; p++)
        mg_widened_product(m, k, a, lda, b + p * ldb, c + p * 2 * MG_LANES, ldc, accumulate);
}
#endif
#endif
