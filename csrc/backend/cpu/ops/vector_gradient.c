/* vector_gradient.c: sums over pixels: gradients of biases and of norms' parameters. Each block of an image's pixels in double; the
 * blocks of an image merged in order and rounded when they are added to the sum, so that images give what they give one by
 * one. Workspace: sums[image][block][C] doubles. */
#include <string.h>

#include "tiles.h"

/* Of the pixels in the columns that are summed. */
static struct mg_tiling blocks_of(const struct mg_op_shape *op) {
    const int64_t *dim = op->in[0].dim;
    return mg_blocks_of(dim[0], dim[1] * op->params.slice.count, dim[3]);
}

static size_t workspace_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    (void)context;
    size_t bytes;
    return mg_size_mul(&bytes, (size_t)blocks_of(op).total, (size_t)op->in[0].dim[3] * sizeof(double)) ? bytes
                                                                                                       : SIZE_MAX;
}

/* Runs of pixels that lie side by side: whole blocks if all columns are summed. */
static void sum_block(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const struct mg_slice *p = &call->op->params.slice;
    const int64_t *dim = call->op->in[0].dim, c = dim[3], run = p->count == dim[2] ? dim[1] * dim[2] : p->count;
    const float *image = (const float *)call->in[0] + tile.image * dim[1] * dim[2] * c;
    double *sum = (double *)call->workspace + tile.index * c;
    memset(sum, 0, (size_t)c * sizeof *sum);
    for (int64_t at = tile.begin; at < tile.begin + tile.count;) {
        const int64_t left = run - at % run, rest = tile.begin + tile.count - at, count = left < rest ? left : rest;
        const int64_t pixel = at / p->count * dim[2] + p->begin + at % p->count;
        mg_cpu_kernels_of(context)->column_sums(sum, image + pixel * c, count, c);
        at += count;
    }
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tiling tiling = blocks_of(call->op);
    const int64_t channels = call->op->in[0].dim[3];
    const double *sums = call->workspace;
    const float *sum = call->in[1];
    float *out = call->out;
    mg_run_tiles(context, call, tiling, sum_block);
    for (int64_t c = 0; c < channels; c++) {
        float total = sum[c];
        for (int64_t n = 0; n < tiling.images; n++) {
            double image = 0.0;
            for (int64_t block = 0; block < tiling.per_image; block++)
                image += sums[(n * tiling.per_image + block) * channels + c];
            total = (float)(total + image);
        }
        out[c] = total;
    }
}

const struct mg_cpu_driver mg_cpu_vector_gradient = {.run = run, .workspace_bytes = workspace_bytes, .widened = true};
