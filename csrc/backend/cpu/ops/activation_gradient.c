/* activation_gradient.c: dy times the derivative of the activation at x. */
#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const float *x = call->in[0], *dy = call->in[1];
    mg_cpu_kernels_of(context)->activation_gradient((float *)call->out + tile.first, x + tile.first, dy + tile.first,
                                                    tile.count, call->op->params.activation);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_element_tiles(&call->op->out), run_tile);
}

const struct mg_cpu_driver mg_cpu_activation_gradient = {.run = run, .widened = true};
