/* concat.c: the channels of one activation, then those of another. Called by cpu_backend.c. */
#include <string.h>

#include "tiles.h"

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->out;
    const float *a = call->in[0], *b = call->in[1];
    float *out = call->out;
    int64_t c = shape->dim[3], a_c = call->op->in[0].dim[3], b_c = c - a_c;
    struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape), c);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        struct mg_tile tile = mg_tile_at(&tiling, i);
        for (int64_t p = tile.first; p < tile.first + tile.count; p++) {
            memcpy(out + p * c, a + p * a_c, (size_t)a_c * sizeof(float));
            memcpy(out + p * c + a_c, b + p * b_c, (size_t)b_c * sizeof(float));
        }
    }
}

const struct mg_cpu_driver mg_cpu_concat = {.run = run};
