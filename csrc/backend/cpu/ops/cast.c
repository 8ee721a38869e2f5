/* cast.c: float32 to bfloat16 and back. Called by cpu_backend.c; calls the kernel table. */
#include "tiles.h"

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_cpu_elements *halves = &mg_cpu_kernels_of(context)->of[MG_CPU_BF16];
    const struct mg_tensor *shape = &call->op->out;
    const bool narrow = shape->dtype == MG_BF16;
    const int64_t from = mg_element_bytes(&call->op->in[0]), to = mg_element_bytes(shape);
    const char *x = call->in[0];
    char *out = call->out;
    struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape) * shape->dim[3], 1);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        struct mg_tile tile = mg_tile_at(&tiling, i);
        if (narrow)
            halves->narrow(out + tile.first * to, (const float *)(x + tile.first * from), tile.count);
        else
            halves->widen((float *)(out + tile.first * to), x + tile.first * from, tile.count);
    }
}

const struct mg_cpu_driver mg_cpu_cast = {.run = run};
