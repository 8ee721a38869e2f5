/* tile_products.c: a product of csrc/backend/cpu/isa/product_tiles.h from the standard input to the standard output
 * (tests/test_tile_products.py):
 *
 *     tile_products KIND ROWS STEPS ACCUMULATE < A, B and C
 *
 * KIND: bytes or bfloat16. With -DIN_SOFTWARE the instructions are plain loops, after the pseudocode of Intel's manual (volume
 * 2, TDPBF16PS, TDPBUSD, LDTILECFG), which end the program where the processor would refuse. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef IN_SOFTWARE
static struct {
    int rows, row_bytes;
    union {
        uint8_t bytes[64];
        int32_t sums[16];
        float floats[16];
        uint16_t halves[32];
    } row[16];
} tiles[8];
static int shaped;

static void require(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "the processor refuses: %s\n", what);
        exit(1);
    }
}

static void shape(const void *memory) {
    const uint8_t *at = memory;
    memset(tiles, 0, sizeof tiles);
    require(at[0] == 1 && at[1] == 0, "the palette");
    for (int i = 2; i < 16; i++)
        require(at[i] == 0, "a reserved byte");
    for (int i = 0; i < 16; i++) {
        uint16_t row_bytes;
        memcpy(&row_bytes, at + 16 + 2 * i, sizeof row_bytes);
        const int rows = at[48 + i];
        require(rows <= 16 && row_bytes <= 64 && row_bytes % 4 == 0 && (rows > 0) == (row_bytes > 0), "a shape");
        require(i < 8 || rows == 0, "a ninth tile");
        if (i < 8) {
            tiles[i].rows = rows;
            tiles[i].row_bytes = row_bytes;
        }
    }
    shaped = 1;
}

static void need(int tile) { require(shaped && tiles[tile].rows > 0, "a tile without a shape"); }

static void zero(int tile) {
    need(tile);
    memset(tiles[tile].row, 0, sizeof tiles[tile].row);
}

static void load(int tile, const void *from, int64_t stride) {
    zero(tile);
    for (int i = 0; i < tiles[tile].rows; i++)
        memcpy(tiles[tile].row[i].bytes, (const char *)from + i * stride, (size_t)tiles[tile].row_bytes);
}

static void store(int tile, void *to, int64_t stride) {
    need(tile);
    for (int i = 0; i < tiles[tile].rows; i++)
        memcpy((char *)to + i * stride, tiles[tile].row[i].bytes, (size_t)tiles[tile].row_bytes);
}

static void need_fitting(int c, int a, int b) {
    need(c);
    need(a);
    need(b);
    require(tiles[c].rows == tiles[a].rows && tiles[c].row_bytes == tiles[b].row_bytes &&
                tiles[a].row_bytes == 4 * tiles[b].rows,
            "shapes that do not fit");
}

/* Denormals are zero, read or written. */
static float flushed(float x) { return fpclassify(x) == FP_SUBNORMAL ? copysignf(0.0f, x) : x; }

static float widened(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return flushed(x);
}

static void add_bf16(int c, int a, int b) {
    need_fitting(c, a, b);
    for (int m = 0; m < tiles[c].rows; m++)
        for (int n = 0; n < tiles[c].row_bytes / 4; n++) {
            float sums[2] = {0};
            for (int k = 0; k < tiles[b].rows; k++)
                for (int i = 0; i < 2; i++)
                    sums[i] = flushed(fmaf(widened(tiles[a].row[m].halves[2 * k + i]),
                                           widened(tiles[b].row[k].halves[2 * n + i]), sums[i]));
            float *sum = &tiles[c].row[m].floats[n];
            *sum = flushed(flushed(*sum) + flushed(sums[0] + sums[1]));
        }
}

static void add_u8i8(int c, int a, int b) {
    need_fitting(c, a, b);
    for (int m = 0; m < tiles[c].rows; m++)
        for (int n = 0; n < tiles[c].row_bytes / 4; n++)
            for (int k = 0; k < tiles[b].rows; k++)
                for (int i = 0; i < 4; i++)
                    tiles[c].row[m].sums[n] +=
                        tiles[a].row[m].bytes[4 * k + i] * (int8_t)tiles[b].row[k].bytes[4 * n + i];
}

#define MG_TILE_SHAPE(shapes) shape(shapes)
#define MG_TILE_RELEASE() (shaped = 0)
#define MG_TILE_ZERO(tile) zero(tile)
#define MG_TILE_LOAD(tile, from, stride) load(tile, from, stride)
#define MG_TILE_STORE(tile, to, stride) store(tile, to, stride)
#define MG_TILE_ADD_BF16(c, a, b) add_bf16(c, a, b)
#define MG_TILE_ADD_U8I8(c, a, b) add_u8i8(c, a, b)
#else
#include <sys/syscall.h>
#include <unistd.h>
#endif
#include "../csrc/backend/cpu/isa/product_tiles.h"

/* So many bytes of the standard input, in memory of just that size, for valgrind's sake. */
static char *read_bytes(int64_t count) {
    char *memory = malloc((size_t)count + !count);
    if (!memory || fread(memory, 1, (size_t)count, stdin) != (size_t)count) {
        fprintf(stderr, "the input ends early\n");
        exit(1);
    }
    return memory;
}

int main(int count, char **words) {
    if (count != 5)
        return 2;
    const int64_t rows = atoll(words[2]), steps = atoll(words[3]), row = 4 * MG_TILE_STEPS * 2;
    char *a = read_bytes(rows * steps * 4), *b = read_bytes(steps * MG_TILE_PANEL), *c = read_bytes(rows * row);
#ifndef IN_SOFTWARE
    if (syscall(SYS_arch_prctl, 0x1023, 18))
        return 3;
#endif
    if (strcmp(words[1], "bytes"))
        mg_tile_product(false, rows, steps, 1, a, steps * 4, b, 0, c, row, atoi(words[4]));
    else
        mg_tile_product(true, rows, steps, 1, a, steps * 4, b, 0, c, row, atoi(words[4]));
#ifdef IN_SOFTWARE
    require(!shaped, "tiles that are never released");
#endif
    fwrite(c, 1, (size_t)(rows * row), stdout);
    free(a);
    free(b);
    free(c);
    return 0;
}
