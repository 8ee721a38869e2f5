/* channel_slice.c: some consecutive channels of an activation. */
#include <string.h>

#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const int64_t bytes = mg_element_bytes(&call->op->out), row = call->op->out.dim[3] * bytes;
    const char *x = (const char *)call->in[0] + call->op->params.slice.begin * bytes;
    (void)context;
    for (int64_t p = tile.first; p < tile.first + tile.count; p++)
        memcpy((char *)call->out + p * row, x + p * call->op->in[0].dim[3] * bytes, (size_t)row);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_pixel_tiles(&call->op->out), run_tile);
}

const struct mg_cpu_driver mg_cpu_channel_slice = {.run = run};
