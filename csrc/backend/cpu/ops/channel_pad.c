/* channel_pad.c: zeros but for some consecutive channels: the gradient of channel_slice. */
#include <string.h>

#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const struct mg_slice *p = &call->op->params.slice;
    const int64_t channels = call->op->out.dim[3];
    const float *x = call->in[0];
    float *out = (float *)call->out + tile.first * channels;
    (void)context;
    memset(out, 0, (size_t)(tile.count * channels) * sizeof *out);
    for (int64_t pixel = 0; pixel < tile.count; pixel++)
        memcpy(out + pixel * channels + p->begin, x + (tile.first + pixel) * p->count, (size_t)p->count * sizeof *out);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_pixel_tiles(&call->op->out), run_tile);
}

const struct mg_cpu_driver mg_cpu_channel_pad = {.run = run, .widened = true};
