/* vae_tiles.c: images through the VAE in tiles that overlap by a quarter, as diffusers' AutoencoderKL with enable_tiling: each tile is
 * faded into what is left of the one above it, then into the one before it. A tile has its own statistics of normalisation and its
 * own attention, so the result is near to that of the whole, not the same. Calls stages.c. */
#include <string.h>

#include "pipeline.h"

/* One direction of the network, sizes in elements of its input and output; a latent cell has in_scale and out_scale of them. */
struct tiling {
    int64_t n, in_channels, out_channels;
    int64_t in_h, in_w, cells_h, cells_w;
    int64_t in_scale, out_scale;
    int64_t size, stride; /* of tiles, in cells */
    int64_t rows, columns;
};

/* A tile that was processed. */
struct tile {
    float *values; /* (n * out_channels, h, w) */
    int64_t h, w;
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static struct tiling tiling_of(const struct mg_pipeline *p, const struct mg_stage_key *whole) {
    const struct mg_autoencoder *vae = &p->vae;
    const bool encodes = whole->stage == MG_STAGE_ENCODE;
    const int64_t scale = vae->scale, spare = encodes && vae->is_tiny ? scale - 1 : 0;
    struct tiling t = {.n = whole->n,
                       .in_channels = encodes ? vae->image_channels : vae->latent_channels,
                       .out_channels = encodes ? vae->latent_channels : vae->image_channels,
                       .in_h = whole->h,
                       .in_w = whole->w,
                       .in_scale = encodes ? scale : 1,
                       .out_scale = encodes ? 1 : scale,
                       .size = p->vae_tile,
                       .stride = p->vae_tile - p->vae_tile / MG_VAE_TILE_OVERLAPS};
    t.cells_h = (whole->h + spare) / t.in_scale;
    t.cells_w = (whole->w + spare) / t.in_scale;
    t.rows = (t.cells_h + t.stride - 1) / t.stride;
    t.columns = (t.cells_w + t.stride - 1) / t.stride;
    return t;
}

struct mg_stage_key mg_vae_largest_tile(const struct mg_pipeline *p, const struct mg_stage_key *whole) {
    const struct tiling t = tiling_of(p, whole);
    struct mg_stage_key key = *whole;
    key.h = least(t.size * t.in_scale, t.in_h);
    key.w = least(t.size * t.in_scale, t.in_w);
    return key;
}

mg_status mg_vae_plan_run(float *out, const float *in, struct mg_plan *plan, mg_stage stage, struct mg_err *err) {
    const bool encodes = stage == MG_STAGE_ENCODE;
    return mg_plan_run(plan, &(struct mg_binding){encodes ? "x" : "latent", (void *)in}, 1,
                       &(struct mg_binding){encodes ? "latent" : "image", out}, 1, err);
}

static void copy_planes(float *to, int64_t to_h, int64_t to_w, const float *from, int64_t from_h, int64_t from_w,
                        int64_t planes, int64_t rows, int64_t columns) {
    for (int64_t c = 0; c < planes; c++)
        for (int64_t y = 0; y < rows; y++)
            memcpy(to + (c * to_h + y) * to_w, from + (c * from_h + y) * from_w, (size_t)columns * sizeof(float));
}

/* The last rows of `above` give way to the first of `t`, downwards. */
static void fade_down(const struct tile *t, const struct tile *above, int64_t planes, int64_t overlap) {
    const int64_t rows = least(overlap, least(t->h, above->h));
    for (int64_t c = 0; c < planes; c++)
        for (int64_t y = 0; y < rows; y++) {
            const float share = (float)y / (float)rows;
            const float *from = above->values + (c * above->h + above->h - rows + y) * above->w;
            float *to = t->values + (c * t->h + y) * t->w;
            for (int64_t x = 0; x < t->w; x++)
                to[x] = from[x] * (1.0f - share) + to[x] * share;
        }
}

static void fade_right(const struct tile *t, const struct tile *before, int64_t planes, int64_t overlap) {
    const int64_t columns = least(overlap, least(t->w, before->w));
    for (int64_t row = 0; row < planes * t->h; row++) {
        const float *from = before->values + row * before->w + before->w - columns;
        float *to = t->values + row * t->w;
        for (int64_t x = 0; x < columns; x++) {
            const float share = (float)x / (float)columns;
            to[x] = from[x] * (1.0f - share) + to[x] * share;
        }
    }
}

/* Cuts the tile at (row, column) out of the input and makes out->values of it. */
static mg_status run_tile(struct tile *out, float *cut, const float *in, const struct tiling *t, int64_t row,
                          int64_t column, struct mg_pipeline *p, const struct mg_stage_key *whole, struct mg_err *err) {
    const int64_t y = row * t->stride, x = column * t->stride;
    struct mg_stage_key key = *whole;
    struct mg_plan *plan;
    key.h = least(t->size * t->in_scale, t->in_h - y * t->in_scale);
    key.w = least(t->size * t->in_scale, t->in_w - x * t->in_scale);
    out->h = least(t->size, t->cells_h - y) * t->out_scale;
    out->w = least(t->size, t->cells_w - x) * t->out_scale;
    copy_planes(cut, key.h, key.w, in + (y * t->in_w + x) * t->in_scale, t->in_h, t->in_w, t->n * t->in_channels, key.h,
                key.w);
    MG_TRY(mg_stage_plan(&plan, p, &key, err));
    return mg_vae_plan_run(out->values, cut, plan, key.stage, err);
}

/* above: the tiles of the row before; NULL: there is none. */
static mg_status run_row(float *out, struct tile *tiles, const struct tile *above, float *cut, const float *in,
                         const struct tiling *t, int64_t row, struct mg_pipeline *p, const struct mg_stage_key *whole,
                         struct mg_err *err) {
    const int64_t planes = t->n * t->out_channels, stride = t->stride * t->out_scale;
    const int64_t overlap = (t->size - t->stride) * t->out_scale;
    const int64_t out_h = t->cells_h * t->out_scale, out_w = t->cells_w * t->out_scale;
    for (int64_t column = 0; column < t->columns; column++) {
        struct tile *tile = &tiles[column];
        MG_TRY(run_tile(tile, cut, in, t, row, column, p, whole, err));
        if (above)
            fade_down(tile, &above[column], planes, overlap);
        if (column)
            fade_right(tile, tile - 1, planes, overlap);
        copy_planes(out + row * stride * out_w + column * stride, out_h, out_w, tile->values, tile->h, tile->w, planes,
                    least(stride, tile->h), least(stride, tile->w));
    }
    return MG_OK;
}

mg_status mg_vae_tiles_run(float *out, const float *in, struct mg_pipeline *p, const struct mg_stage_key *whole,
                           struct mg_err *err) {
    const struct tiling t = tiling_of(p, whole);
    const int64_t in_size = t.size * t.in_scale, cells = least(t.size, t.cells_h) * least(t.size, t.cells_w);
    const size_t in_floats = (size_t)(least(in_size, t.in_h) * least(in_size, t.in_w) * t.in_channels * t.n);
    const size_t out_floats = (size_t)(cells * t.out_scale * t.out_scale * t.out_channels * t.n);
    struct tile *tiles = NULL;
    float *cut = NULL, *values = NULL;
    mg_status status;
    MG_TRY_GOTO(mg_alloc((void **)&tiles, (size_t)(2 * t.columns) * sizeof *tiles, "tiles", err));
    MG_TRY_GOTO(mg_alloc_floats(&cut, 1, in_floats, "a tile", err));
    MG_TRY_GOTO(mg_alloc_floats(&values, 2 * t.columns, out_floats, "tiles", err));
    for (int64_t i = 0; i < 2 * t.columns; i++)
        tiles[i].values = values + (size_t)i * out_floats;
    for (int64_t row = 0; row < t.rows; row++) {
        struct tile *these = tiles + row % 2 * t.columns, *above = tiles + (row + 1) % 2 * t.columns;
        MG_TRY_GOTO(run_row(out, these, row ? above : NULL, cut, in, &t, row, p, whole, err));
    }
done:
    mg_free(tiles);
    mg_free(cut);
    mg_free(values);
    return status;
}
