/* geglu_gradient.c: gradient of the value half and of the gate half of GEGLU's input. */
#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const int64_t c = call->op->in[1].dim[3];
    const float *x = call->in[0], *dy = call->in[1];
    float *out = call->out;
    for (int64_t p = tile.first; p < tile.first + tile.count; p++)
        mg_cpu_kernels_of(context)->geglu_gradient(out + p * 2 * c, out + p * 2 * c + c, x + p * 2 * c,
                                                   x + p * 2 * c + c, dy + p * c, c);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_pixel_tiles(&call->op->in[1]), run_tile);
}

const struct mg_cpu_driver mg_cpu_geglu_gradient = {.run = run, .widened = true};
