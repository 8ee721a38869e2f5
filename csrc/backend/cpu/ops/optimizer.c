/* optimizer.c: a step of Adam in one pass over memory, the sum of squares that a gradient is clipped by, and moving averages.
 * Called through backend.h by marigold/optimizer.c and objective_consistency.c; calls the kernel table. */
#include "tiles.h"

void mg_cpu_adam(const struct mg_context *context, float *weight, float *gradient, float *m, float *v, int64_t count,
                 const struct mg_adam *params) {
    const struct mg_tiling tiling = mg_tiling_of(1, count, 1);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        const struct mg_tile tile = mg_tile_at(&tiling, i);
        mg_cpu_kernels_of(context)->adam(weight + tile.first, gradient + tile.first, m + tile.first, v + tile.first,
                                         tile.count, params);
    }
}

/* So many tiles at once: their sums are added in order. */
enum { TILES_AT_ONCE = 256 };

double mg_cpu_sum_of_squares(const struct mg_context *context, const float *x, int64_t count) {
    const struct mg_tiling tiling = mg_tiling_of(1, count, 1);
    double sums[TILES_AT_ONCE], total = 0.0;
    for (int64_t first = 0; first < tiling.total; first += TILES_AT_ONCE) {
        const int64_t tiles = tiling.total - first < TILES_AT_ONCE ? tiling.total - first : TILES_AT_ONCE;
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiles > 1)
        for (int64_t i = 0; i < tiles; i++) {
            const struct mg_tile tile = mg_tile_at(&tiling, first + i);
            sums[i] = mg_cpu_kernels_of(context)->sum_of_squares(x + tile.first, tile.count);
        }
        for (int64_t i = 0; i < tiles; i++)
            total += sums[i];
    }
    return total;
}

void mg_cpu_average(const struct mg_context *context, float *average, const float *x, int64_t count, float keep,
                    float take) {
    const struct mg_tiling tiling = mg_tiling_of(1, count, 1);
    const float factors[3] = {keep, take, 0.0f};
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        const struct mg_tile tile = mg_tile_at(&tiling, i);
        float *out = average + tile.first;
        mg_cpu_kernels_of(context)->combine(out, out, x + tile.first, NULL, factors, tile.count);
    }
}
