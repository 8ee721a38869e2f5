/* depth_head.c: what the decoder says of a pixel, to depth in [0, 1]: mean over the channels, clipped to [-1, 1], then
 * (y + 1) / 2. Called by cpu_backend.c. */
#include "tiles.h"

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->in[0];
    const float *x = call->in[0];
    float *out = call->out;
    int64_t c = shape->dim[3];
    struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape), c);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        struct mg_tile tile = mg_tile_at(&tiling, i);
        for (int64_t p = tile.first; p < tile.first + tile.count; p++) {
            float sum = 0.0f;
            for (int64_t k = 0; k < c; k++)
                sum += x[p * c + k];
            float mean = sum / (float)c;
            mean = mean < -1.0f ? -1.0f : mean > 1.0f ? 1.0f : mean;
            out[p] = (mean + 1.0f) * 0.5f;
        }
    }
}

const struct mg_cpu_driver mg_cpu_depth_head = {.run = run};
