/* attention_panels.c: see attention_panels.h. */
#include "attention_panels.h"

#include <string.h>

struct mg_head_rows mg_head_rows_of(const struct mg_context *context, const struct mg_tensor *rows, int64_t heads,
                                    bool half) {
    struct mg_head_rows h = {.kernels = mg_cpu_kernels_of(context),
                             .type = rows->dtype,
                             .half = half,
                             .bytes = half ? 2 : 4,
                             .count = rows->dim[1] * rows->dim[2],
                             .channels = rows->dim[3],
                             .size = rows->dim[3] / heads};
    h.panel = h.kernels->panel;
    h.panels = mg_ceil_div(h.count, h.panel);
    h.channel_panels = mg_ceil_div(h.size, h.panel);
    h.units = mg_ceil_div(h.size * h.bytes, 4);
    h.steps = mg_ceil_div(h.count * h.bytes, 4);
    return h;
}

size_t mg_transposed_bytes(const struct mg_head_rows *h) {
    return mg_aligned_bytes(h->panels * h->units * h->panel, 4);
}

size_t mg_packed_bytes_of_rows(const struct mg_head_rows *h) {
    return mg_aligned_bytes(h->channel_panels * h->steps * h->panel, 4);
}

size_t mg_line_bytes(const struct mg_head_rows *h) {
    return mg_aligned_bytes(2 * mg_padded_channels(h), sizeof(float));
}

void mg_load_head_row(const struct mg_head_rows *h, void *out, const void *row, int64_t elements) {
    if (!h->half || h->type == MG_BF16)
        memcpy(out, row, (size_t)(h->size * h->bytes));
    else
        h->kernels->of[MG_CPU_BF16].narrow(out, row, h->size);
    memset((char *)out + h->size * h->bytes, 0, (size_t)((elements - h->size) * h->bytes));
}

void mg_transpose_rows(const struct mg_head_rows *h, const void *x, int64_t p, void *out, void *line) {
    const int64_t first = p * h->panel, count = h->count - first < h->panel ? h->count - first : h->panel;
    char *to = (char *)out + p * h->units * h->panel * 4;
    memset(to, 0, (size_t)(h->units * h->panel * 4));
    for (int64_t j = 0; j < count; j++) {
        mg_load_head_row(h, line, mg_head_row(h, x, first + j), h->units * 4 / h->bytes);
        for (int64_t u = 0; u < h->units; u++)
            memcpy(to + (u * h->panel + j) * 4, (const char *)line + u * 4, 4);
    }
}

void mg_pack_step(const struct mg_head_rows *h, const void *x, int64_t step, void *out, void *line) {
    const int64_t padded = mg_padded_channels(h), row = h->half ? 2 * step : step;
    char *first = line, *second = first + padded * h->bytes;
    mg_load_head_row(h, first, mg_head_row(h, x, row), padded);
    if (h->half && row + 1 < h->count)
        mg_load_head_row(h, second, mg_head_row(h, x, row + 1), padded);
    else
        memset(second, 0, (size_t)(padded * h->bytes));
    for (int64_t p = 0; p < h->channel_panels; p++) {
        char *to = (char *)out + (p * h->steps + step) * h->panel * 4;
        if (h->half)
            h->kernels->pair_rows((uint32_t *)to, (const mg_bf16 *)first + p * h->panel,
                                  (const mg_bf16 *)second + p * h->panel, h->panel);
        else
            memcpy(to, first + p * h->panel * 4, (size_t)h->panel * 4);
    }
}
