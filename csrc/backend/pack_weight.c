/* pack_weight.c: brings a weight, of a checkpoint or packed for another processor, into the layout that a backend asks for. */
#include <math.h>
#include <string.h>

#include "../core/thread_pool.h"
#include "backend.h"

/* A tile of the source, converted to float32: up to FILTERS rows of the (K, C*R*S) matrix, ELEMENTS columns at a time. It
 * stays in the first-level cache. */
enum { FILTERS = 64, ELEMENTS = 128 };

struct matrix {
    struct mg_weight_layout layout;
    struct mg_panels panels;
    int64_t filters, channels, window; /* K, C, R*S */
    const char *data;
    mg_dtype dtype;               /* of the data, where from.panel is 0 */
    struct mg_weight_layout from; /* of the data; all zeros: in the order of the checkpoint */
    struct mg_panels from_panels;
};

static int64_t window_of(const struct mg_tensor *shape) { return shape->ndim == 4 ? shape->dim[2] * shape->dim[3] : 1; }

static int64_t channels_of(const struct mg_tensor *shape) { return shape->ndim > 1 ? shape->dim[1] : 1; }

bool mg_same_layout(struct mg_weight_layout a, struct mg_weight_layout b) {
    return a.panel == b.panel && (!a.panel || (a.group == b.group && a.dtype == b.dtype));
}

bool mg_panels_of(struct mg_panels *out, struct mg_weight_layout layout, const struct mg_tensor *shape) {
    const size_t limit = SIZE_MAX / 4; /* room for what is added below */
    size_t columns, elements;
    *out = (struct mg_panels){.channels = (channels_of(shape) + layout.group - 1) / layout.group * layout.group,
                              .count = (shape->dim[0] + layout.panel - 1) / layout.panel};
    out->rows = window_of(shape) * out->channels;
    columns = (size_t)out->count * (size_t)layout.panel;
    if (!mg_size_mul(&elements, columns, (size_t)out->rows) || elements > limit / mg_dtype_bytes(layout.dtype) ||
        columns > limit / 16)
        return false;
    out->panel_bytes = (size_t)out->rows * (size_t)layout.panel * mg_dtype_bytes(layout.dtype);
    out->bytes = (size_t)out->count * out->panel_bytes;
    if (layout.dtype == MG_I8) {
        out->scales = mg_aligned(out->bytes);
        out->sums = mg_aligned(out->scales + columns * sizeof(float));
        out->bytes = out->sums + columns * sizeof(int32_t);
    }
    return true;
}

size_t mg_packed_bytes(struct mg_weight_layout layout, const struct mg_tensor *shape) {
    struct mg_panels panels;
    if (!layout.panel)
        return (size_t)mg_tensor_count(shape) * sizeof(float);
    return mg_panels_of(&panels, layout, shape) ? panels.bytes : SIZE_MAX;
}

/* Elements of one filter out of its panel. What stays int8 keeps its integers, and pack_panel its scale: computed again
 * from rounded products, it might differ in the last bit. */
static void gather_filter(float *out, const struct matrix *m, int64_t filter, int64_t e, int64_t elements) {
    const int64_t width = m->from.panel, group = m->from.group;
    const char *panel = m->data + (size_t)(filter / width) * m->from_panels.panel_bytes;
    const float *scales = (const float *)(m->data + m->from_panels.scales);
    const float scale = m->from.dtype == MG_I8 && m->layout.dtype != MG_I8 ? scales[filter] : 1.0f;
    for (int64_t i = 0; i < elements; i++) {
        const int64_t channel = (e + i) / m->window, position = (e + i) % m->window;
        const int64_t row = position * m->from_panels.channels + channel / group * group;
        const int64_t at = row * width + filter % width * group + channel % group;
        if (m->from.dtype == MG_F32)
            out[i] = ((const float *)panel)[at];
        else if (m->from.dtype == MG_BF16)
            out[i] = mg_f32_of_bf16(((const mg_bf16 *)panel)[at]);
        else if (m->from.dtype == MG_F16)
            out[i] = mg_f32_of_f16(((const mg_f16 *)panel)[at]);
        else
            out[i] = scale * (float)((const int8_t *)panel)[at];
    }
}

static void load_filter(float *out, const struct matrix *m, int64_t filter, int64_t e, int64_t elements) {
    if (m->from.panel) {
        gather_filter(out, m, filter, e, elements);
        return;
    }
    const int64_t bytes = (int64_t)mg_dtype_bytes(m->dtype);
    mg_convert_to_f32(out, m->data + (filter * m->channels * m->window + e) * bytes, m->dtype, (size_t)elements);
}

