/* concat.c: the channels of one activation, then those of another. */
#include <string.h>

#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const int64_t bytes = mg_element_bytes(&call->op->out);
    const int64_t a = call->op->in[0].dim[3] * bytes, both = call->op->out.dim[3] * bytes, b = both - a;
    (void)context;
    for (int64_t p = tile.first; p < tile.first + tile.count; p++) {
        char *out = (char *)call->out + p * both;
        memcpy(out, (const char *)call->in[0] + p * a, (size_t)a);
        memcpy(out + a, (const char *)call->in[1] + p * b, (size_t)b);
    }
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_pixel_tiles(&call->op->out), run_tile);
}

const struct mg_cpu_driver mg_cpu_concat = {.run = run};
