/* winograd.c: 3x3 convolutions of stride 1 by Winograd F(4x4, 3x3).
 *
 * Per block of tiles (4x4 outputs each) and thread: transform the 6x6 inputs into V[36][tiles][C], multiply the 36 matrices
 * with the transformed filters U[36][K/panel][C][panel], panel by panel, into M[36][tiles][panel], and transform back. V and M
 * stay in cache. U is made once a call, in the shared part of the workspace: 36/9 of the filter, too much to keep. */
#include <omp.h>
#include <string.h>

#include "conv2d.h"

enum { BLOCK_TILES = 96, MIN_BLOCKS = 8, TILE_MULTIPLE = 12 };

struct winograd {
    const struct mg_conv_sizes *z;
    const struct mg_cpu_kernels *kernels;
    int64_t tiles_x, tiles, block, blocks; /* of one image */
    int64_t panel, panels;
    size_t u_floats, v_floats, m_floats, thread_floats;
};

static size_t round_up(size_t floats) { return (floats + 15) / 16 * 16; }

static struct winograd winograd_of(const struct mg_context *context, const struct mg_conv_sizes *z) {
    struct winograd w = {.z = z, .kernels = mg_cpu_kernels_of(context)};
    w.tiles_x = mg_ceil_div(z->out_w, 4);
    w.tiles = w.tiles_x * mg_ceil_div(z->out_h, 4);
    w.block = mg_ceil_div(mg_ceil_div(w.tiles, MIN_BLOCKS), TILE_MULTIPLE) * TILE_MULTIPLE;
    if (w.block > BLOCK_TILES)
        w.block = BLOCK_TILES;
    w.blocks = mg_ceil_div(w.tiles, w.block);
    w.panel = w.kernels->panel;
    w.panels = mg_ceil_div(z->k, w.panel);
    w.u_floats = (size_t)(36 * w.panels * z->c * w.panel);
    w.v_floats = round_up((size_t)(36 * w.block * z->c));
    w.m_floats = (size_t)(36 * w.block * w.panel);
    /* Also per thread: a row of zeros for pixels outside, and bias plus channel vector. */
    w.thread_floats = w.v_floats + w.m_floats + round_up((size_t)z->c) + round_up((size_t)z->k);
    return w;
}

size_t mg_winograd_workspace(const struct mg_context *context, const struct mg_conv_sizes *z) {
    struct winograd w = winograd_of(context, z);
    return mg_workspace_floats(w.thread_floats, (size_t)context->num_threads, w.u_floats);
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

static void run_block(const struct winograd *w, const struct mg_op_call *call, const float *u, int64_t index,
                      float *scratch) {
    const struct mg_conv_sizes *z = w->z;
    int64_t n = index / w->blocks, first = index % w->blocks * w->block;
    int64_t count = w->tiles - first < w->block ? w->tiles - first : w->block;
    float *v = scratch, *m = v + w->v_floats, *zeros = m + w->m_floats, *sums = zeros + round_up((size_t)z->c);
    const float *image = (const float *)call->in[0] + n * z->in_h * z->in_w * z->c;
    const float *addend = mg_conv_addend(w->kernels, call, n, sums);
    for (int64_t t = 0; t < count; t++)
        transform_input(w, image, first + t, zeros, v + t * z->c);
    for (int64_t p = 0; p < w->panels; p++) {
        for (int64_t q = 0; q < 36; q++)
            w->kernels->gemm_panel(count, z->c, v + q * w->block * z->c, z->c,
                                   u + (q * w->panels + p) * z->c * w->panel, m + q * w->block * w->panel, w->panel,
                                   false);
        for (int64_t t = 0; t < count; t++)
            transform_output(w, call, n, first + t, p * w->panel, m + t * w->panel, addend);
    }
}

void mg_winograd_run(const struct mg_context *context, const struct mg_op_call *call, const struct mg_conv_sizes *z) {
    const struct winograd w = winograd_of(context, z);
    float *u = call->workspace, *scratch = u + w.u_floats;
#pragma omp parallel num_threads(context->num_threads)
    {
        float *mine = scratch + (size_t)omp_get_thread_num() * w.thread_floats;
        memset(mine + w.v_floats + w.m_floats, 0, (size_t)z->c * sizeof(float));
#pragma omp for schedule(static)
        for (int64_t c = 0; c < z->c; c++)
            w.kernels->winograd_weights(u, call->in[1], z->c, z->k, c, c + 1);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < z->n * w.blocks; i++)
            run_block(&w, call, u, i, mine);
    }
}
