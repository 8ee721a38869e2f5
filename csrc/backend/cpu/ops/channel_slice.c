/* channel_slice.c: some consecutive channels of an activation. Called by cpu_backend.c. */
#include <string.h>

#include "tiles.h"

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->out;
    const int64_t bytes = mg_element_bytes(shape);
    const char *x = (const char *)call->in[0] + call->op->params.slice.begin * bytes;
    char *out = call->out;
    int64_t c = shape->dim[3], x_c = call->op->in[0].dim[3];
    struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape), c);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        struct mg_tile tile = mg_tile_at(&tiling, i);
        for (int64_t p = tile.first; p < tile.first + tile.count; p++)
            memcpy(out + p * c * bytes, x + p * x_c * bytes, (size_t)(c * bytes));
    }
}

const struct mg_cpu_driver mg_cpu_channel_slice = {.run = run};
