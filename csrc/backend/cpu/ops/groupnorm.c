/* groupnorm.c: normalisation over the pixels and the channels of a group, then SiLU if asked.
 *
 * 1. each block of pixels: sum and sum of squares of every channel, relative to the image's first pixel, in double;
 * 2. each image and group: the blocks merged in order, mean and variance, a factor and an offset for each channel;
 * 3. each block of pixels: x * factor + offset.
 * Workspace: sums[image][block][2][C] doubles, then factors[image][C], offsets[image][C], shifts[image][C].
 */
#include <math.h>

#include "tiles.h"

struct pass {
    struct mg_tiling tiling;
    const struct mg_cpu_elements *elements;
    int64_t pixels, c, bytes; /* bytes of an element */
    const char *x;
    const struct mg_op_call *call;
    double *sums;
    float *factors, *offsets, *shifts; /* shifts: the first pixel of each image */
};

static size_t workspace_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    (void)context;
    const struct mg_tensor *x = &op->in[0];
    struct mg_tiling tiling = mg_pixel_blocks(x);
    size_t doubles = 2 * sizeof(double) / sizeof(float), floats;
    if (!mg_size_mul(&floats, doubles * (size_t)tiling.per_image + 3, (size_t)x->dim[3]))
        return SIZE_MAX;
    return mg_workspace_floats(floats, (size_t)x->dim[0], 0);
}

static void sum_block(const struct pass *pass, int64_t index) {
    struct mg_tile tile = mg_tile_at(&pass->tiling, index);
    double *sum = pass->sums + index * 2 * pass->c;
    for (int64_t i = 0; i < 2 * pass->c; i++)
        sum[i] = 0.0;
    pass->elements->channel_sums(sum, sum + pass->c, pass->x + tile.first * pass->c * pass->bytes,
                                 pass->shifts + tile.image * pass->c, tile.count, pass->c);
}

/* Sum of (x - mean)^2 over a channel from its sums relative to `shift`: with d = mean - shift, Q - 2 d S + n d^2. */
static void merge_group(const struct pass *pass, int64_t image, int64_t group) {
    const struct mg_groupnorm *p = &pass->call->op->params.groupnorm;
    const float *gamma = pass->call->in[1], *beta = pass->call->in[2];
    int64_t c = pass->c, count = c / p->groups, begin = group * count;
    const float *shift = pass->shifts + image * c;
    double *sums = pass->sums + image * pass->tiling.per_image * 2 * c;
    double n = (double)pass->pixels, mean = 0.0, variance = 0.0;
    for (int64_t k = begin; k < begin + count; k++) {
        for (int64_t block = 1; block < pass->tiling.per_image; block++) {
            sums[k] += sums[block * 2 * c + k];
            sums[c + k] += sums[block * 2 * c + c + k];
        }
        mean += sums[k] + n * (double)shift[k];
    }
    mean /= n * (double)count;
    for (int64_t k = begin; k < begin + count; k++) {
        double d = mean - (double)shift[k];
        variance += sums[c + k] - d * (2.0 * sums[k] - n * d);
    }
    variance /= n * (double)count;
    double inverse = 1.0 / sqrt((variance < 0.0 ? 0.0 : variance) + (double)p->epsilon);
    for (int64_t k = begin; k < begin + count; k++) {
        double factor = inverse * (double)gamma[k];
        pass->factors[image * c + k] = (float)factor;
        pass->offsets[image * c + k] = (float)((double)beta[k] - mean * factor);
    }
}

static void apply_block(const struct pass *pass, int64_t index) {
    const struct mg_tile tile = mg_tile_at(&pass->tiling, index);
    const int64_t at = tile.first * pass->c * pass->bytes;
    pass->elements->channel_affine((char *)pass->call->out + at, pass->x + at, pass->factors + tile.image * pass->c,
                                   pass->offsets + tile.image * pass->c, tile.count, pass->c,
                                   pass->call->op->params.groupnorm.silu);
}

static void sum_blocks(const void *pass, int64_t begin, int64_t end, int thread) {
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        sum_block(pass, i);
}

static void merge_groups(const void *pass, int64_t begin, int64_t end, int thread) {
    const int64_t groups = ((const struct pass *)pass)->call->op->params.groupnorm.groups;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        merge_group(pass, i / groups, i % groups);
}

static void apply_blocks(const void *pass, int64_t begin, int64_t end, int thread) {
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        apply_block(pass, i);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->in[0];
    struct pass pass = {.tiling = mg_pixel_blocks(shape),
                        .elements = mg_cpu_elements_of(context, shape),
                        .pixels = mg_image_pixels(shape),
                        .c = shape->dim[3],
                        .bytes = mg_element_bytes(shape),
                        .x = call->in[0],
                        .call = call,
                        .sums = call->workspace};
    pass.factors = (float *)(pass.sums + pass.tiling.total * 2 * pass.c);
    pass.offsets = pass.factors + shape->dim[0] * pass.c;
    pass.shifts = pass.offsets + shape->dim[0] * pass.c;
    for (int64_t n = 0; n < shape->dim[0]; n++)
        pass.elements->widen(pass.shifts + n * pass.c, pass.x + n * pass.pixels * pass.c * pass.bytes, pass.c);
    /* Where there is one block, handing out the groups costs more than they do. */
    const int threads = pass.tiling.total > 1 ? context->num_threads : 1;
    mg_parallel_for(threads, pass.tiling.total, sum_blocks, &pass);
    mg_parallel_for(threads, shape->dim[0] * call->op->params.groupnorm.groups, merge_groups, &pass);
    mg_parallel_for(threads, pass.tiling.total, apply_blocks, &pass);
}

const struct mg_cpu_driver mg_cpu_groupnorm = {.run = run, .workspace_bytes = workspace_bytes};
