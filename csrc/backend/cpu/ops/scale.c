/* scale.c: every element times one factor, plus one offset. */
#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const struct mg_scale *scale = &call->op->params.scale;
    const int64_t at = tile.first * mg_element_bytes(&call->op->out);
    mg_cpu_elements_of(context, &call->op->out)
        ->scale((char *)call->out + at, (const char *)call->in[0] + at, scale->factor, scale->offset, tile.count);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_element_tiles(&call->op->out), run_tile);
}

const struct mg_cpu_driver mg_cpu_scale = {.run = run};
