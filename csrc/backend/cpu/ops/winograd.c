/* winograd.c: 3x3 convolutions of stride 1 by Winograd F(4x4, 3x3).
 *
 * The 6x6 inputs of a tile (4x4 outputs) are transformed into V[36][tiles][C], the filters, panel by panel, into
 * U[36][C][panel]; 36 matrix products give M[36][tiles][panel], which is transformed back. Filters are transformed anew in
 * every call: 36/9 of their size is too much to keep. Two orders, by the number of tiles of an image:
 *   many tiles: all of U first; then blocks of tiles, whose V and M stay in cache, run over the panels.
 *   few tiles:  all of V first, which stays in cache; then panels, each with its own U, which is read from memory never. Images
 *               of a batch share a U as long as their tiles together are few.
 *
 * For float32 activations U and V are float32. For bfloat16 ones they are in block floating point: 16-bit integers with one
 * scale for MG_FIXED_CHANNELS channels of a tile or filter at one position. The transforms amplify rounding errors about
 * tenfold, too much for the 8 bits of a bfloat16; integers of 13 bits multiply as fast and leave an error below that of a
 * direct convolution in bfloat16. */
#include <string.h>

#include "../../../core/thread_pool.h"
#include "conv2d.h"

enum { BLOCK_TILES = 48, MIN_BLOCKS = 8, TILE_MULTIPLE = 12, POSITIONS = 36, TAPS = 9 };

/* Floats after each row of V: rows a power of two apart would evict each other from the first-level cache. */
enum { ROW_PADDING = 16 };

/* Up to so many tiles are few: their V stays in the last-level cache. Half as long numbers, and more of them. */
enum { FEW_TILES = 128, FEW_TILES_FIXED = 512 };

/* An output that follows upon its input in memory (mg_backend.trailing_gap) is computed in waves of so many blocks, one wave
 * after the other; within a wave nothing is read that it writes. */
enum { WAVE_BLOCKS = 32 };

struct winograd {
    const struct mg_conv_sizes *z;
    const struct mg_cpu_kernels *kernels;
    const struct mg_cpu_elements *elements;
    bool fixed;
    int64_t tiles_x, tiles, block, blocks; /* of one image; a block of few tiles is all of some images */
    int64_t images;                        /* in a block: one, or several where tiles are few */
    int64_t panel, panels;
    int64_t chunk, chunks; /* channels that are multiplied at once: all of them, or those that share a scale */
    int64_t row;           /* elements from one row of V to the next */
    bool few;
    /* Bytes: U of one panel and V of one block, each followed by its scales; M of a block and panel; the rest of a thread's. */
    size_t u, u_scales, v, v_scales, m, taps, zeros, sums;
    size_t shared, thread;
};

static void cut_tiles(struct winograd *w) {
    const struct mg_conv_sizes *z = w->z;
    w->tiles_x = mg_ceil_div(z->out_w, 4);
    w->tiles = w->tiles_x * mg_ceil_div(z->out_h, 4);
    const int64_t few_tiles = w->fixed ? FEW_TILES_FIXED : FEW_TILES;
    w->few = w->tiles <= few_tiles;
    w->images = w->few ? few_tiles / w->tiles : 1;
    if (w->images > z->n)
        w->images = z->n;
    w->block = mg_ceil_div(mg_ceil_div(w->tiles, MIN_BLOCKS), TILE_MULTIPLE) * TILE_MULTIPLE;
    if (w->block > BLOCK_TILES)
        w->block = BLOCK_TILES;
    if (w->few)
        w->block = w->images * w->tiles;
    w->blocks = mg_ceil_div(w->tiles, w->block);
}

