/* scheduler_step.c: the previous sample as a combination of the sample, the model's output and noise. */
#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const float *sample = call->in[0], *model_output = call->in[1], *factors = call->in[2], *noise = call->in[3];
    mg_cpu_kernels_of(context)->combine((float *)call->out + tile.first, sample + tile.first, model_output + tile.first,
                                        noise ? noise + tile.first : NULL, factors, tile.count);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_element_tiles(&call->op->out), run_tile);
}

const struct mg_cpu_driver mg_cpu_scheduler_step = {.run = run};
