/* pack_weight.c: brings a weight of a checkpoint into the layout that a backend asks for.
 * Called by graph/weights when a weight is bound; calls core. */
#include "backend.h"

/* A tile of the source, converted to float32: up to FILTERS rows of the (K, C*R*S) matrix, ELEMENTS columns at a time. It
 * stays in the first-level cache. */
enum { FILTERS = 64, ELEMENTS = 128 };

struct matrix {
    int64_t filters, channels, window; /* K, C, R*S */
    int64_t panel;
};

static struct matrix matrix_of(struct mg_weight_layout layout, const struct mg_tensor *shape) {
    return (struct matrix){.filters = shape->dim[0],
                           .channels = shape->ndim > 1 ? shape->dim[1] : 1,
                           .window = shape->ndim == 4 ? shape->dim[2] * shape->dim[3] : 1,
                           .panel = layout.panel};
}

size_t mg_packed_floats(struct mg_weight_layout layout, const struct mg_tensor *shape) {
    const struct matrix m = matrix_of(layout, shape);
    size_t floats;
    if (!layout.panel)
        return (size_t)mg_tensor_count(shape);
    const size_t panels = (size_t)((m.filters + m.panel - 1) / m.panel);
    if (!mg_size_mul(&floats, panels, (size_t)(m.channels * m.window)) ||
        !mg_size_mul(&floats, floats, (size_t)m.panel))
        return SIZE_MAX;
    return floats;
}

/* Filters first .. first+count of elements e .. e+elements, to their place in one panel. */
static void pack_tile(float *panel, const struct matrix *m, const char *data, mg_dtype dtype, int64_t first,
                      int64_t count, int64_t e, int64_t elements) {
    _Alignas(MG_ALIGNMENT) float tile[FILTERS][ELEMENTS];
    const int64_t filter_elements = m->channels * m->window, bytes = (int64_t)mg_dtype_bytes(dtype);
    for (int64_t f = 0; f < count; f++)
        mg_convert_to_f32(tile[f], data + ((first + f) * filter_elements + e) * bytes, dtype, (size_t)elements);
    for (int64_t i = 0; i < elements; i++) {
        const int64_t channel = (e + i) / m->window, position = (e + i) % m->window;
        float *row = panel + (position * m->channels + channel) * m->panel;
        for (int64_t f = 0; f < count; f++)
            row[f] = tile[f][i];
        for (int64_t f = count; f < m->panel; f++)
            row[f] = 0.0f;
    }
}

static void pack_panels(float *out, const struct matrix *m, const char *data, mg_dtype dtype, int num_threads) {
    const int64_t depth = m->channels * m->window, panels = (m->filters + m->panel - 1) / m->panel;
#pragma omp parallel for num_threads(num_threads) schedule(static) if (panels * depth > 4096)
    for (int64_t p = 0; p < panels; p++) {
        const int64_t left = m->filters - p * m->panel, count = left < m->panel ? left : m->panel;
        for (int64_t e = 0; e < depth; e += ELEMENTS)
            pack_tile(out + p * depth * m->panel, m, data, dtype, p * m->panel, count, e,
                      depth - e < ELEMENTS ? depth - e : ELEMENTS);
    }
}

void mg_pack_weight(float *out, struct mg_weight_layout layout, const struct mg_tensor *shape, const void *data,
                    mg_dtype dtype, int num_threads) {
    const struct matrix m = matrix_of(layout, shape);
    if (layout.panel)
        pack_panels(out, &m, data, dtype, num_threads);
    else
        mg_convert_to_f32(out, data, dtype, (size_t)mg_tensor_count(shape));
}
