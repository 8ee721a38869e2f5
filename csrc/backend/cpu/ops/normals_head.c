/* normals_head.c: what the decoder says of a pixel, to a unit normal: clipped to [-1, 1], z mapped to [0, 1] if the model
 * uses half its range, divided by its length. */
#include <math.h>

#include "tiles.h"

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const bool full_z = call->op->params.normals_head.full_z;
    const float *x = call->in[0];
    float *out = call->out;
    (void)context;
    for (int64_t p = tile.first; p < tile.first + tile.count; p++) {
        float n[3];
        for (int c = 0; c < 3; c++)
            n[c] = x[p * 3 + c] < -1.0f ? -1.0f : x[p * 3 + c] > 1.0f ? 1.0f : x[p * 3 + c];
        if (!full_z)
            n[2] = n[2] * 0.5f + 0.5f;
        float length = sqrtf(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);
        /* A NaN must reach the output: the comparison keeps it. */
        float divisor = length < 1e-6f ? 1e-6f : length;
        for (int c = 0; c < 3; c++)
            out[p * 3 + c] = n[c] / divisor;
    }
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_pixel_tiles(&call->op->in[0]), run_tile);
}

const struct mg_cpu_driver mg_cpu_normals_head = {.run = run};
