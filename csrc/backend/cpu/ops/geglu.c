/* geglu.c: the first half of the channels times the exact GELU of the second. */
#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const struct mg_cpu_elements *elements = mg_cpu_elements_of(context, &call->op->out);
    const int64_t c = call->op->out.dim[3], row = c * mg_element_bytes(&call->op->out);
    for (int64_t p = tile.first; p < tile.first + tile.count; p++) {
        const char *x = (const char *)call->in[0] + p * 2 * row;
        elements->geglu((char *)call->out + p * row, x, x + row, c);
    }
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_pixel_tiles(&call->op->out), run_tile);
}

const struct mg_cpu_driver mg_cpu_geglu = {.run = run};
