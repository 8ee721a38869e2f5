/* winograd.c: 3x3 convolutions of stride 1 by Winograd F(4x4, 3x3).
 *
 * The 6x6 inputs of a tile (4x4 outputs) are transformed into V[36][tiles][C], the filters, panel by panel, into
 * U[36][C][panel]; 36 matrix products give M[36][tiles][panel], which is transformed back. Filters are transformed anew in
 * every call: 36/9 of their size is too much to keep. Two orders, by the number of tiles of an image:
 *   many tiles: all of U first; then blocks of tiles, whose V and M stay in cache, run over the panels.
 *   few tiles:  all of V first, which stays in cache; then panels, each with its own U, which is read from memory never. */
#include <omp.h>
#include <string.h>

#include "conv2d.h"

enum { BLOCK_TILES = 96, MIN_BLOCKS = 8, TILE_MULTIPLE = 12, FEW_TILES = 128 };

struct winograd {
    const struct mg_conv_sizes *z;
    const struct mg_cpu_kernels *kernels;
    int64_t tiles_x, tiles, block, blocks; /* of one image */
    int64_t panel, panels;
    bool few;
    size_t u_floats, v_floats, m_floats; /* of one panel; of one block; of one block and panel */
    size_t shared_floats, thread_floats;
};

static size_t round_up(size_t floats) { return (floats + 15) / 16 * 16; }

static struct winograd winograd_of(const struct mg_context *context, const struct mg_conv_sizes *z) {
    struct winograd w = {.z = z, .kernels = mg_cpu_kernels_of(context)};
    w.tiles_x = mg_ceil_div(z->out_w, 4);
    w.tiles = w.tiles_x * mg_ceil_div(z->out_h, 4);
    w.few = w.tiles <= FEW_TILES;
    w.block = mg_ceil_div(mg_ceil_div(w.tiles, MIN_BLOCKS), TILE_MULTIPLE) * TILE_MULTIPLE;
    if (w.block > BLOCK_TILES)
        w.block = BLOCK_TILES;
    if (w.few)
        w.block = w.tiles;
    w.blocks = mg_ceil_div(w.tiles, w.block);
    w.panel = w.kernels->panel;
    w.panels = mg_ceil_div(z->k, w.panel);
    w.u_floats = (size_t)(36 * z->c * w.panel);
    w.v_floats = round_up((size_t)(36 * w.block * z->c));
    w.m_floats = (size_t)(36 * w.block * w.panel);
    w.shared_floats = w.few ? w.v_floats : w.u_floats * (size_t)w.panels;
    /* Also per thread: a row of zeros for pixels outside, and bias plus channel vector. */
    w.thread_floats = (w.few ? w.u_floats : w.v_floats) + w.m_floats + round_up((size_t)z->c) + round_up((size_t)z->k);
    return w;
}

size_t mg_winograd_workspace(const struct mg_context *context, const struct mg_conv_sizes *z) {
    struct winograd w = winograd_of(context, z);
    return mg_workspace_floats(w.thread_floats, (size_t)context->num_threads, w.shared_floats);
}

/* A thread's own memory: U of a panel or V of a block, M, zeros, sums. */
struct scratch {
    float *operand, *m, *zeros, *sums;
};

static struct scratch scratch_of(const struct winograd *w, float *workspace) {
    float *mine = workspace + w->shared_floats + (size_t)omp_get_thread_num() * w->thread_floats;
    struct scratch s = {.operand = mine, .m = mine + (w->few ? w->u_floats : w->v_floats)};
    s.zeros = s.m + w->m_floats;
    s.sums = s.zeros + round_up((size_t)w->z->c);
    memset(s.zeros, 0, (size_t)w->z->c * sizeof(float));
    return s;
}

static const float *image_of(const struct winograd *w, const struct mg_op_call *call, int64_t n) {
    return (const float *)call->in[0] + n * w->z->in_h * w->z->in_w * w->z->c;
}

static void transform_input(const struct winograd *w, const float *image, int64_t tile, const float *zeros, float *v) {
    const struct mg_conv_sizes *z = w->z;
    int64_t top = tile / w->tiles_x * 4 - z->pad_top, left = tile % w->tiles_x * 4 - z->pad_left;
    const float *pixels[36];
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++)
            pixels[i * 6 + j] = mg_conv_pixel(z, image, top + i, left + j, zeros);
    w->kernels->winograd_input(v, w->block * z->c, pixels, z->c);
}