static struct winograd winograd_of(const struct mg_context *context, const struct mg_conv_sizes *z) {
    struct winograd w = {.z = z, .kernels = mg_cpu_kernels_of(context)};
    w.elements = mg_cpu_elements_of(context, z->x);
    w.fixed = z->layout.dtype != MG_F32;
    cut_tiles(&w);
    w.panel = z->layout.panel;
    w.panels = z->panels.count;
    w.chunk = w.fixed ? (z->c < MG_FIXED_CHANNELS ? mg_ceil_div(z->c, 4) * 4 : MG_FIXED_CHANNELS) : z->c;
    w.chunks = mg_ceil_div(z->c, w.chunk);
    w.row = w.fixed ? w.chunk : z->c + ROW_PADDING;
    const size_t operand = w.fixed ? sizeof(int16_t) : sizeof(float);
    w.u = mg_aligned_bytes(POSITIONS * w.chunks * w.chunk * w.panel, operand);
    w.v = mg_aligned_bytes(POSITIONS * w.block * w.chunks * w.row, operand);
    w.u_scales = w.fixed ? mg_aligned_bytes(POSITIONS * w.chunks * w.panel, sizeof(float)) : 0;
    w.v_scales = w.fixed ? mg_aligned_bytes(POSITIONS * w.chunks * w.block, sizeof(float)) : 0;
    w.m = mg_aligned_bytes(POSITIONS * w.block * w.panel, sizeof(float));
    w.taps = w.fixed ? mg_aligned_bytes(TAPS * w.chunk * w.panel, sizeof(float)) : 0;
    w.zeros = mg_aligned_bytes(z->c, (size_t)z->bytes);
    w.sums = mg_aligned_bytes(z->k, sizeof(float));
    const size_t u = w.u + w.u_scales, v = w.v + w.v_scales;
    w.shared = w.few ? v : u * (size_t)w.panels;
    w.thread = (w.few ? u : v) + w.m + w.taps + w.zeros + w.sums;
    return w;
}

size_t mg_winograd_workspace(const struct mg_context *context, const struct mg_conv_sizes *z) {
    struct winograd w = winograd_of(context, z);
    size_t bytes;
    if (!mg_size_mul(&bytes, w.thread, (size_t)context->num_threads) || !mg_size_add(&bytes, bytes, w.shared))
        return SIZE_MAX;
    return bytes;
}

/* A thread's own memory: U of a panel or V of a block, M, a filter's taps as floats, zeros, sums. */
struct scratch {
    char *operand;
    float *m, *taps;
    void *zeros; /* a pixel outside the image */
    float *sums; /* bias plus channel vector */
};

static struct scratch scratch_of(const struct winograd *w, const struct mg_op_call *call, int thread) {
    char *at = (char *)call->workspace + w->shared + (size_t)thread * w->thread;
    struct scratch s = {.operand = at};
    at += w->few ? w->u + w->u_scales : w->v + w->v_scales;
    s.m = (float *)at;
    s.taps = (float *)(at += w->m);
    s.zeros = at += w->taps;
    s.sums = (float *)(at += w->zeros);
    memset(s.zeros, 0, w->zeros);
    return s;
}

/* Tile `tile` of the image becomes row `row` of V. */
static void transform_input(const struct winograd *w, const char *image, int64_t tile, const void *zeros, char *v,
                            int64_t row) {
    const struct mg_conv_sizes *z = w->z;
    const int64_t top = tile / w->tiles_x * 4 - z->pad_top, left = tile % w->tiles_x * 4 - z->pad_left;
    const void *pixels[POSITIONS];
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++)
            pixels[i * 6 + j] = mg_conv_pixel(z, image, top + i, left + j, zeros);
    if (!w->fixed) {
        w->elements->winograd_input((float *)v + row * w->row, w->block * w->row, pixels, z->c);
        return;
    }
    float *scales = (float *)(v + w->v) + row;
    for (int64_t i = 0; i < w->chunks; i++) {
        const int64_t begin = i * w->chunk, count = z->c - begin < w->chunk ? z->c - begin : w->chunk;
        w->elements->winograd_input_fixed((int16_t *)v + (i * POSITIONS * w->block + row) * w->chunk,
                                          w->block * w->chunk, scales + i * POSITIONS * w->block, w->block, pixels,
                                          begin, count);
    }
}

/* Panel p of the filter. */
static void transform_weights(const struct winograd *w, const struct mg_op_call *call, int64_t p, char *u,
                              float *taps) {
    const struct mg_panels *sizes = &w->z->panels;
    const char *panel = (const char *)call->in[1] + (size_t)p * sizes->panel_bytes;
    if (!w->fixed) {
        w->kernels->winograd_weights((float *)u, w->z->c * w->panel, (const float *)panel, w->z->c);
        return;
    }
    for (int64_t i = 0; i < w->chunks; i++) {
        const int64_t begin = i * w->chunk;
        const int64_t count = sizes->channels - begin < w->chunk ? sizes->channels - begin : w->chunk;
        for (int64_t tap = 0; tap < TAPS; tap++) {
            const int64_t at = (tap * sizes->channels + begin) * w->panel;
            float *out = taps + tap * count * w->panel;
            if (w->z->layout.dtype == MG_BF16)
                w->kernels->widen_pairs(out, (const mg_bf16 *)panel + at, count);
            else
                w->kernels->widen_quads(out, (const int8_t *)panel + at,
                                        (const float *)((const char *)call->in[1] + sizes->scales) + p * w->panel,
                                        count);
        }
        w->kernels->winograd_weights_fixed((int16_t *)u + i * POSITIONS * w->chunk * w->panel, count * w->panel,
                                           (float *)(u + w->u) + i * POSITIONS * w->panel, taps, count);
    }
}

