/* groupnorm_gradient.c: gradient of group normalisation: sums over pixels first, block by block in double and merged in order as
 * in groupnorm.c, then the gradient of x. */
#include <math.h>
#include <string.h>

#include "channel_sums.h"

/* ---- group normalisation: sums ---- */

/* Mean and 1 / deviation of one group into the first two rows of the result, from sums relative to the first pixel. */
static void find_statistics(const struct mg_op_call *call, const struct mg_tiling *tiling, int64_t image,
                            int64_t group) {
    const struct mg_groupnorm *p = &call->op->params.groupnorm;
    const int64_t channels = call->op->in[0].dim[3], columns = channels / p->groups, first = group * columns;
    const float *shift = (const float *)call->in[0] + image * tiling->units * channels;
    const double pixels = (double)tiling->units, *sums = call->workspace;
    float *out = (float *)call->out + image * 4 * channels;
    double mean = 0.0, variance = 0.0;
    for (int64_t c = first; c < first + columns; c++)
        mean += mg_merged_sum(sums, tiling, image, 0, c, channels) + pixels * (double)shift[c];
    mean /= pixels * (double)columns;
    for (int64_t c = first; c < first + columns; c++) {
        const double d = mean - (double)shift[c];
        variance += mg_merged_sum(sums, tiling, image, 1, c, channels) -
                    d * (2.0 * mg_merged_sum(sums, tiling, image, 0, c, channels) - pixels * d);
    }
    variance /= pixels * (double)columns;
    const double inverse = 1.0 / sqrt((variance < 0.0 ? 0.0 : variance) + (double)p->epsilon);
    for (int64_t c = first; c < first + columns; c++) {
        out[c] = (float)mean;
        out[channels + c] = (float)inverse;
    }
}

struct pass {
    const struct mg_cpu_kernels *kernels;
    const struct mg_op_call *call;
    struct mg_tiling tiling;
};

/* Sums of a block of x relative to the image's first pixel. */
static void sum_values(const void *user, int64_t begin, int64_t end, int thread) {
    const struct pass *pass = user;
    const int64_t channels = pass->call->op->in[0].dim[3];
    const float *x = pass->call->in[0];
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const struct mg_tile tile = mg_tile_at(&pass->tiling, i);
        double *sum = (double *)pass->call->workspace + i * 2 * channels;
        memset(sum, 0, (size_t)(2 * channels) * sizeof *sum);
        pass->kernels->of[MG_CPU_F32].channel_sums(sum, sum + channels, x + tile.first * channels,
                                                   x + tile.image * pass->tiling.units * channels, tile.count,
                                                   channels);
    }
}

static void find_all_statistics(const void *user, int64_t begin, int64_t end, int thread) {
    const struct pass *pass = user;
    const int64_t groups = pass->call->op->params.groupnorm.groups;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        find_statistics(pass->call, &pass->tiling, i / groups, i % groups);
}

/* Sums of a block of g, and of g times normalised x. */
static void sum_gradients(const void *user, int64_t begin, int64_t end, int thread) {
    const struct pass *pass = user;
    const struct mg_op_call *call = pass->call;
    const int64_t channels = call->op->in[0].dim[3];
    const float *x = call->in[0], *dy = call->in[3];
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const struct mg_tile tile = mg_tile_at(&pass->tiling, i);
        const float *statistics = (const float *)call->out + tile.image * 4 * channels;
        const struct mg_cpu_normal normal = {
            .mean = statistics, .inverse = statistics + channels, .gamma = call->in[1], .beta = call->in[2]};
        double *sum = (double *)call->workspace + i * 2 * channels;
        memset(sum, 0, (size_t)(2 * channels) * sizeof *sum);
        pass->kernels->normal_sums(sum, sum + channels, x + tile.first * channels, dy + tile.first * channels, &normal,
                                   tile.count, channels, call->op->params.groupnorm.silu);
    }
}

