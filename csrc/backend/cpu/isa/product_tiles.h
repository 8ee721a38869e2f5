/* product_tiles.h: products of bfloat16 and of bytes by AMX, whose eight tile registers hold 16 rows of 64 bytes each and
 * whose instructions multiply whole tiles. Reached through the table.
 *
 * The layouts are those of product.h: a tile of A is 16 rows of 16 steps where they lie, a panel is two tiles of B side by
 * side. A block is up to 32 rows by the panel's 32 columns:
 *
 *                 B 6   B 7
 *           A 4   C 0   C 1      rows 0 .. 15
 *           A 5   C 2   C 3      rows 16 .. 31
 *
 * Fewer rows, and the steps after the last 16, are tiles of a lesser shape. An element of C is a chain of additions, one for
 * each 16 steps, in their order, whatever the block: results do not depend on how rows are grouped. Those of bfloat16 differ
 * from avx512bf16's in the last bits: 16 steps are two chains, of even and of odd elements, which are added to C in the end.
 *
 * Shapes belong to the thread, and other libraries in it have theirs: a product sets its own and releases the tiles, so that
 * neither a context switch nor a signal saves 8 KiB for nothing. A test may define the MG_TILE_... macros beforehand, to do
 * the instructions in software (tests/tile_products.c). */
#ifndef MG_PRODUCT_TILES_H
#define MG_PRODUCT_TILES_H
#include <stdbool.h>
#include <stdint.h>

enum { MG_TILE_ROWS = 16, MG_TILE_STEPS = 16, MG_TILE_PANEL = 128 /* bytes of a step of a panel */ };

/* The memory operand of LDTILECFG. */
struct mg_tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

#ifndef MG_TILE_LOAD
#include <immintrin.h>
/* gcc's own names (12) hide from the compiler what the instructions read: it forgot most of this operand. Here everything that
 * was written before must lie in memory, for the loads that follow as well. */
#define MG_TILE_SHAPE(shapes) __asm__ volatile("ldtilecfg %0" : : "m"(*(shapes)) : "memory")
#define MG_TILE_RELEASE() _tile_release()
#define MG_TILE_ZERO(tile) _tile_zero(tile)
#define MG_TILE_LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define MG_TILE_STORE(tile, to, stride) _tile_stored(tile, to, stride)
#define MG_TILE_ADD_BF16(c, a, b) _tile_dpbf16ps(c, a, b)
#define MG_TILE_ADD_U8I8(c, a, b) _tile_dpbusd(c, a, b)
#endif

/* Which tiles there are, of what shape, for a block of `rows` rows (1 .. 32) and `steps` steps (1 .. 16). */
static inline void mg_shape_tiles(int64_t rows, int64_t steps) {
    const int upper = (int)(rows < MG_TILE_ROWS ? rows : MG_TILE_ROWS), lower = (int)rows - upper;
    const int heights[8] = {upper, upper, lower, lower, upper, lower, (int)steps, (int)steps};
    struct mg_tile_shapes shapes = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        const int width = tile == 4 || tile == 5 ? 4 * (int)steps : 64;
        shapes.rows[tile] = (uint8_t)heights[tile];
        shapes.row_bytes[tile] = (uint16_t)(heights[tile] ? width : 0);
    }
    MG_TILE_SHAPE(&shapes);
}

