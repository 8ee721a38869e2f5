/* tiles.c: where the tiles of a canvas lie, and the blending of what a network makes of each (MultiDiffusion, arXiv 2302.08113).
 * Plain C on planes. */
#include "tiles.h"

#include <string.h>

static int64_t count_along(int64_t canvas, int64_t size, int64_t stride) {
    return canvas <= size ? 1 : 1 + (canvas - size + stride - 1) / stride;
}

struct mg_tiles mg_tiles_of(int64_t canvas_h, int64_t canvas_w, int64_t size, int64_t overlap) {
    const int64_t stride = size - overlap;
    return (struct mg_tiles){.canvas_h = canvas_h,
                             .canvas_w = canvas_w,
                             .h = canvas_h < size ? canvas_h : size,
                             .w = canvas_w < size ? canvas_w : size,
                             .rows = count_along(canvas_h, size, stride),
                             .columns = count_along(canvas_w, size, stride),
                             .stride = stride};
}

/* The first cell of a tile in a plane of the canvas. */
static int64_t begin_of(const struct mg_tiles *t, int64_t tile) {
    const int64_t last_y = t->canvas_h - t->h, last_x = t->canvas_w - t->w;
    const int64_t y = tile / t->columns * t->stride, x = tile % t->columns * t->stride;
    return (y < last_y ? y : last_y) * t->canvas_w + (x < last_x ? x : last_x);
}

void mg_tile_cut(float *out, const float *canvas, int64_t planes, const struct mg_tiles *t, int64_t tile) {
    const float *from = canvas + begin_of(t, tile);
    for (int64_t c = 0; c < planes; c++)
        for (int64_t y = 0; y < t->h; y++)
            memcpy(out + (c * t->h + y) * t->w, from + (c * t->canvas_h + y) * t->canvas_w,
                   (size_t)t->w * sizeof(float));
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static float weight_of(const struct mg_tiles *t, int64_t y, int64_t x) {
    return (float)(1 + least(least(y, t->h - 1 - y), least(x, t->w - 1 - x)));
}

void mg_tiles_weigh(float *total, const struct mg_tiles *t) {
    memset(total, 0, (size_t)(t->canvas_h * t->canvas_w) * sizeof *total);
    for (int64_t tile = 0; tile < mg_tiles_count(t); tile++) {
        float *to = total + begin_of(t, tile);
        for (int64_t y = 0; y < t->h; y++)
            for (int64_t x = 0; x < t->w; x++)
                to[y * t->canvas_w + x] += weight_of(t, y, x);
    }
}

/* The share is divided first: a tile that is alone has all of it, and its values stay as they are to the bit. */
void mg_tile_blend(float *canvas, const float *values, int64_t planes, const float *total, const struct mg_tiles *t,
                   int64_t tile) {
    const int64_t begin = begin_of(t, tile);
    for (int64_t c = 0; c < planes; c++)
        for (int64_t y = 0; y < t->h; y++) {
            float *to = canvas + c * t->canvas_h * t->canvas_w + begin + y * t->canvas_w;
            const float *sum = total + begin + y * t->canvas_w, *from = values + (c * t->h + y) * t->w;
            for (int64_t x = 0; x < t->w; x++)
                to[x] += weight_of(t, y, x) / sum[x] * from[x];
        }
}
