/* tiles.h: how the bandwidth-bound drivers cut an activation into tiles. The borders depend on the shape of one image
 * only, so that neither the number of threads nor that of images changes a result. Private to backend/cpu/ops.
 */
#ifndef MG_TILES_H
#define MG_TILES_H
#include "../cpu.h"

/* Elements of a tile: 128 KiB of input and as much output stay in a core's second-level cache, and one tile lasts long
 * enough (about 10 microseconds) to pay for handing it to a thread. */
enum { MG_TILE_ELEMENTS = 32768 };

/* Each of `images` images has `units` units (elements, or pixels), cut into tiles of `tile` units. */
struct mg_tiling {
    int64_t images, units, tile, per_image, total;
};
struct mg_tile {
    int64_t image, begin, count; /* begin: within the image */
    int64_t first;               /* image * units + begin */
};

/* unit_elements: elements of one unit, 1 or the channels of a pixel. */
static inline struct mg_tiling mg_tiling_of(int64_t images, int64_t units, int64_t unit_elements) {
    struct mg_tiling t = {.images = images, .units = units};
    t.tile = unit_elements < MG_TILE_ELEMENTS ? MG_TILE_ELEMENTS / unit_elements : 1;
    t.per_image = (units + t.tile - 1) / t.tile;
    t.total = images * t.per_image;
    return t;
}

static inline struct mg_tile mg_tile_at(const struct mg_tiling *t, int64_t index) {
    struct mg_tile tile = {.image = index / t->per_image};
    tile.begin = (index - tile.image * t->per_image) * t->tile;
    tile.count = t->units - tile.begin < t->tile ? t->units - tile.begin : t->tile;
    tile.first = tile.image * t->units + tile.begin;
    return tile;
}

/* Bytes of an element, for pointers to elements of any type. */
static inline int64_t mg_element_bytes(const struct mg_tensor *x) { return (int64_t)mg_dtype_bytes(x->dtype); }

static inline int64_t mg_image_pixels(const struct mg_tensor *x) { return x->dim[1] * x->dim[2]; }
#endif
