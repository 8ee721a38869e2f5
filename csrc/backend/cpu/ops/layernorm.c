/* layernorm.c: normalisation of each pixel (token) over its channels. */
#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const struct mg_tensor *shape = &call->op->out;
    const int64_t c = shape->dim[3], at = tile.first * c * mg_element_bytes(shape);
    mg_cpu_elements_of(context, shape)
        ->layernorm((char *)call->out + at, (const char *)call->in[0] + at, call->in[1], call->in[2], tile.count, c,
                    call->op->params.layernorm.epsilon);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_pixel_tiles(&call->op->out), run_tile);
}

const struct mg_cpu_driver mg_cpu_layernorm = {.run = run};
