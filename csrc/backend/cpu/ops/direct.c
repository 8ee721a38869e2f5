/* direct.c: convolution of any window and stride as a matrix product (im2col): a tile of output pixels gathers its windows as
 * rows of R*S*C values, which multiply the filter [R*S*C][K], cut into chunks of rows and panels of columns that stay in
 * cache. Called by conv2d.c for strided windows, 1x1 windows with stride, and maps too small for Winograd. */
#include <omp.h>
#include <string.h>

#include "conv2d.h"

enum { TILE_PIXELS = 96, TILE_MULTIPLE = 4, CHUNK = 512 };

struct direct {
    const struct mg_conv_sizes *z;
    const struct mg_cpu_kernels *kernels;
    int64_t pixels, tile, tiles; /* of one image */
    int64_t depth;               /* R*S*C */
    int64_t panel, panels;
    size_t rows_floats, product_floats, panel_floats, thread_floats;
};

static struct direct direct_of(const struct mg_context *context, const struct mg_conv_sizes *z) {
    struct direct d = {.z = z, .kernels = mg_cpu_kernels_of(context)};
    d.pixels = z->out_h * z->out_w;
    /* A multiple of 4 tiles where there are enough pixels, so that few threads share them evenly. */
    d.tiles = mg_ceil_div(mg_ceil_div(d.pixels, TILE_PIXELS), TILE_MULTIPLE) * TILE_MULTIPLE;
    d.tile = mg_ceil_div(d.pixels, d.tiles);
    d.tiles = mg_ceil_div(d.pixels, d.tile);
    d.depth = z->r * z->s * z->c;
    d.panel = d.kernels->panel;
    d.panels = mg_ceil_div(z->k, d.panel);
    d.rows_floats = (size_t)((d.tile * d.depth + 15) / 16 * 16);
    d.product_floats = (size_t)(d.tile * d.panels * d.panel);
    d.panel_floats = (size_t)(CHUNK * d.panel);
    d.thread_floats = d.rows_floats + d.product_floats + d.panel_floats + (size_t)((z->k + 15) / 16 * 16);
    return d;
}

size_t mg_direct_workspace(const struct mg_context *context, const struct mg_conv_sizes *z) {
    struct direct d = direct_of(context, z);
    return mg_workspace_floats(d.thread_floats, (size_t)context->num_threads, 0);
}

static void gather_window(const struct mg_conv_sizes *z, const float *image, int64_t pixel, float *row) {
    int64_t top = pixel / z->out_w * z->stride - z->pad_top, left = pixel % z->out_w * z->stride - z->pad_left;
    for (int64_t r = 0; r < z->r; r++)
        for (int64_t s = 0; s < z->s; s++, row += z->c) {
            const float *from = mg_conv_pixel(z, image, top + r, left + s, NULL);
            if (from)
                memcpy(row, from, (size_t)z->c * sizeof(float));
            else
                memset(row, 0, (size_t)z->c * sizeof(float));
        }
}

/* Rows begin .. begin+count of columns k .. k+panel of the filter, side by side, zeros past K. */
static void pack_panel(const struct direct *d, const float *weight, int64_t begin, int64_t count, int64_t k,
                       float *panel) {
    int64_t columns = d->z->k - k < d->panel ? d->z->k - k : d->panel;
    for (int64_t i = 0; i < count; i++, panel += d->panel) {
        memcpy(panel, weight + (begin + i) * d->z->k + k, (size_t)columns * sizeof(float));
        memset(panel + columns, 0, (size_t)(d->panel - columns) * sizeof(float));
    }
}

static void multiply(const struct direct *d, const float *rows, const float *weight, int64_t count, float *product,
                     float *panel) {
    int64_t ld = d->panels * d->panel;
    for (int64_t begin = 0; begin < d->depth; begin += CHUNK) {
        int64_t chunk = d->depth - begin < CHUNK ? d->depth - begin : CHUNK;
        for (int64_t p = 0; p < d->panels; p++) {
            pack_panel(d, weight, begin, chunk, p * d->panel, panel);
            d->kernels->gemm_panel(count, chunk, rows + begin, d->depth, panel, product + p * d->panel, ld, begin > 0);
        }
    }
}

static void run_tile(const struct direct *d, const struct mg_op_call *call, int64_t index, float *scratch) {
    const struct mg_conv_sizes *z = d->z;
    int64_t n = index / d->tiles, first = index % d->tiles * d->tile;
    int64_t count = d->pixels - first < d->tile ? d->pixels - first : d->tile;
    float *rows = scratch, *product = rows + d->rows_floats, *panel = product + d->product_floats;
    float *sums = panel + d->panel_floats;
    const float *image = (const float *)call->in[0] + n * z->in_h * z->in_w * z->c, *residual = call->in[3];
    int64_t at = (n * d->pixels + first) * z->k;
    for (int64_t i = 0; i < count; i++)
        gather_window(z, image, first + i, rows + i * d->depth);
    multiply(d, rows, call->in[1], count, product, panel);
    d->kernels->epilogue((float *)call->out + at, z->k, product, d->panels * d->panel, count, z->k,
                         mg_conv_addend(d->kernels, call, n, sums), MG_ACT_NONE, residual ? residual + at : NULL, z->k);
    if (call->op->params.conv2d.relu)
        d->kernels->activate((float *)call->out + at, (float *)call->out + at, count * z->k, MG_ACT_RELU);
}

void mg_direct_run(const struct mg_context *context, const struct mg_op_call *call, const struct mg_conv_sizes *z) {
    const struct direct d = direct_of(context, z);
    float *workspace = call->workspace;
#pragma omp parallel num_threads(context->num_threads)
    {
        float *mine = workspace + (size_t)omp_get_thread_num() * d.thread_floats;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < z->n * d.tiles; i++)
            run_tile(&d, call, i, mine);
    }
}