/* M of `count` rows of V and one panel. */
static void multiply(const struct winograd *w, const char *u, const char *v, int64_t count, float *m) {
    const int64_t c = w->z->c, channels = w->z->panels.channels;
    const float *u_scales = (const float *)(u + w->u), *v_scales = (const float *)(v + w->v);
    for (int64_t q = 0; q < POSITIONS; q++) {
        float *out = m + q * w->block * w->panel;
        if (!w->fixed) {
            w->kernels->product_f32(count, c, (const float *)v + q * w->block * w->row, w->row,
                                    (const float *)u + q * c * w->panel, out, w->panel, false);
            continue;
        }
        for (int64_t i = 0; i < w->chunks; i++) {
            const int64_t begin = i * w->chunk, k = channels - begin < w->chunk ? channels - begin : w->chunk;
            w->kernels->product_fixed(count, k, (const int16_t *)v + (i * POSITIONS + q) * w->block * w->chunk,
                                      w->chunk, v_scales + (i * POSITIONS + q) * w->block,
                                      (const int16_t *)u + (i * POSITIONS * w->chunk + q * k) * w->panel,
                                      u_scales + (i * POSITIONS + q) * w->panel, out, w->panel, i > 0);
        }
    }
}

/* Output pixels of one tile from channel k on; NULL for those outside the image. */
static void transform_output(const struct winograd *w, const struct mg_op_call *call, int64_t n, int64_t tile,
                             int64_t k, const float *m, const float *addend) {
    const struct mg_conv_sizes *z = w->z;
    const char *residual = call->in[3];
    void *pixels[16];
    const void *residuals[16];
    int64_t y = tile / w->tiles_x * 4, x = tile % w->tiles_x * 4;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            bool inside = y + i < z->out_h && x + j < z->out_w;
            int64_t at = (((n * z->out_h + y + i) * z->out_w + x + j) * z->k + k) * z->bytes;
            pixels[i * 4 + j] = inside ? (char *)call->out + at : NULL;
            residuals[i * 4 + j] = inside && residual ? residual + at : NULL;
        }
    int64_t count = z->k - k < w->panel ? z->k - k : w->panel;
    w->elements->winograd_output(pixels, m, w->block * w->panel, count, addend ? addend + k : NULL,
                                 residual ? residuals : NULL, call->op->params.conv2d.relu);
}

static void run_block(const struct winograd *w, const struct mg_op_call *call, const char *u, int64_t index,
                      const struct scratch *s) {
    int64_t n = index / w->blocks, first = index % w->blocks * w->block;
    int64_t count = w->tiles - first < w->block ? w->tiles - first : w->block;
    const float *addend = mg_conv_addend(w->kernels, call, n, s->sums);
    for (int64_t t = 0; t < count; t++)
        transform_input(w, mg_conv_image(w->z, call, n), first + t, s->zeros, s->operand, t);
    for (int64_t p = 0; p < w->panels; p++) {
        multiply(w, u + (size_t)p * (w->u + w->u_scales), s->operand, count, s->m);
        for (int64_t t = 0; t < count; t++)
            transform_output(w, call, n, first + t, p * w->panel, s->m + t * w->panel, addend);
    }
}

/* Bytes that the wave from `first` on may write beyond the first byte it, or a later one, reads. */
static int64_t overlap_of_wave(const struct winograd *w, int64_t first) {
    const struct mg_conv_sizes *z = w->z;
    const int64_t end = first + WAVE_BLOCKS < w->blocks ? first + WAVE_BLOCKS : w->blocks;
    const int64_t last_tile = (end * w->block < w->tiles ? end * w->block : w->tiles) - 1;
    const int64_t top = first * w->block / w->tiles_x * 4 - z->pad_top, bottom = (last_tile / w->tiles_x + 1) * 4;
    const int64_t written = (bottom < z->out_h ? bottom : z->out_h) * z->out_w * z->k;
    const int64_t read = (top > 0 ? top : 0) * z->in_w * z->c;
    return (written - read) * z->bytes;
}

