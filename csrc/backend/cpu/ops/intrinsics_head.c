/* intrinsics_head.c: what the decoder says of a pixel, to values in [0, 1]: clipped to [-1, 1], then (y + 1) / 2.
 * Called by cpu_backend.c. */
#include "tiles.h"

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->in[0];
    const float *x = call->in[0];
    float *out = call->out;
    struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape) * shape->dim[3], 1);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        struct mg_tile tile = mg_tile_at(&tiling, i);
        for (int64_t p = tile.first; p < tile.first + tile.count; p++) {
            float y = x[p] < -1.0f ? -1.0f : x[p] > 1.0f ? 1.0f : x[p];
            out[p] = (y + 1.0f) * 0.5f;
        }
    }
}

const struct mg_cpu_driver mg_cpu_intrinsics_head = {.run = run};
