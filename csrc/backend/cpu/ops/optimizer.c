/* optimizer.c: a step of Adam in one pass over memory, the sum of squares that a gradient is clipped by, and moving averages:
 * see mg_backend. */
#include "tiles.h"

struct numbers {
    const struct mg_cpu_kernels *kernels;
    struct mg_tiling tiling;
    float *weight, *gradient, *m, *v;
    const struct mg_adam *params;
    const float *x;
    float factors[3];
    int64_t first_tile;
    double *sums; /* of tiles from first_tile on */
};

static void adam_tiles(const void *user, int64_t begin, int64_t end, int thread) {
    const struct numbers *n = user;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const struct mg_tile tile = mg_tile_at(&n->tiling, i);
        const int64_t at = tile.first;
        n->kernels->adam(n->weight + at, n->gradient + at, n->m + at, n->v + at, tile.count, n->params);
    }
}

void mg_cpu_adam(const struct mg_context *context, float *weight, float *gradient, float *m, float *v, int64_t count,
                 const struct mg_adam *params) {
    const struct numbers n = {.kernels = mg_cpu_kernels_of(context),
                              .tiling = mg_tiling_of(1, count, 1),
                              .weight = weight,
                              .gradient = gradient,
                              .m = m,
                              .v = v,
                              .params = params};
    mg_parallel_for(context->num_threads, n.tiling.total, adam_tiles, &n);
}

/* So many tiles at once: their sums are added in order. */
enum { TILES_AT_ONCE = 256 };

static void sum_tiles(const void *user, int64_t begin, int64_t end, int thread) {
    const struct numbers *n = user;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const struct mg_tile tile = mg_tile_at(&n->tiling, n->first_tile + i);
        n->sums[i] = n->kernels->sum_of_squares(n->x + tile.first, tile.count);
    }
}

double mg_cpu_sum_of_squares(const struct mg_context *context, const float *x, int64_t count) {
    double sums[TILES_AT_ONCE], total = 0.0;
    struct numbers n = {
        .kernels = mg_cpu_kernels_of(context), .tiling = mg_tiling_of(1, count, 1), .x = x, .sums = sums};
    for (; n.first_tile < n.tiling.total; n.first_tile += TILES_AT_ONCE) {
        const int64_t left = n.tiling.total - n.first_tile, tiles = left < TILES_AT_ONCE ? left : TILES_AT_ONCE;
        mg_parallel_for(context->num_threads, tiles, sum_tiles, &n);
        for (int64_t i = 0; i < tiles; i++)
            total += sums[i];
    }
    return total;
}

static void average_tiles(const void *user, int64_t begin, int64_t end, int thread) {
    const struct numbers *n = user;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const struct mg_tile tile = mg_tile_at(&n->tiling, i);
        float *out = n->weight + tile.first;
        n->kernels->combine(out, out, n->x + tile.first, NULL, n->factors, tile.count);
    }
}

void mg_cpu_average(const struct mg_context *context, float *average, const float *x, int64_t count, float keep,
                    float take) {
    const struct numbers n = {.kernels = mg_cpu_kernels_of(context),
                              .tiling = mg_tiling_of(1, count, 1),
                              .weight = average,
                              .x = x,
                              .factors = {keep, take, 0.0f}};
    mg_parallel_for(context->num_threads, n.tiling.total, average_tiles, &n);
}
