/* add.c: sum of two activations, the second perhaps of size 1 in N, H or W. */
#include "tiles.h"

/* b has the pixels of a: whole tiles at once. */
static void add_elements(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const struct mg_tensor *shape = &call->op->out;
    const int64_t bytes = mg_element_bytes(shape), at = tile.first * bytes;
    const int64_t b_image = call->op->in[1].dim[0] == 1 ? 0 : mg_image_pixels(shape) * shape->dim[3];
    mg_cpu_elements_of(context, shape)
        ->add((char *)call->out + at, (const char *)call->in[0] + at,
              (const char *)call->in[1] + (tile.image * b_image + tile.begin) * bytes, tile.count);
}

/* b is broadcast over rows or columns: pixel by pixel. */
static void add_pixels(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const struct mg_tensor *shape = &call->op->out, *small = &call->op->in[1];
    const struct mg_cpu_elements *elements = mg_cpu_elements_of(context, shape);
    const int64_t w = shape->dim[2], c = shape->dim[3], bytes = mg_element_bytes(shape);
    const int64_t b_column = small->dim[2] == 1 ? 0 : c;
    const int64_t b_row = small->dim[1] == 1 ? 0 : small->dim[2] * c;
    const int64_t b_image = small->dim[0] == 1 ? 0 : small->dim[1] * small->dim[2] * c;
    for (int64_t p = 0; p < tile.count; p++) {
        const int64_t pixel = tile.begin + p, at = (tile.first + p) * c * bytes;
        const int64_t b = tile.image * b_image + pixel / w * b_row + pixel % w * b_column;
        elements->add((char *)call->out + at, (const char *)call->in[0] + at, (const char *)call->in[1] + b * bytes, c);
    }
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *a = &call->op->in[0], *b = &call->op->in[1];
    if (a->dim[1] == b->dim[1] && a->dim[2] == b->dim[2])
        mg_run_tiles(context, call, mg_element_tiles(&call->op->out), add_elements);
    else
        mg_run_tiles(context, call, mg_pixel_tiles(&call->op->out), add_pixels);
}

const struct mg_cpu_driver mg_cpu_add = {.run = run};
