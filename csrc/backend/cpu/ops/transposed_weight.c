/* transposed_weight.c: see transposed_weight.h. Called by conv2d_input_gradient.c and linear_input_gradient.c. */
#include "transposed_weight.h"

static int64_t window_of(const struct mg_tensor *weight) {
    return weight->ndim == 4 ? weight->dim[2] * weight->dim[3] : 1;
}

struct mg_tensor mg_transposed_shape(const struct mg_tensor *weight) {
    struct mg_tensor shape = *weight;
    shape.dim[0] = weight->dim[1];
    shape.dim[1] = weight->dim[0];
    return shape;
}

static struct mg_weight_layout layout_of(const struct mg_context *context) {
    return (struct mg_weight_layout){.panel = mg_cpu_kernels_of(context)->panel, .group = 1, .dtype = MG_F32};
}

size_t mg_transposed_weight_bytes(const struct mg_context *context, const struct mg_tensor *weight) {
    const struct mg_tensor shape = mg_transposed_shape(weight);
    const size_t bytes = mg_packed_bytes(layout_of(context), &shape);
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

void mg_transpose_weight(const struct mg_context *context, float *out, const float *weight,
                         const struct mg_tensor *shape) {
    const int64_t panel = mg_cpu_kernels_of(context)->panel, window = window_of(shape);
    const int64_t filters = shape->dim[0], channels = shape->dim[1];
    const int64_t channel_panels = mg_ceil_div(channels, panel), tasks = channel_panels * window;
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (filters * channels * window > 65536)
    for (int64_t i = 0; i < tasks; i++) {
        const int64_t p = i / window, position = i % window, c = p * panel;
        const int64_t count = channels - c < panel ? channels - c : panel;
        float *to = out + (p * window + window - 1 - position) * filters * panel;
        for (int64_t k = 0; k < filters; k += panel)
            transpose_block(to + k * panel, weight + (k / panel * window * channels + position * channels + c) * panel,
                            filters - k < panel ? filters - k : panel, count, panel);
    }
}