/* The largest magnitude; NaN if any value is no number. */
static float largest_of(const struct matrix *m, int64_t filter) {
    const int64_t all = m->channels * m->window;
    float values[ELEMENTS], largest = 0.0f, zero = 0.0f;
    for (int64_t e = 0; e < all; e += ELEMENTS) {
        const int64_t elements = all - e < ELEMENTS ? all - e : ELEMENTS;
        load_filter(values, m, filter, e, elements);
        for (int64_t i = 0; i < elements; i++) {
            largest = fabsf(values[i]) > largest ? fabsf(values[i]) : largest;
            zero += values[i] - values[i];
        }
    }
    return largest + zero;
}

/* The rows of a tile to the columns of a panel: element i of row f to at[i] + f * group. */
#define DEFINE_SCATTER(name, type, convert)                                                                            \
    static void scatter_##name(void *panel, const int64_t *at, float tile[][ELEMENTS], int64_t count,                  \
                               int64_t elements, int64_t group) {                                                      \
        for (int64_t i = 0; i < elements; i++) {                                                                       \
            type *to = (type *)panel + at[i];                                                                          \
            for (int64_t f = 0; f < count; f++)                                                                        \
                to[f * group] = convert(tile[f][i]);                                                                   \
        }                                                                                                              \
    }
DEFINE_SCATTER(f32, float, (float))
DEFINE_SCATTER(f16, mg_f16, mg_f16_of_f32)
DEFINE_SCATTER(bf16, mg_bf16, mg_bf16_of_f32)
DEFINE_SCATTER(int8, int8_t, (int8_t))

/* Filters first .. first+count of elements e .. e+elements, times `factor` of each, to their place in one panel. */
static void pack_tile(void *panel, const struct matrix *m, int64_t first, int64_t count, int64_t e, int64_t elements,
                      const float *factor, int32_t *sums) {
    static void (*const scatter[MG_DTYPE_COUNT])(void *, const int64_t *, float[][ELEMENTS], int64_t, int64_t,
                                                 int64_t) = {
        [MG_F32] = scatter_f32, [MG_F16] = scatter_f16, [MG_BF16] = scatter_bf16, [MG_I8] = scatter_int8};
    _Alignas(MG_ALIGNMENT) float tile[FILTERS][ELEMENTS];
    int64_t at[ELEMENTS];
    const int64_t group = m->layout.group;
    for (int64_t f = 0; f < count; f++) {
        load_filter(tile[f], m, first + f, e, elements);
        for (int64_t i = 0; factor && i < elements; i++) {
            tile[f][i] = factor[f] > 0.0f ? rintf(tile[f][i] * factor[f]) : 0.0f;
            sums[f] += (int32_t)tile[f][i];
        }
    }
    for (int64_t i = 0; i < elements; i++) {
        const int64_t channel = (e + i) / m->window, position = (e + i) % m->window;
        const int64_t row = position * m->panels.channels + channel / group * group;
        at[i] = row * m->layout.panel + channel % group;
    }
    scatter[m->layout.dtype](panel, at, tile, count, elements, group);
}

static void pack_panel(char *out, const struct matrix *m, int64_t p) {
    const int64_t all = m->channels * m->window, first = p * m->layout.panel;
    const int64_t count = m->filters - first < m->layout.panel ? m->filters - first : m->layout.panel;
    const bool is_int8 = m->layout.dtype == MG_I8;
    float factor[FILTERS];
    float *scales = (float *)(out + m->panels.scales) + first;
    int32_t *sums = (int32_t *)(out + m->panels.sums) + first;
    char *panel = out + (size_t)p * m->panels.panel_bytes;
    if (count < m->layout.panel || m->panels.channels != m->channels)
        memset(panel, 0, m->panels.panel_bytes);
    const bool was_int8 = m->from.panel && m->from.dtype == MG_I8;
    for (int64_t f = 0; is_int8 && f < m->layout.panel; f++) {
        sums[f] = 0;
        if (was_int8) {
            factor[f] = 1.0f;
            scales[f] = f < count ? ((const float *)(m->data + m->from_panels.scales))[first + f] : 0.0f;
            continue;
        }
        const float largest = f < count ? largest_of(m, first + f) : 0.0f;
        factor[f] = largest > 0.0f ? 127.0f / largest : 0.0f;
        scales[f] = largest / 127.0f;
    }
    for (int64_t e = 0; e < all; e += ELEMENTS)
        pack_tile(panel, m, first, count, e, all - e < ELEMENTS ? all - e : ELEMENTS, is_int8 ? factor : NULL, sums);
}

