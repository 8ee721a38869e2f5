/* pointwise_gradient.c: gradients of activations, GEGLU and nearest upsampling, and padding with zero channels. Called by
 * cpu_backend.c; calls the kernel table. */
#include <string.h>

#include "tiles.h"

static void activation_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->out;
    const struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape) * shape->dim[3], 1);
    const float *x = call->in[0], *dy = call->in[1];
    float *out = call->out;
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        const struct mg_tile tile = mg_tile_at(&tiling, i);
        mg_cpu_kernels_of(context)->activation_gradient(out + tile.first, x + tile.first, dy + tile.first, tile.count,
                                                        call->op->params.activation);
    }
}

const struct mg_cpu_driver mg_cpu_activation_gradient = {.run = activation_run, .widened = true};

static void geglu_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *shape = &call->op->in[1];
    const struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape), shape->dim[3]);
    const int64_t c = shape->dim[3];
    const float *x = call->in[0], *dy = call->in[1];
    float *out = call->out;
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        const struct mg_tile tile = mg_tile_at(&tiling, i);
        for (int64_t p = tile.first; p < tile.first + tile.count; p++)
            mg_cpu_kernels_of(context)->geglu_gradient(out + p * 2 * c, out + p * 2 * c + c, x + p * 2 * c,
                                                       x + p * 2 * c + c, dy + p * c, c);
    }
}

const struct mg_cpu_driver mg_cpu_geglu_gradient = {.run = geglu_run, .widened = true};

/* ---- upsampling: a row of the result gathers the rows that show it ---- */
static int64_t source_of(int64_t index, int64_t size, int64_t upsampled) {
    if (size == upsampled)
        return index;
    const int64_t source = (int64_t)((float)index * ((float)size / (float)upsampled));
    return source < size ? source : size - 1;
}

static void nearest_run(const struct mg_context *context, const struct mg_op_call *call) {
    const int64_t *big = call->op->in[0].dim, *small = call->op->out.dim, c = big[3];
    const struct mg_cpu_elements *elements = &mg_cpu_kernels_of(context)->of[MG_CPU_F32];
    const float *dy = call->in[0];
    float *out = call->out;
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (small[0] * small[1] > 1)
    for (int64_t i = 0; i < small[0] * small[1]; i++) {
        float *row = memset(out + i * small[2] * c, 0, (size_t)(small[2] * c) * sizeof *out);
        for (int64_t y = 0; y < big[1]; y++) {
            if (source_of(y, small[1], big[1]) != i % small[1])
                continue;
            const float *from = dy + (i / small[1] * big[1] + y) * big[2] * c;
            for (int64_t x = 0; x < big[2]; x++) {
                float *to = row + source_of(x, small[2], big[2]) * c;
                elements->add(to, to, from + x * c, c);
            }
        }
    }
}

const struct mg_cpu_driver mg_cpu_nearest_gradient = {.run = nearest_run, .widened = true};

/* ---- zero channels ---- */
static void pad_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_slice *p = &call->op->params.slice;
    const struct mg_tensor *shape = &call->op->out;
    const struct mg_tiling tiling = mg_tiling_of(shape->dim[0], mg_image_pixels(shape), shape->dim[3]);
    const int64_t channels = shape->dim[3];
    const float *x = call->in[0];
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiling.total > 1)
    for (int64_t i = 0; i < tiling.total; i++) {
        const struct mg_tile tile = mg_tile_at(&tiling, i);
        float *out = (float *)call->out + tile.first * channels;
        memset(out, 0, (size_t)(tile.count * channels) * sizeof *out);
        for (int64_t pixel = 0; pixel < tile.count; pixel++)
            memcpy(out + pixel * channels + p->begin, x + (tile.first + pixel) * p->count,
                   (size_t)p->count * sizeof *out);
    }
}

const struct mg_cpu_driver mg_cpu_channel_pad = {.run = pad_run, .widened = true};
