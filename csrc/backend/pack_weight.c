/* pack_weight.c: brings a weight of a checkpoint into the layout that a backend asks for.
 * Called by graph/weights when a weight is bound; calls core. */
#include "backend.h"

/* A tile of the source, converted to float32: FILTERS rows of the (K, C*R*S) matrix, ELEMENTS columns at a time.
 * FILTERS floats are whole cache lines of the output, and the tile stays in the first-level cache. */
enum { FILTERS = 32, ELEMENTS = 128 };

/* tile[f][e] -> out[(e % window) * channels + e / window][f], e counted from first_element. */
static void scatter_tile(float *out, float tile[FILTERS][ELEMENTS], int64_t first_element, int64_t elements,
                         int64_t filters, int64_t all_filters, int64_t channels, int64_t window) {
    for (int64_t e = 0; e < elements; e++) {
        int64_t channel = (first_element + e) / window, position = (first_element + e) % window;
        float *row = out + (position * channels + channel) * all_filters;
        for (int64_t f = 0; f < filters; f++)
            row[f] = tile[f][e];
    }
}

static void pack_rsck(float *out, const struct mg_tensor *shape, const char *data, mg_dtype dtype) {
    const int64_t all_filters = shape->dim[0], channels = shape->dim[1], window = shape->dim[2] * shape->dim[3];
    const int64_t filter_elements = channels * window, element_bytes = (int64_t)mg_dtype_bytes(dtype);
    _Alignas(MG_ALIGNMENT) float tile[FILTERS][ELEMENTS];
    /* Filters innermost: the rows of the output that a tile column goes to are completed while they are in cache. */
    for (int64_t e = 0; e < filter_elements; e += ELEMENTS) {
        int64_t elements = filter_elements - e < ELEMENTS ? filter_elements - e : ELEMENTS;
        for (int64_t k = 0; k < all_filters; k += FILTERS) {
            int64_t filters = all_filters - k < FILTERS ? all_filters - k : FILTERS;
            for (int64_t f = 0; f < filters; f++)
                mg_convert_to_f32(tile[f], data + ((k + f) * filter_elements + e) * element_bytes, dtype,
                                  (size_t)elements);
            scatter_tile(out + k, tile, e, elements, filters, all_filters, channels, window);
        }
    }
}

void mg_pack_weight(float *out, mg_weight_layout layout, const struct mg_tensor *shape, const void *data,
                    mg_dtype dtype) {
    if (layout == MG_LAYOUT_RSCK)
        pack_rsck(out, shape, data, dtype);
    else
        mg_convert_to_f32(out, data, dtype, (size_t)mg_tensor_count(shape));
}
