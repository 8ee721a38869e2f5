/* add.c: sum of two activations, the second perhaps of size 1 in N, H or W. Called by cpu_backend.c; calls the kernel
 * table. */
#include "tiles.h"

/* b has the pixels of a: whole tiles at once. */
static void add_images(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->out;
    const struct mg_cpu_elements *elements = mg_cpu_elements_of(context, shape);
    const int64_t bytes = mg_element_bytes(shape);
    const char *a = call->in[0], *b = call->in[1];
    char *out = call->out;
    int64_t count = mg_image_pixels(shape) * shape->dim[3];
    int64_t b_image = call->op->in[1].dim[0] == 1 ? 0 : count;
    struct mg_tiling tiling = mg_tiling_of(shape->dim[0], count, 1);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        struct mg_tile tile = mg_tile_at(&tiling, i);
        elements->add(out + tile.first * bytes, a + tile.first * bytes, b + (tile.image * b_image + tile.begin) * bytes,
                      tile.count);
    }
}

/* b is spread over rows or columns: pixel by pixel. */
static void add_pixels(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->out, *small = &call->op->in[1];
    const struct mg_cpu_elements *elements = mg_cpu_elements_of(context, shape);
    const int64_t bytes = mg_element_bytes(shape);
    const char *a = call->in[0], *b = call->in[1];
    char *out = call->out;
    int64_t w = shape->dim[2], c = shape->dim[3];
    int64_t b_column = small->dim[2] == 1 ? 0 : c;
    int64_t b_row = small->dim[1] == 1 ? 0 : small->dim[2] * c;
    int64_t b_image = small->dim[0] == 1 ? 0 : small->dim[1] * small->dim[2] * c;
    struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape), c);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        struct mg_tile tile = mg_tile_at(&tiling, i);
        for (int64_t p = 0; p < tile.count; p++) {
            int64_t pixel = tile.begin + p, at = (tile.first + p) * c;
            const char *addend = b + (tile.image * b_image + pixel / w * b_row + pixel % w * b_column) * bytes;
            elements->add(out + at * bytes, a + at * bytes, addend, c);
        }
    }
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *a = &call->op->in[0], *b = &call->op->in[1];
    if (a->dim[1] == b->dim[1] && a->dim[2] == b->dim[2])
        add_images(context, call);
    else
        add_pixels(context, call);
}

const struct mg_cpu_driver mg_cpu_add = {.run = run};