/* Output pixels of one tile from channel k on; NULL for those outside the image. */
static void transform_output(const struct winograd *w, const struct mg_op_call *call, int64_t n, int64_t tile,
                             int64_t k, const float *m, const float *addend) {
    const struct mg_conv_sizes *z = w->z;
    const float *residual = call->in[3];
    float *pixels[16];
    const float *residuals[16];
    int64_t y = tile / w->tiles_x * 4, x = tile % w->tiles_x * 4;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            bool inside = y + i < z->out_h && x + j < z->out_w;
            int64_t at = ((n * z->out_h + y + i) * z->out_w + x + j) * z->k + k;
            pixels[i * 4 + j] = inside ? (float *)call->out + at : NULL;
            residuals[i * 4 + j] = inside && residual ? residual + at : NULL;
        }
    int64_t count = z->k - k < w->panel ? z->k - k : w->panel;
    w->kernels->winograd_output(pixels, m, w->block * w->panel, count, addend ? addend + k : NULL,
                                residual ? residuals : NULL, call->op->params.conv2d.relu);
}

/* One panel of the output for `count` tiles from `first` on. */
static void run_panel(const struct winograd *w, const struct mg_op_call *call, const float *u, const float *v,
                      int64_t n, int64_t first, int64_t count, int64_t p, const float *addend, float *m) {
    const int64_t c = w->z->c;
    for (int64_t q = 0; q < 36; q++)
        w->kernels->gemm_panel(count, c, v + q * w->block * c, c, u + q * c * w->panel, m + q * w->block * w->panel,
                               w->panel, false);
    for (int64_t t = 0; t < count; t++)
        transform_output(w, call, n, first + t, p * w->panel, m + t * w->panel, addend);
}

static void run_block(const struct winograd *w, const struct mg_op_call *call, const float *u, int64_t index,
                      const struct scratch *s) {
    int64_t n = index / w->blocks, first = index % w->blocks * w->block;
    int64_t count = w->tiles - first < w->block ? w->tiles - first : w->block;
    const float *addend = mg_conv_addend(w->kernels, call, n, s->sums);
    for (int64_t t = 0; t < count; t++)
        transform_input(w, image_of(w, call, n), first + t, s->zeros, s->operand + t * w->z->c);
    for (int64_t p = 0; p < w->panels; p++)
        run_panel(w, call, u + (size_t)p * w->u_floats, s->operand, n, first, count, p, addend, s->m);
}

static void run_many(const struct winograd *w, const struct mg_context *context, const struct mg_op_call *call) {
    const float *weight = call->in[1];
    float *u = call->workspace;
#pragma omp parallel num_threads(context->num_threads)
    {
        const struct scratch mine = scratch_of(w, call->workspace);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < w->panels; p++)
            w->kernels->winograd_weights(u + (size_t)p * w->u_floats, w->z->c * w->panel,
                                         weight + p * 9 * w->z->c * w->panel, w->z->c);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < w->z->n * w->blocks; i++)
            run_block(w, call, u, i, &mine);
    }
}

static void run_few(const struct winograd *w, const struct mg_context *context, const struct mg_op_call *call) {
    const float *weight = call->in[1];
    float *v = call->workspace;
#pragma omp parallel num_threads(context->num_threads)
    {
        const struct scratch mine = scratch_of(w, call->workspace);
        for (int64_t n = 0; n < w->z->n; n++) {
            const float *addend = mg_conv_addend(w->kernels, call, n, mine.sums);
            /* The barriers at the ends of both loops keep V whole while any thread reads it. */
#pragma omp for schedule(static)
            for (int64_t t = 0; t < w->tiles; t++)
                transform_input(w, image_of(w, call, n), t, mine.zeros, v + t * w->z->c);
#pragma omp for schedule(dynamic)
            for (int64_t p = 0; p < w->panels; p++) {
                w->kernels->winograd_weights(mine.operand, w->z->c * w->panel, weight + p * 9 * w->z->c * w->panel,
                                             w->z->c);
                run_panel(w, call, mine.operand, v, n, 0, w->tiles, p, addend, mine.m);
            }
        }
    }
}

void mg_winograd_run(const struct mg_context *context, const struct mg_op_call *call, const struct mg_conv_sizes *z) {
    const struct winograd w = winograd_of(context, z);
    (w.few ? run_few : run_many)(&w, context, call);
}
