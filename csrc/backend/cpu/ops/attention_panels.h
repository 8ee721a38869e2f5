/* attention_panels.h: the rows of one head (queries, keys, values, or gradients of them), packed as products read them: transposed,
 * where rows are the columns of a product (scores), and in panels of channels, where they are summed (probabilities times
 * values). A "unit" is what a kernel's step multiplies, four bytes: a float, or a pair of bfloat16. Private to backend/cpu/ops.
 */
#ifndef MG_ATTENTION_PANELS_H
#define MG_ATTENTION_PANELS_H
#include "../cpu.h"

struct mg_head_rows {
    const struct mg_cpu_kernels *kernels;
    mg_dtype type;    /* of the rows in memory */
    bool half;        /* packed in pairs of bfloat16; else in floats */
    int64_t bytes;    /* of a packed element */
    int64_t count;    /* rows */
    int64_t channels; /* from one row to the next: of all heads */
    int64_t size;     /* channels of the head */
    int64_t panel, panels, channel_panels;
    int64_t units; /* of a row's channels, completed */
    int64_t steps; /* rows, or pairs of them */
};

/* The pixels of an image of `rows` as the rows of one of so many heads. */
struct mg_head_rows mg_head_rows_of(const struct mg_context *context, const struct mg_tensor *rows, int64_t heads,
                                    bool half);
/* Elements of a row, completed to whole panels of channels. */
static inline int64_t mg_padded_channels(const struct mg_head_rows *h) { return h->channel_panels * h->panel; }
/* Bytes of the packed rows, and of what one thread needs to pack them: `line` below. */
size_t mg_transposed_bytes(const struct mg_head_rows *h);
size_t mg_packed_bytes_of_rows(const struct mg_head_rows *h);
size_t mg_line_bytes(const struct mg_head_rows *h);

/* Row `index`; x: the head's channels of the first row. */
static inline const char *mg_head_row(const struct mg_head_rows *h, const void *x, int64_t index) {
    return (const char *)x + index * h->channels * (int64_t)mg_dtype_bytes(h->type);
}
/* A row of the head in the type of the products, zeros up to `elements`. */
void mg_load_head_row(const struct mg_head_rows *h, void *out, const void *row, int64_t elements);

/* out[panels][units][panel]: panel p, the units of its rows side by side; zeros past the last row and channel. */
void mg_transpose_rows(const struct mg_head_rows *h, const void *x, int64_t p, void *out, void *line);
/* out[channel_panels][steps][panel units]: one step, which is a row, or two side by side; zeros past the last channel and row. */
void mg_pack_step(const struct mg_head_rows *h, const void *x, int64_t step, void *out, void *line);
#endif
