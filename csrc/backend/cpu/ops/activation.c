/* activation.c: an activation function of every element. Called by cpu_backend.c; calls the kernel table. */
#include "tiles.h"

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_cpu_kernels *kernels = mg_cpu_kernels_of(context);
    const struct mg_tensor *shape = &call->op->out;
    const float *x = call->in[0];
    float *out = call->out;
    struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape) * shape->dim[3], 1);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        struct mg_tile tile = mg_tile_at(&tiling, i);
        kernels->activate(out + tile.first, x + tile.first, tile.count, call->op->params.activation);
    }
}

const struct mg_cpu_driver mg_cpu_activation = {.run = run};
