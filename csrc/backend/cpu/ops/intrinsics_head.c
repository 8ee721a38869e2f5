/* intrinsics_head.c: what the decoder says of a pixel, to values in [0, 1]: clipped to [-1, 1], then (y + 1) / 2. */
#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const float *x = call->in[0];
    (void)context;
    for (int64_t p = tile.first; p < tile.first + tile.count; p++) {
        float y = x[p] < -1.0f ? -1.0f : x[p] > 1.0f ? 1.0f : x[p];
        ((float *)call->out)[p] = (y + 1.0f) * 0.5f;
    }
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_element_tiles(&call->op->in[0]), run_tile);
}

const struct mg_cpu_driver mg_cpu_intrinsics_head = {.run = run};
