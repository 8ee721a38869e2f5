/* depth_head.c: what the decoder says of a pixel, to depth in [0, 1]: mean over the channels, clipped to [-1, 1], then
 * (y + 1) / 2. */
#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const int64_t c = call->op->in[0].dim[3];
    const float *x = call->in[0];
    (void)context;
    for (int64_t p = tile.first; p < tile.first + tile.count; p++) {
        float sum = 0.0f;
        for (int64_t k = 0; k < c; k++)
            sum += x[p * c + k];
        float mean = sum / (float)c;
        mean = mean < -1.0f ? -1.0f : mean > 1.0f ? 1.0f : mean;
        ((float *)call->out)[p] = (mean + 1.0f) * 0.5f;
    }
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_pixel_tiles(&call->op->in[0]), run_tile);
}

const struct mg_cpu_driver mg_cpu_depth_head = {.run = run};
