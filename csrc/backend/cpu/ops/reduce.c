/* reduce.c: sums over those of N, H and W in which the output has size 1: gradients of what was broadcast over images or pixels. A
 * pixel of the result after the other. Workspace: sums[thread][C] doubles. */
#include <string.h>

#include "tiles.h"

static size_t workspace_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
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

struct reduction {
    const struct mg_context *context;
    const struct mg_op_call *call;
};

static void reduce_pixels(const void *user, int64_t begin, int64_t end, int thread) {
    const struct reduction *r = user;
    const size_t bytes = mg_aligned_bytes(r->call->op->out.dim[3], sizeof(double));
    for (int64_t i = begin; i < end; i++)
        reduce_pixel(r->context, r->call, i, (double *)((char *)r->call->workspace + (size_t)thread * bytes));
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const int64_t *small = call->op->out.dim;
    const struct reduction r = {.context = context, .call = call};
    mg_parallel_for(context->num_threads, small[0] * small[1] * small[2], reduce_pixels, &r);
}

const struct mg_cpu_driver mg_cpu_reduce = {.run = run, .workspace_bytes = workspace_bytes, .widened = true};
