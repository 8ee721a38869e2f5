/* scale.c: every element times one factor, plus one offset. Called by cpu_backend.c; calls the kernel table. */
#include "tiles.h"

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->out;
    const struct mg_cpu_elements *elements = mg_cpu_elements_of(context, shape);
    const int64_t bytes = mg_element_bytes(shape);
    const struct mg_scale *scale = &call->op->params.scale;
    const char *x = call->in[0];
    char *out = call->out;
    struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape) * shape->dim[3], 1);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        struct mg_tile tile = mg_tile_at(&tiling, i);
        elements->scale(out + tile.first * bytes, x + tile.first * bytes, scale->factor, scale->offset, tile.count);
    }
}

const struct mg_cpu_driver mg_cpu_scale = {.run = run};
