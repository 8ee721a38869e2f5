/* layernorm_gradient.c: gradient of layer normalisation: sums over pixels, block by block in double, and the gradient of x. */
#include <string.h>

#include "channel_sums.h"

static void sum_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const int64_t channels = call->op->in[0].dim[3], at = tile.first * channels;
    double *sum = (double *)call->workspace + tile.index * 2 * channels;
    memset(sum, 0, (size_t)(2 * channels) * sizeof *sum);
    mg_cpu_kernels_of(context)->layernorm_sums(sum, sum + channels, (const float *)call->in[0] + at,
                                               (const float *)call->in[1] + at, tile.count, channels,
                                               call->op->params.layernorm.epsilon);
}

static void run_sums(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tiling tiling = mg_pixel_blocks(&call->op->in[0]);
    const int64_t channels = call->op->in[0].dim[3];
    float *out = call->out;
    mg_run_tiles(context, call, tiling, sum_tile);
    for (int64_t i = 0; i < tiling.images * 2 * channels; i++)
        out[i] = (float)mg_merged_sum(call->workspace, &tiling, i / (2 * channels), i / channels % 2, i % channels,
                                      channels);
}

const struct mg_cpu_driver mg_cpu_layernorm_sums = {
    .run = run_sums, .workspace_bytes = mg_channel_sums_bytes, .widened = true};

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const int64_t channels = call->op->out.dim[3], at = tile.first * channels;
    mg_cpu_kernels_of(context)->layernorm_gradient((float *)call->out + at, (const float *)call->in[0] + at,
                                                   call->in[1], (const float *)call->in[2] + at, tile.count, channels,
                                                   call->op->params.layernorm.epsilon);
}

static void run_gradient(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_pixel_tiles(&call->op->out), run_tile);
}

const struct mg_cpu_driver mg_cpu_layernorm_gradient = {.run = run_gradient, .widened = true};
