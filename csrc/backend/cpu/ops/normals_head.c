/* normals_head.c: what the decoder says of a pixel, to a unit normal: clipped to [-1, 1], z mapped to [0, 1] if the model
 * uses half its range, divided by its length. Called by cpu_backend.c. */
#include <math.h>

#include "tiles.h"

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->in[0];
    const bool full_z = call->op->params.normals_head.full_z;
    const float *x = call->in[0];
    float *out = call->out;
    struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape), 3);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        struct mg_tile tile = mg_tile_at(&tiling, i);
        for (int64_t p = tile.first; p < tile.first + tile.count; p++) {
            float n[3];
            for (int c = 0; c < 3; c++)
                n[c] = x[p * 3 + c] < -1.0f ? -1.0f : x[p * 3 + c] > 1.0f ? 1.0f : x[p * 3 + c];
            if (!full_z)
                n[2] = n[2] * 0.5f + 0.5f;
            float length = sqrtf(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);
            /* A NaN must reach the output: the comparison keeps it. */
            float divisor = length < 1e-6f ? 1e-6f : length;
            for (int c = 0; c < 3; c++)
                out[p * 3 + c] = n[c] / divisor;
        }
    }
}

const struct mg_cpu_driver mg_cpu_normals_head = {.run = run};
