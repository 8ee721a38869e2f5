/* tiles.h: how the bandwidth-bound drivers cut an activation into tiles and run them. The borders depend on the shape of one
 * image only, so that neither the number of threads nor that of images changes a result. Private to backend/cpu/ops.
 */
#ifndef MG_TILES_H
#define MG_TILES_H
#include "../../../core/thread_pool.h"
#include "../cpu.h"

/* Elements of a tile: 128 KiB of input and as much output stay in a core's second-level cache, and one tile lasts long
 * enough (about 10 microseconds) to pay for handing it to a thread. */
enum { MG_TILE_ELEMENTS = 32768 };

/* Sums over pixels are taken in so many blocks of an image at most: enough for the threads of a large machine, few enough that
 * they take little memory. */
enum { MG_MAX_BLOCKS = 64 };

/* Each of `images` images has `units` units (elements, or pixels), cut into tiles of `tile` units. */
struct mg_tiling {
    int64_t images, units, tile, per_image, total;
};
struct mg_tile {
    int64_t index, image, begin, count; /* begin: within the image */
    int64_t first;                      /* image * units + begin */
};

/* unit_elements: elements of one unit, 1 or the channels of a pixel. */
static inline struct mg_tiling mg_tiling_of(int64_t images, int64_t units, int64_t unit_elements) {
    struct mg_tiling t = {.images = images, .units = units};
    t.tile = unit_elements < MG_TILE_ELEMENTS ? MG_TILE_ELEMENTS / unit_elements : 1;
    t.per_image = mg_ceil_div(units, t.tile);
    t.total = images * t.per_image;
    return t;
}

/* The same, in at most MG_MAX_BLOCKS tiles an image. */
static inline struct mg_tiling mg_blocks_of(int64_t images, int64_t units, int64_t unit_elements) {
    struct mg_tiling t = mg_tiling_of(images, units, unit_elements);
    const int64_t least = mg_ceil_div(units, MG_MAX_BLOCKS);
    if (t.tile < least)
        t.tile = least;
    t.per_image = mg_ceil_div(units, t.tile);
    t.total = images * t.per_image;
    return t;
}

static inline struct mg_tile mg_tile_at(const struct mg_tiling *t, int64_t index) {
    struct mg_tile tile = {.index = index, .image = index / t->per_image};
    tile.begin = (index - tile.image * t->per_image) * t->tile;
    tile.count = t->units - tile.begin < t->tile ? t->units - tile.begin : t->tile;
    tile.first = tile.image * t->units + tile.begin;
    return tile;
}

/* Bytes of an element, for pointers to elements of any type. */
static inline int64_t mg_element_bytes(const struct mg_tensor *x) { return (int64_t)mg_dtype_bytes(x->dtype); }

static inline int64_t mg_image_pixels(const struct mg_tensor *x) { return x->dim[1] * x->dim[2]; }

/* Tiles of the elements, or of the pixels, of an activation. */
static inline struct mg_tiling mg_element_tiles(const struct mg_tensor *x) {
    return mg_tiling_of(x->dim[0], mg_image_pixels(x) * x->dim[3], 1);
}
static inline struct mg_tiling mg_pixel_tiles(const struct mg_tensor *x) {
    return mg_tiling_of(x->dim[0], mg_image_pixels(x), x->dim[3]);
}
static inline struct mg_tiling mg_pixel_blocks(const struct mg_tensor *x) {
    return mg_blocks_of(x->dim[0], mg_image_pixels(x), x->dim[3]);
}

/* ---- tiles.c ---- */
typedef void mg_tile_body(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile);
/* Shares the tiles out to the context's threads. */
void mg_run_tiles(const struct mg_context *context, const struct mg_op_call *call, struct mg_tiling tiling,
                  mg_tile_body *body);
#endif