/* For each image and channel, into the last two rows of the result. */
static void merge_gradients(const void *user, int64_t begin, int64_t end, int thread) {
    const struct pass *pass = user;
    const int64_t channels = pass->call->op->in[0].dim[3];
    float *out = pass->call->out;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        for (int64_t which = 0; which < 2; which++)
            out[(i / channels * 4 + 2 + which) * channels + i % channels] =
                (float)mg_merged_sum(pass->call->workspace, &pass->tiling, i / channels, which, i % channels, channels);
}

static void groupnorm_sums_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct pass pass = {
        .kernels = mg_cpu_kernels_of(context), .call = call, .tiling = mg_pixel_blocks(&call->op->in[0])};
    const int64_t images = pass.tiling.images;
    /* Where there is one block, handing out the rest costs more than it does. */
    const int threads = pass.tiling.total > 1 ? context->num_threads : 1;
    mg_parallel_for(threads, pass.tiling.total, sum_values, &pass);
    mg_parallel_for(threads, images * call->op->params.groupnorm.groups, find_all_statistics, &pass);
    mg_parallel_for(threads, pass.tiling.total, sum_gradients, &pass);
    mg_parallel_for(threads, images * call->op->in[0].dim[3], merge_gradients, &pass);
}

const struct mg_cpu_driver mg_cpu_groupnorm_sums = {
    .run = groupnorm_sums_run, .workspace_bytes = mg_channel_sums_bytes, .widened = true};

/* ---- group normalisation: gradient; workspace: gain[image][C], average, projection ---- */
static size_t gradient_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    (void)context;
    return mg_workspace_floats(3 * (size_t)op->in[0].dim[3], (size_t)op->in[0].dim[0], 0);
}

static void find_coefficients(const struct mg_op_call *call, int64_t image, int64_t group, float *gain) {
    const int64_t *dim = call->op->in[0].dim, channels = dim[3];
    const int64_t columns = channels / call->op->params.groupnorm.groups, first = group * columns;
    const double count = (double)(dim[1] * dim[2] * columns);
    const float *sums = (const float *)call->in[4] + image * 4 * channels, *gamma = call->in[1];
    double average = 0.0, projection = 0.0;
    for (int64_t c = first; c < first + columns; c++) {
        average += (double)gamma[c] * sums[2 * channels + c];
        projection += (double)gamma[c] * sums[3 * channels + c];
    }
    for (int64_t c = first; c < first + columns; c++) {
        const double inverse = sums[channels + c];
        gain[c] = (float)(inverse * (double)gamma[c]);
        gain[channels + c] = (float)(inverse * average / count);
        gain[2 * channels + c] = (float)(inverse * projection / count);
    }
}

static void groupnorm_gradient_tile(const struct mg_context *context, const struct mg_op_call *call,
                                    struct mg_tile tile) {
    const int64_t channels = call->op->in[0].dim[3], at = tile.first * channels;
    const float *statistics = (const float *)call->in[4] + tile.image * 4 * channels;
    const float *gain = (const float *)call->workspace + tile.image * 3 * channels;
    const struct mg_cpu_normal normal = {.mean = statistics,
                                         .inverse = statistics + channels,
                                         .gamma = call->in[1],
                                         .beta = call->in[2],
                                         .gain = gain,
                                         .average = gain + channels,
                                         .projection = gain + 2 * channels};
    mg_cpu_kernels_of(context)->normal_gradient((float *)call->out + at, (const float *)call->in[0] + at,
                                                (const float *)call->in[3] + at, &normal, tile.count, channels,
                                                call->op->params.groupnorm.silu);
}

static void groupnorm_gradient_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tiling tiling = mg_pixel_blocks(&call->op->in[0]);
    const int64_t channels = call->op->in[0].dim[3], groups = call->op->params.groupnorm.groups;
    float *coefficients = call->workspace;
    for (int64_t i = 0; i < tiling.images * groups; i++)
        find_coefficients(call, i / groups, i % groups, coefficients + i / groups * 3 * channels);
    mg_run_tiles(context, call, tiling, groupnorm_gradient_tile);
}

const struct mg_cpu_driver mg_cpu_groupnorm_gradient = {
    .run = groupnorm_gradient_run, .workspace_bytes = gradient_bytes, .widened = true};
