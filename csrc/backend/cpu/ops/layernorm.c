/* layernorm.c: normalisation of each pixel (token) over its channels. Called by cpu_backend.c; calls the kernel
 * table. */
#include "tiles.h"

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->out;
    const struct mg_cpu_elements *elements = mg_cpu_elements_of(context, shape);
    const int64_t bytes = mg_element_bytes(shape);
    const float *gamma = call->in[1], *beta = call->in[2];
    const char *x = call->in[0];
    char *out = call->out;
    int64_t c = shape->dim[3];
    struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape), c);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        struct mg_tile tile = mg_tile_at(&tiling, i);
        elements->layernorm(out + tile.first * c * bytes, x + tile.first * c * bytes, gamma, beta, tile.count, c,
                            call->op->params.layernorm.epsilon);
    }
}

const struct mg_cpu_driver mg_cpu_layernorm = {.run = run};
