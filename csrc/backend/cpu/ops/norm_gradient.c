/* norm_gradient.c: gradients of group and layer normalisation. Called by cpu_backend.c; calls the kernel table.
 *
 * Sums over pixels are taken block by block in double and merged in order, as in groupnorm.c. */
#include <math.h>
#include <string.h>

#include "tiles.h"

enum { MAX_BLOCKS = 64 };

static struct mg_tiling blocks_of(const struct mg_tensor *x) {
    struct mg_tiling tiling = mg_tiling_of(x->dim[0], mg_image_pixels(x), x->dim[3]);
    const int64_t least = mg_ceil_div(tiling.units, MAX_BLOCKS);
    if (tiling.tile < least)
        tiling.tile = least;
    tiling.per_image = mg_ceil_div(tiling.units, tiling.tile);
    tiling.total = tiling.images * tiling.per_image;
    return tiling;
}

/* Two sums of every channel for every block: sums[image][block][2][C]. */
static size_t sums_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    (void)context;
    size_t bytes;
    return mg_size_mul(&bytes, 2 * (size_t)blocks_of(&op->in[0]).total, (size_t)op->in[0].dim[3] * sizeof(double))
               ? bytes
               : SIZE_MAX;
}

/* Of the blocks of one image, in order. */
static double merged(const double *sums, const struct mg_tiling *tiling, int64_t image, int64_t which, int64_t c,
                     int64_t channels) {
    double sum = 0.0;
    for (int64_t block = 0; block < tiling->per_image; block++)
        sum += sums[((image * tiling->per_image + block) * 2 + which) * channels + c];
    return sum;
}

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
        mean += merged(sums, tiling, image, 0, c, channels) + pixels * (double)shift[c];
    mean /= pixels * (double)columns;
    for (int64_t c = first; c < first + columns; c++) {
        const double d = mean - (double)shift[c];
        variance += merged(sums, tiling, image, 1, c, channels) -
                    d * (2.0 * merged(sums, tiling, image, 0, c, channels) - pixels * d);
    }
    variance /= pixels * (double)columns;
    const double inverse = 1.0 / sqrt((variance < 0.0 ? 0.0 : variance) + (double)p->epsilon);
    for (int64_t c = first; c < first + columns; c++) {
        out[c] = (float)mean;
        out[channels + c] = (float)inverse;
    }
}

static void groupnorm_sums_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_cpu_kernels *kernels = mg_cpu_kernels_of(context);
    const struct mg_groupnorm *p = &call->op->params.groupnorm;
    const struct mg_tiling tiling = blocks_of(&call->op->in[0]);
    const int64_t channels = call->op->in[0].dim[3], groups = tiling.images * p->groups;
    const float *x = call->in[0], *dy = call->in[3];
    float *out = call->out;
    double *sums = call->workspace;
#pragma omp parallel num_threads(context->num_threads) if (tiling.total > 1)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tiling.total; i++) {
            const struct mg_tile tile = mg_tile_at(&tiling, i);
            double *sum = memset(sums + i * 2 * channels, 0, (size_t)(2 * channels) * sizeof *sums);
            kernels->of[MG_CPU_F32].channel_sums(sum, sum + channels, x + tile.first * channels,
                                                 x + tile.image * tiling.units * channels, tile.count, channels);
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < groups; i++)
            find_statistics(call, &tiling, i / p->groups, i % p->groups);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tiling.total; i++) {
            const struct mg_tile tile = mg_tile_at(&tiling, i);
            const float *statistics = out + tile.image * 4 * channels;
            const struct mg_cpu_normal normal = {
                .mean = statistics, .inverse = statistics + channels, .gamma = call->in[1], .beta = call->in[2]};
            double *sum = memset(sums + i * 2 * channels, 0, (size_t)(2 * channels) * sizeof *sums);
            kernels->normal_sums(sum, sum + channels, x + tile.first * channels, dy + tile.first * channels, &normal,
                                 tile.count, channels, p->silu);
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tiling.images * channels; i++)
            for (int64_t which = 0; which < 2; which++)
                out[(i / channels * 4 + 2 + which) * channels + i % channels] =
                    (float)merged(sums, &tiling, i / channels, which, i % channels, channels);
    }
}

const struct mg_cpu_driver mg_cpu_groupnorm_sums = {
    .run = groupnorm_sums_run, .workspace_bytes = sums_bytes, .widened = true};

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

static void groupnorm_gradient_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_groupnorm *p = &call->op->params.groupnorm;
    const struct mg_tiling tiling = blocks_of(&call->op->in[0]);
    const int64_t channels = call->op->in[0].dim[3];
    const float *x = call->in[0], *dy = call->in[3];
    float *out = call->out, *coefficients = call->workspace;
    for (int64_t i = 0; i < tiling.images * p->groups; i++)
        find_coefficients(call, i / p->groups, i % p->groups, coefficients + i / p->groups * 3 * channels);
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        const struct mg_tile tile = mg_tile_at(&tiling, i);
        const float *statistics = (const float *)call->in[4] + tile.image * 4 * channels;
        const float *gain = coefficients + tile.image * 3 * channels;
        const struct mg_cpu_normal normal = {.mean = statistics,
                                             .inverse = statistics + channels,
                                             .gamma = call->in[1],
                                             .beta = call->in[2],
                                             .gain = gain,
                                             .average = gain + channels,
                                             .projection = gain + 2 * channels};
        const int64_t at = tile.first * channels;
        mg_cpu_kernels_of(context)->normal_gradient(out + at, x + at, dy + at, &normal, tile.count, channels, p->silu);
    }
}

const struct mg_cpu_driver mg_cpu_groupnorm_gradient = {
    .run = groupnorm_gradient_run, .workspace_bytes = gradient_bytes, .widened = true};

/* ---- layer normalisation ---- */
static void layernorm_sums_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tiling tiling = blocks_of(&call->op->in[0]);
    const int64_t channels = call->op->in[0].dim[3];
    const float *x = call->in[0], *dy = call->in[1];
    float *out = call->out;
    double *sums = call->workspace;
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        const struct mg_tile tile = mg_tile_at(&tiling, i);
        double *sum = memset(sums + i * 2 * channels, 0, (size_t)(2 * channels) * sizeof *sums);
        mg_cpu_kernels_of(context)->layernorm_sums(sum, sum + channels, x + tile.first * channels,
                                                   dy + tile.first * channels, tile.count, channels,
                                                   call->op->params.layernorm.epsilon);
    }
    for (int64_t i = 0; i < tiling.images * 2 * channels; i++)
        out[i] = (float)merged(sums, &tiling, i / (2 * channels), i / channels % 2, i % channels, channels);
}

const struct mg_cpu_driver mg_cpu_layernorm_sums = {
    .run = layernorm_sums_run, .workspace_bytes = sums_bytes, .widened = true};

static void layernorm_gradient_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->out;
    const struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape), shape->dim[3]);
    const int64_t channels = shape->dim[3];
    const float *x = call->in[0], *dy = call->in[2];
    float *out = call->out;
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        const struct mg_tile tile = mg_tile_at(&tiling, i);
        const int64_t at = tile.first * channels;
        mg_cpu_kernels_of(context)->layernorm_gradient(out + at, x + at, call->in[1], dy + at, tile.count, channels,
                                                       call->op->params.layernorm.epsilon);
    }
}

const struct mg_cpu_driver mg_cpu_layernorm_gradient = {.run = layernorm_gradient_run, .widened = true};
