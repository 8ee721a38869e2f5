/* cast.c: float32 to bfloat16 and back. */
#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const struct mg_cpu_elements *halves = &mg_cpu_kernels_of(context)->of[MG_CPU_BF16];
    const char *x = (const char *)call->in[0] + tile.first * mg_element_bytes(&call->op->in[0]);
    char *out = (char *)call->out + tile.first * mg_element_bytes(&call->op->out);
    if (call->op->out.dtype == MG_BF16)
        halves->narrow(out, (const float *)x, tile.count);
    else
        halves->widen((float *)out, x, tile.count);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_element_tiles(&call->op->out), run_tile);
}

const struct mg_cpu_driver mg_cpu_cast = {.run = run};
