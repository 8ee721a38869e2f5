/* pixel_tiles.h: products over pairs of pixels by AMX. A tile of A has channels in its rows, whose pairs of pixels lie side by
 * side; so 16 pairs of 16 channels are transposed in registers. Included by gradient.h.
 *
 * 16 pairs are one addition to an element of C: calls that cut pixels elsewhere than after whole tiles get other bits. */
#ifndef MG_PIXEL_TILES_H
#define MG_PIXEL_TILES_H
#include "product_tiles.h"
#include "vector.h"

enum { MG_PIXEL_TILE_ROWS = 96, MG_PIXEL_TILE_STEPS = 64 /* of A, transposed in the first-level cache */ };

/* out[channel][pair] of 16 channels and 16 pairs, rows MG_PIXEL_TILE_STEPS apart, from a[pair][channel]; of these `channels` and
 * `pairs` are there, the others become zeros. */
static inline void mg_transpose_pairs(uint32_t *out, const void *const *a, int64_t offset, int64_t channels,
                                      int64_t pairs) {
    const __mmask16 there = channels < 16 ? (__mmask16)((1 << channels) - 1) : (__mmask16)0xffff;
    __m512i x[16], y[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        x[i] = i < pairs ? _mm512_maskz_loadu_epi32(there, (const uint32_t *)a[i] + offset) : _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    /* x[i + j]: in each quarter q of the register channel 4 q + j of four pairs, from i on. */
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    enum { EVEN = 0x88, ODD = 0xdd }; /* quarters of both operands */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const __m512i even0 = _mm512_shuffle_i32x4(x[j], x[4 + j], EVEN),
                      odd0 = _mm512_shuffle_i32x4(x[j], x[4 + j], ODD);
        const __m512i even1 = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], EVEN);
        const __m512i odd1 = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], ODD);
        _mm512_storeu_si512(out + j * MG_PIXEL_TILE_STEPS, _mm512_shuffle_i32x4(even0, even1, EVEN));
        _mm512_storeu_si512(out + (4 + j) * MG_PIXEL_TILE_STEPS, _mm512_shuffle_i32x4(odd0, odd1, EVEN));
        _mm512_storeu_si512(out + (8 + j) * MG_PIXEL_TILE_STEPS, _mm512_shuffle_i32x4(even0, even1, ODD));
        _mm512_storeu_si512(out + (12 + j) * MG_PIXEL_TILE_STEPS, _mm512_shuffle_i32x4(odd0, odd1, ODD));
    }
}

/* At most MG_PIXEL_TILE_ROWS channels and MG_PIXEL_TILE_STEPS pairs. */
static inline void mg_add_pixels(int64_t m, int64_t k, const void *const *a, int64_t offset, const char *b, float *c) {
    uint32_t rows[MG_PIXEL_TILE_ROWS * MG_PIXEL_TILE_STEPS] __attribute__((aligned(64)));
    for (int64_t i = 0; i < m; i += 16)
        for (int64_t p = 0; p < k; p += 16)
            mg_transpose_pairs(rows + i * MG_PIXEL_TILE_STEPS + p, a + p, offset + i, m - i, k - p);
    mg_tile_product(false, m, k, 1, rows, sizeof *rows * MG_PIXEL_TILE_STEPS, b, 0, c, MG_TILE_PANEL, true);
}

static void MG_KERNEL(product_pixels_half)(int64_t m, int64_t k, const void *const *a, int64_t offset, const void *b,
                                           float *c) {
    for (int64_t p = 0; p < k; p += MG_PIXEL_TILE_STEPS)
        for (int64_t i = 0; i < m; i += MG_PIXEL_TILE_ROWS)
            mg_add_pixels(m - i < MG_PIXEL_TILE_ROWS ? m - i : MG_PIXEL_TILE_ROWS,
                          k - p < MG_PIXEL_TILE_STEPS ? k - p : MG_PIXEL_TILE_STEPS, a + p, offset + i,
                          (const char *)b + p * MG_TILE_PANEL, c + i * 2 * MG_LANES);
}
#endif
