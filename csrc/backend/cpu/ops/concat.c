/* concat.c: the channels of one activation, then those of another. Called by cpu_backend.c. */
#include <string.h>

#include "tiles.h"

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->out;
    const char *a = call->in[0], *b = call->in[1];
    char *out = call->out;
    int64_t c = shape->dim[3], bytes = mg_element_bytes(shape);
    int64_t a_bytes = call->op->in[0].dim[3] * bytes, b_bytes = c * bytes - a_bytes;
    struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape), c);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        struct mg_tile tile = mg_tile_at(&tiling, i);
        for (int64_t p = tile.first; p < tile.first + tile.count; p++) {
            memcpy(out + p * c * bytes, a + p * a_bytes, (size_t)a_bytes);
            memcpy(out + p * c * bytes + a_bytes, b + p * b_bytes, (size_t)b_bytes);
        }
    }
}

const struct mg_cpu_driver mg_cpu_concat = {.run = run};