/* A block of the shape that is set; `bytes`: of operands, else bfloat16; `both`: more than 16 rows. These are constants. */
static inline __attribute__((always_inline)) void mg_tile_block(bool bytes, bool both, int64_t blocks, const char *a,
                                                                int64_t lda, const char *b, char *c, int64_t ldc,
                                                                bool accumulate) {
    char *below = c + MG_TILE_ROWS * ldc;
    if (accumulate) {
        MG_TILE_LOAD(0, c, ldc);
        MG_TILE_LOAD(1, c + 64, ldc);
    } else {
        MG_TILE_ZERO(0);
        MG_TILE_ZERO(1);
    }
    if (both && accumulate) {
        MG_TILE_LOAD(2, below, ldc);
        MG_TILE_LOAD(3, below + 64, ldc);
    } else if (both) {
        MG_TILE_ZERO(2);
        MG_TILE_ZERO(3);
    }
    for (int64_t i = 0; i < blocks; i++, a += 4 * MG_TILE_STEPS, b += MG_TILE_STEPS * MG_TILE_PANEL) {
        MG_TILE_LOAD(6, b, MG_TILE_PANEL);
        MG_TILE_LOAD(4, a, lda);
        MG_TILE_LOAD(7, b + 64, MG_TILE_PANEL);
        if (both)
            MG_TILE_LOAD(5, a + MG_TILE_ROWS * lda, lda);
        if (bytes) {
            MG_TILE_ADD_U8I8(0, 4, 6);
            MG_TILE_ADD_U8I8(1, 4, 7);
        } else {
            MG_TILE_ADD_BF16(0, 4, 6);
            MG_TILE_ADD_BF16(1, 4, 7);
        }
        if (both && bytes) {
            MG_TILE_ADD_U8I8(2, 5, 6);
            MG_TILE_ADD_U8I8(3, 5, 7);
        } else if (both) {
            MG_TILE_ADD_BF16(2, 5, 6);
            MG_TILE_ADD_BF16(3, 5, 7);
        }
    }
    MG_TILE_STORE(0, c, ldc);
    MG_TILE_STORE(1, c + 64, ldc);
    if (both) {
        MG_TILE_STORE(2, below, ldc);
        MG_TILE_STORE(3, below + 64, ldc);
    }
}

/* All rows of all panels, and `blocks` times as many steps as a tile then has. */
static inline __attribute__((always_inline)) void mg_tile_blocks(bool bytes, int64_t m, int64_t blocks, int64_t steps,
                                                                 int64_t panels, const char *a, int64_t lda,
                                                                 const char *b, int64_t ldb, char *c, int64_t ldc,
                                                                 bool accumulate) {
    const int64_t whole = m / (2 * MG_TILE_ROWS) * (2 * MG_TILE_ROWS), rest = m - whole;
    if (whole > 0)
        mg_shape_tiles(2 * MG_TILE_ROWS, steps);
    for (int64_t p = 0; p < panels; p++)
        for (int64_t i = 0; i < whole; i += 2 * MG_TILE_ROWS)
            mg_tile_block(bytes, true, blocks, a + i * lda, lda, b + p * ldb, c + i * ldc + p * MG_TILE_PANEL, ldc,
                          accumulate);
    if (rest > 0)
        mg_shape_tiles(rest, steps);
    for (int64_t p = 0; p < panels && rest > 0; p++) {
        const char *rows = a + whole * lda, *panel = b + p * ldb;
        char *sums = c + whole * ldc + p * MG_TILE_PANEL;
        if (rest > MG_TILE_ROWS)
            mg_tile_block(bytes, true, blocks, rows, lda, panel, sums, ldc, accumulate);
        else
            mg_tile_block(bytes, false, blocks, rows, lda, panel, sums, ldc, accumulate);
    }
}

/* Leading dimensions are in bytes; ldb: from one panel to the next, whose sums lie side by side. */
static inline __attribute__((always_inline)) void mg_tile_product(bool bytes, int64_t m, int64_t steps, int64_t panels,
                                                                  const void *from, int64_t lda, const void *panel,
                                                                  int64_t ldb, void *to, int64_t ldc, bool accumulate) {
    const int64_t blocks = steps / MG_TILE_STEPS, whole = blocks * MG_TILE_STEPS;
    if (blocks > 0 || steps == 0)
        mg_tile_blocks(bytes, m, blocks, MG_TILE_STEPS, panels, from, lda, panel, ldb, to, ldc, accumulate);
    if (steps > whole)
        mg_tile_blocks(bytes, m, 1, steps - whole, panels, (const char *)from + 4 * whole, lda,
                       (const char *)panel + whole * MG_TILE_PANEL, ldb, to, ldc, accumulate || whole > 0);
    MG_TILE_RELEASE();
}
#endif