static struct matrix matrix_of(struct mg_weight_layout layout, const struct mg_tensor *shape, const void *data) {
    struct matrix m = {.layout = layout,
                       .filters = shape->dim[0],
                       .channels = channels_of(shape),
                       .window = window_of(shape),
                       .data = data};
    if (layout.panel)
        (void)mg_panels_of(&m.panels, layout, shape); /* mg_packed_bytes has said that it can be addressed */
    return m;
}

/* Where a weight goes; whose rows are shared out to threads if it is large. */
struct target {
    const struct matrix *m;
    void *out;
};

static int threads_for(int64_t rows, int num_threads) { return rows > 4096 ? num_threads : 1; }

static void pack_some_panels(const void *user, int64_t begin, int64_t end, int thread) {
    const struct target *target = user;
    (void)thread;
    for (int64_t p = begin; p < end; p++)
        pack_panel(target->out, target->m, p);
}

static void pack_panels(void *out, const struct matrix *m, int num_threads) {
    const size_t elements = (size_t)m->panels.count * m->panels.panel_bytes;
    memset((char *)out + elements, 0, m->panels.bytes - elements); /* the gaps between the parts, too */
    mg_parallel_for(threads_for(m->panels.count * m->panels.rows, num_threads), m->panels.count, pack_some_panels,
                    &(struct target){.m = m, .out = out});
}

void mg_pack_weight(void *out, struct mg_weight_layout layout, const struct mg_tensor *shape, const void *data,
                    mg_dtype dtype, int num_threads) {
    struct matrix m = matrix_of(layout, shape, data);
    m.dtype = dtype;
    if (layout.panel)
        pack_panels(out, &m, num_threads);
    else
        mg_convert_to_f32(out, data, dtype, (size_t)mg_tensor_count(shape));
}

static void load_filters(const void *user, int64_t begin, int64_t end, int thread) {
    const struct target *target = user;
    const int64_t elements = target->m->channels * target->m->window;
    (void)thread;
    for (int64_t f = begin; f < end; f++)
        load_filter((float *)target->out + f * elements, target->m, f, 0, elements);
}

void mg_unpack_weight(float *out, const struct mg_tensor *shape, const void *packed, struct mg_weight_layout from,
                      int num_threads) {
    struct matrix m = matrix_of((struct mg_weight_layout){0}, shape, packed);
    m.dtype = MG_F32;
    m.from = from;
    if (from.panel)
        (void)mg_panels_of(&m.from_panels, from, shape);
    mg_parallel_for(threads_for(m.filters * m.channels * m.window, num_threads), m.filters, load_filters,
                    &(struct target){.m = &m, .out = out});
}

/* Rows of float32 panels to pairs of bfloat16, of one panel and position of the window: what training does after every step. */
static void round_to_pairs(const void *user, int64_t begin, int64_t end, int thread) {
    const struct target *target = user;
    const struct mg_panels *from = &target->m->from_panels, *to = &target->m->panels;
    const int64_t width = target->m->layout.panel;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        for (int64_t c = 0; c < from->channels; c += 2) {
            const float *even = (const float *)target->m->data + (i * from->channels + c) * width;
            const bool is_pair = c + 1 < from->channels;
            mg_bf16 *pair = (mg_bf16 *)target->out + (i * to->channels + c) * width;
            for (int64_t k = 0; k < width; k++) {
                pair[2 * k] = mg_bf16_of_f32(even[k]);
                pair[2 * k + 1] = is_pair ? mg_bf16_of_f32(even[width + k]) : (mg_bf16){0};
            }
        }
}

void mg_repack_weight(void *out, struct mg_weight_layout layout, const struct mg_tensor *shape, const void *packed,
                      struct mg_weight_layout from, int num_threads) {
    struct matrix m = matrix_of(layout, shape, packed);
    if (!layout.panel) {
        mg_unpack_weight(out, shape, packed, from, num_threads);
        return;
    }
    m.dtype = MG_F32;
    m.from = from;
    if (from.panel)
        (void)mg_panels_of(&m.from_panels, from, shape);
    if (layout.panel == from.panel && layout.dtype == MG_BF16 && layout.group == 2 && from.dtype == MG_F32 &&
        from.group == 1)
        mg_parallel_for(threads_for(m.panels.count * m.panels.rows, num_threads), m.panels.count * m.window,
                        round_to_pairs, &(struct target){.m = &m, .out = out});
    else
        pack_panels(out, &m, num_threads);
}
