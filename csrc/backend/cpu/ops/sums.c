/* sums.c: sums over pixels: gradients of biases and of norms' parameters, and of what was spread over images or pixels.
 * Called by cpu_backend.c; calls the kernel table.
 *
 * vector_gradient: each block of an image's pixels in double; the blocks of an image merged in order and rounded when they
 * are added to the sum, so that images give what they give one by one. Workspace: sums[image][block][C] doubles. */
#include <omp.h>
#include <string.h>

#include "tiles.h"

enum { MAX_BLOCKS = 64 };

/* Of the pixels in the columns that are summed. */
static struct mg_tiling blocks_of(const struct mg_op_shape *op) {
    const int64_t *dim = op->in[0].dim;
    struct mg_tiling tiling = mg_tiling_of(dim[0], dim[1] * op->params.slice.count, dim[3]);
    const int64_t least = mg_ceil_div(tiling.units, MAX_BLOCKS);
    if (tiling.tile < least)
        tiling.tile = least;
    tiling.per_image = mg_ceil_div(tiling.units, tiling.tile);
    tiling.total = tiling.images * tiling.per_image;
    return tiling;
}

static size_t vector_workspace(const struct mg_context *context, const struct mg_op_shape *op) {
    (void)context;
    size_t bytes;
    return mg_size_mul(&bytes, (size_t)blocks_of(op).total, (size_t)op->in[0].dim[3] * sizeof(double)) ? bytes
                                                                                                       : SIZE_MAX;
}

/* Runs of pixels that lie side by side: whole blocks if all columns are summed. */
static void sum_block(const struct mg_context *context, const struct mg_op_call *call, const struct mg_tiling *tiling,
                      int64_t index) {
    const struct mg_slice *p = &call->op->params.slice;
    const int64_t *dim = call->op->in[0].dim, c = dim[3], run = p->count == dim[2] ? tiling->units : p->count;
    const struct mg_tile tile = mg_tile_at(tiling, index);
    const float *image = (const float *)call->in[0] + tile.image * dim[1] * dim[2] * c;
    double *sum = (double *)call->workspace + index * c;
    memset(sum, 0, (size_t)c * sizeof *sum);
    for (int64_t at = tile.begin; at < tile.begin + tile.count;) {
        const int64_t left = run - at % run, rest = tile.begin + tile.count - at, count = left < rest ? left : rest;
        const int64_t pixel = at / p->count * dim[2] + p->begin + at % p->count;
        mg_cpu_kernels_of(context)->column_sums(sum, image + pixel * c, count, c);
        at += count;
    }
}

static void run_vector(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tiling tiling = blocks_of(call->op);
    const int64_t channels = call->op->in[0].dim[3];
    const double *sums = call->workspace;
    const float *sum = call->in[1];
    float *out = call->out;
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++)
        sum_block(context, call, &tiling, i);
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

const struct mg_cpu_driver mg_cpu_vector_gradient = {
    .run = run_vector, .workspace_bytes = vector_workspace, .widened = true};

/* ---- reduce: a pixel of the result after the other; sums[thread][C] doubles ---- */

static size_t reduce_workspace(const struct mg_context *context, const struct mg_op_shape *op) {
    size_t bytes;
    return mg_size_mul(&bytes, mg_aligned_bytes(op->out.dim[3], sizeof(double)), (size_t)context->num_threads)
               ? bytes
               : SIZE_MAX;
}

/* The input's pixels that make pixel (n, y, x) of the result. */
static void reduce_pixel(const struct mg_context *context, const struct mg_op_call *call, int64_t index, double *sum) {
    const int64_t *big = call->op->in[0].dim, *small = call->op->out.dim, c = big[3];
    const int64_t n = index / (small[1] * small[2]), y = index / small[2] % small[1], x = index % small[2];
    const int64_t columns = big[2] / small[2];
    float *out = (float *)call->out + index * c;
    memset(sum, 0, (size_t)c * sizeof *sum);
    for (int64_t image = n; image < n + big[0] / small[0]; image++)
        for (int64_t row = y; row < y + big[1] / small[1]; row++)
            mg_cpu_kernels_of(context)->column_sums(
                sum, (const float *)call->in[0] + ((image * big[1] + row) * big[2] + x) * c, columns, c);
    for (int64_t i = 0; i < c; i++)
        out[i] = (float)sum[i];
}

static void run_reduce(const struct mg_context *context, const struct mg_op_call *call) {
    const int64_t *small = call->op->out.dim, pixels = small[0] * small[1] * small[2];
    const size_t bytes = mg_aligned_bytes(small[3], sizeof(double));
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (pixels > 1)
    for (int64_t i = 0; i < pixels; i++)
        reduce_pixel(context, call, i, (double *)((char *)call->workspace + (size_t)omp_get_thread_num() * bytes));
}

const struct mg_cpu_driver mg_cpu_reduce = {.run = run_reduce, .workspace_bytes = reduce_workspace, .widened = true};