size_t mg_winograd_trailing_gap(const struct mg_context *context, const struct mg_conv_sizes *z) {
    const struct winograd w = winograd_of(context, z);
    int64_t gap = 0;
    for (int64_t first = 0; !w.few && first < w.blocks; first += WAVE_BLOCKS) {
        const int64_t overlap = overlap_of_wave(&w, first);
        gap = overlap > gap ? overlap : gap;
    }
    /* Not for maps of a few waves. */
    return gap * 4 < z->in_h * z->in_w * z->c * z->bytes ? mg_aligned_bytes(gap, 1) : 0;
}

static bool follows_its_input(const struct winograd *w, const struct mg_op_call *call) {
    const struct mg_conv_sizes *z = w->z;
    const char *in = call->in[0], *out = call->out;
    return out < in && out + z->out_h * z->out_w * z->k * z->bytes > in;
}

/* What a loop shares out: panels of the filter, blocks of tiles, or the tiles of some images, from image n on. */
struct job {
    const struct winograd *w;
    const struct mg_op_call *call;
    int64_t n, images, first_block;
};

static void transform_panels(const void *user, int64_t begin, int64_t end, int thread) {
    const struct job *job = user;
    const struct winograd *w = job->w;
    const struct scratch mine = scratch_of(w, job->call, thread);
    for (int64_t p = begin; p < end; p++)
        transform_weights(w, job->call, p, (char *)job->call->workspace + (size_t)p * (w->u + w->u_scales), mine.taps);
}

static void run_blocks(const void *user, int64_t begin, int64_t end, int thread) {
    const struct job *job = user;
    const struct scratch mine = scratch_of(job->w, job->call, thread);
    for (int64_t i = begin; i < end; i++)
        run_block(job->w, job->call, job->call->workspace, job->first_block + i, &mine);
}

static void run_many(const struct winograd *w, const struct mg_context *context, const struct mg_op_call *call) {
    const int64_t blocks = w->z->n * w->blocks, wave = follows_its_input(w, call) ? WAVE_BLOCKS : blocks;
    struct job job = {.w = w, .call = call};
    mg_parallel_for(context->num_threads, w->panels, transform_panels, &job);
    for (; job.first_block < blocks; job.first_block += wave)
        mg_parallel_for(context->num_threads, blocks - job.first_block < wave ? blocks - job.first_block : wave,
                        run_blocks, &job);
}

static void transform_tiles(const void *user, int64_t begin, int64_t end, int thread) {
    const struct job *job = user;
    const struct winograd *w = job->w;
    const struct scratch mine = scratch_of(w, job->call, thread);
    for (int64_t t = begin; t < end; t++)
        transform_input(w, mg_conv_image(w->z, job->call, job->n + t / w->tiles), t % w->tiles, mine.zeros,
                        job->call->workspace, t);
}

static void run_panels(const void *user, int64_t begin, int64_t end, int thread) {
    const struct job *job = user;
    const struct winograd *w = job->w;
    const struct scratch mine = scratch_of(w, job->call, thread);
    for (int64_t p = begin; p < end; p++) {
        transform_weights(w, job->call, p, mine.operand, mine.taps);
        multiply(w, mine.operand, job->call->workspace, job->images * w->tiles, mine.m);
        for (int64_t i = 0; i < job->images; i++) {
            const float *addend = mg_conv_addend(w->kernels, job->call, job->n + i, mine.sums);
            for (int64_t t = 0; t < w->tiles; t++)
                transform_output(w, job->call, job->n + i, t, p * w->panel, mine.m + (i * w->tiles + t) * w->panel,
                                 addend);
        }
    }
}

static void run_few(const struct winograd *w, const struct mg_context *context, const struct mg_op_call *call) {
    struct job job = {.w = w, .call = call};
    for (; job.n < w->z->n; job.n += w->images) {
        job.images = w->z->n - job.n < w->images ? w->z->n - job.n : w->images;
        mg_parallel_for(context->num_threads, job.images * w->tiles, transform_tiles, &job);
        mg_parallel_for(context->num_threads, w->panels, run_panels, &job);
    }
}

void mg_winograd_run(const struct mg_context *context, const struct mg_op_call *call, const struct mg_conv_sizes *z) {
    const struct winograd w = winograd_of(context, z);
    (w.few ? run_few : run_many)(&w, context, call);
}
