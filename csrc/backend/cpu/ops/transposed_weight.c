/* transposed_weight.c: see transposed_weight.h. */
#include "transposed_weight.h"

#include <string.h>

#include "../../../core/thread_pool.h"

static int64_t window_of(const struct mg_tensor *weight) {
    return weight->ndim == 4 ? weight->dim[2] * weight->dim[3] : 1;
}

struct mg_tensor mg_transposed_shape(const struct mg_tensor *weight) {
    struct mg_tensor shape = *weight;
    shape.dim[0] = weight->dim[1];
    shape.dim[1] = weight->dim[0];
    return shape;
}

static struct mg_weight_layout layout_of(const struct mg_context *context, const struct mg_tensor *weight) {
    return (struct mg_weight_layout){.panel = mg_cpu_kernels_of(context)->panel,
                                     .group = 4 / (int)mg_dtype_bytes(weight->dtype),
                                     .dtype = weight->dtype};
}

size_t mg_transposed_weight_bytes(const struct mg_context *context, const struct mg_tensor *weight) {
    const struct mg_tensor shape = mg_transposed_shape(weight);
    const size_t bytes = mg_packed_bytes(layout_of(context, weight), &shape);
    return bytes == SIZE_MAX ? SIZE_MAX : mg_aligned(bytes);
}

/* out[k][c] = in[c][k] for a panel of each: `columns` of `panel` floats. */
static void transpose_block(float *out, const float *in, int64_t filters, int64_t channels, int64_t panel) {
    for (int64_t k = 0; k < filters; k++) {
        for (int64_t c = 0; c < channels; c++)
            out[k * panel + c] = in[c * panel + k];
        for (int64_t c = channels; c < panel; c++)
            out[k * panel + c] = 0.0f;
    }
}

/* Pairs of two rows, (a, b) and (c, d), become those of two columns, (a, c) and (b, d). */
static uint64_t transposed_pairs(uint64_t pairs) {
    return (pairs & 0xffff00000000ffff) | (pairs >> 16 & 0xffff0000) | (pairs & 0xffff0000) << 16;
}

/* The same in pairs: of channels on the way in, of filters on the way out; two by two. What is past the last filter or channel is
 * zero on the way in, and so on the way out. */
static void transpose_pairs(uint32_t *out, const uint32_t *in, int64_t filters, int64_t channels, int64_t panel) {
    for (int64_t k = 0; k < filters; k += 2) {
        uint32_t *to = out + k / 2 * panel;
        for (int64_t c = 0; c < channels; c += 2) {
            uint64_t pairs;
            memcpy(&pairs, in + c / 2 * panel + k, sizeof pairs);
            pairs = transposed_pairs(pairs);
            memcpy(to + c, &pairs, sizeof pairs);
        }
        for (int64_t c = (channels + 1) / 2 * 2; c < panel; c++)
            to[c] = 0;
    }
}

struct job {
    uint32_t *out;
    const char *weight;
    int64_t panel, window, group, filters, channels, filter_units, channel_units;
};

/* Filters to channels of one panel of the result at one position of the window. */
static void transpose_part(const struct job *j, int64_t index) {
    const int64_t panel = j->panel, p = index / j->window, position = index % j->window, c = p * panel;
    const int64_t count = j->channels - c < panel ? j->channels - c : panel;
    uint32_t *to = j->out + (p * j->window + j->window - 1 - position) * j->filter_units * panel;
    for (int64_t k = 0; k < j->filters; k += panel) {
        const int64_t row = k / panel * j->window * j->channel_units + position * j->channel_units + c / j->group;
        const char *from = j->weight + row * panel * 4;
        const int64_t some = j->filters - k < panel ? j->filters - k : panel;
        if (j->group == 1)
            transpose_block((float *)to + k * panel, (const float *)from, some, count, panel);
        else
            transpose_pairs(to + k / 2 * panel, (const uint32_t *)from, some, count, panel);
    }
}

static void transpose_parts(const void *job, int64_t begin, int64_t end, int thread) {
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        transpose_part(job, i);
}

void mg_transpose_weight(const struct mg_context *context, void *out, const void *weight,
                         const struct mg_tensor *shape) {
    struct job j = {.out = out,
                    .weight = weight,
                    .panel = mg_cpu_kernels_of(context)->panel,
                    .window = window_of(shape),
                    .group = 4 / (int64_t)mg_dtype_bytes(shape->dtype),
                    .filters = shape->dim[0],
                    .channels = shape->dim[1]};
    j.filter_units = mg_ceil_div(j.filters, j.group);
    j.channel_units = mg_ceil_div(j.channels, j.group);
    const bool large = j.filters * j.channels * j.window > 65536;
    mg_parallel_for(large ? context->num_threads : 1, mg_ceil_div(j.channels, j.panel) * j.window, transpose_parts, &j);
}
