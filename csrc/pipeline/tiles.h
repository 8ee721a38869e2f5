/* tiles.h: a canvas of latents in tiles of one size that overlap, and the shares by which their values are blended. Private to
 * pipeline. */
#ifndef MG_TILES_H
#define MG_TILES_H
#include "../core/core.h"

/* Sizes in latent cells. */
struct mg_tiles {
    int64_t canvas_h, canvas_w, h, w; /* a tile is no larger than the canvas */
    int64_t rows, columns;            /* of tiles */
    int64_t stride;                   /* from one to the next, but to the last ones, which end where the canvas does */
};
/* size > overlap >= 0. */
struct mg_tiles mg_tiles_of(int64_t canvas_h, int64_t canvas_w, int64_t size, int64_t overlap);
static inline int64_t mg_tiles_count(const struct mg_tiles *tiles) { return tiles->rows * tiles->columns; }
/* The cells of a tile out of planes (planes, canvas_h, canvas_w), into (planes, h, w). */
void mg_tile_cut(float *out, const float *canvas, int64_t planes, const struct mg_tiles *tiles, int64_t tile);
/* The sum of all tiles' weights in each cell, (canvas_h, canvas_w). A cell's weight in a tile is its distance to the tile's border,
 * counted in cells from 1. */
void mg_tiles_weigh(float *total, const struct mg_tiles *tiles);
/* Adds a tile's values (planes, h, w), each times its share of the weights there: after all tiles the canvas, zeros at first, is
 * their weighted mean. */
void mg_tile_blend(float *canvas, const float *values, int64_t planes, const float *total, const struct mg_tiles *tiles,
                   int64_t tile);
#endif
