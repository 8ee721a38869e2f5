/* linear.c: linear layers and 1x1 convolutions: rows times a weight, then bias, activation and residual while the sums are in
 * cache. Many rows (pixels) meet the weight in panels; few rows (time steps, words) meet it as it is stored, through OpenBLAS,
 * which runs on one thread (set by cpu_backend.c): the columns are shared out here.
 *
 * Rows are multiplied where they lie, but for two cases: an odd number of bfloat16 channels is completed to whole pairs, tile
 * by tile; and for int8 weights all rows are quantised first, each with a scale of its own. */
#include <cblas.h>
#include <omp.h>
#include <string.h>

#include "row_tiles.h"

/* ---- many rows ---- */
struct linear {
    struct mg_row_weight weight;
    const struct mg_cpu_elements *elements;
    struct mg_row_tiles tiles;
    int64_t images, channels, padded, bytes; /* padded: to whole groups; bytes: of an element */
    bool quantised, copied;
    /* Bytes: quantised rows and their scales, of all threads; completed rows and sums, of one. */
    size_t rows, scales, copies, product;
};

static struct linear linear_of(const struct mg_context *context, const struct mg_op_shape *op, const void *weight) {
    struct linear l = {.weight = mg_row_weight_of(context, op, weight),
                       .elements = mg_cpu_elements_of(context, &op->in[0]),
                       .images = op->in[0].dim[0],
                       .channels = op->in[0].dim[3],
                       .bytes = (int64_t)mg_dtype_bytes(op->in[0].dtype)};
    l.tiles = mg_row_tiles_of(op->in[0].dim[1] * op->in[0].dim[2], op->out.dim[3], l.weight.layout.panel);
    l.padded = l.weight.panels.channels;
    l.quantised = l.weight.layout.dtype == MG_I8;
    l.copied = !l.quantised && l.padded != l.channels;
    l.rows = l.quantised ? mg_aligned_bytes(l.images * l.tiles.rows, (size_t)l.padded) : 0;
    l.scales = l.quantised ? mg_aligned_bytes(l.images * l.tiles.rows, sizeof(float)) : 0;
    l.copies = l.copied ? mg_aligned_bytes(l.tiles.tile * l.padded, (size_t)l.bytes) : 0;
    l.product = mg_row_product_floats(&l.tiles) * sizeof(float);
    return l;
}

/* The task's rows with zeros up to whole groups. */
static const void *complete_rows(const struct linear *l, const char *x, int64_t rows, char *out) {
    const size_t row = (size_t)(l->channels * l->bytes), padded = (size_t)(l->padded * l->bytes);
    for (int64_t i = 0; i < rows; i++) {
        memcpy(out + (size_t)i * padded, x + (size_t)i * row, row);
        memset(out + (size_t)i * padded + row, 0, padded - row);
    }
    return out;
}

static void run_task(const struct linear *l, const struct mg_op_call *call, int64_t index, char *scratch) {
    const struct mg_row_tiles *t = &l->tiles;
    const struct mg_row_task task = mg_row_task_at(t, index, l->images);
    const int64_t ld = t->group * t->panel, row = task.image * t->rows + task.row;
    const int64_t at = row * t->columns + task.column, unit = l->quantised ? 1 : l->bytes;
    const float *scales = (const float *)((char *)call->workspace + l->rows), *bias = call->in[2];
    const char *rows = (const char *)call->in[0] + row * l->channels * l->bytes, *residual = call->in[3];
    float *product = (float *)(scratch + l->copies);
    if (l->quantised)
        rows = (const char *)call->workspace + row * l->padded;
    else if (l->copied)
        rows = complete_rows(l, rows, task.rows, scratch);
    for (int64_t begin = 0; begin < l->padded; begin += MG_DEPTH_CHUNK) {
        const int64_t chunk = l->padded - begin < MG_DEPTH_CHUNK ? l->padded - begin : MG_DEPTH_CHUNK;
        mg_row_multiply(&l->weight, &task, t->group, rows + begin * unit, l->padded, begin, chunk, product);
    }
    if (l->quantised)
        l->weight.kernels->dequantise(product, ld, task.rows, task.panels * t->panel, scales + row,
                                      (const float *)(l->weight.data + l->weight.panels.scales) + task.column,
                                      (const int32_t *)(l->weight.data + l->weight.panels.sums) + task.column);
    l->elements->epilogue((char *)call->out + at * l->bytes, t->columns, product, ld, task.rows, task.columns,
                          bias ? bias + task.column : NULL, call->op->params.linear.activation,
                          residual ? residual + at * l->bytes : NULL, t->columns);
}

static void quantise(const struct linear *l, const struct mg_op_call *call, int64_t row) {
    float *scales = (float *)((char *)call->workspace + l->rows);
    l->elements->quantise_row((uint8_t *)call->workspace + row * l->padded, scales + row,
                              (const char *)call->in[0] + row * l->channels * l->bytes, l->channels);
}

static void run_many_rows(const struct mg_context *context, const struct mg_op_call *call) {
    const struct linear l = linear_of(context, call->op, call->in[1]);
    const int64_t tasks = l.images * l.tiles.tiles * l.tiles.groups, rows = l.quantised ? l.images * l.tiles.rows : 0;
    char *workspace = (char *)call->workspace + l.rows + l.scales;
#pragma omp parallel num_threads(context->num_threads) if (tasks > 1)
    {
        char *mine = workspace + (size_t)omp_get_thread_num() * (l.copies + l.product);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++)
            quantise(&l, call, i);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < tasks; i++)
            run_task(&l, call, i, mine);
    }
}

/* ---- few rows ---- */
enum { COLUMN_TILE = 256 };

/* The weight is read once for all rows of one image. */
static void run_few_rows(const struct mg_context *context, const struct mg_op_call *call) {
    const int64_t rows = call->op->in[0].dim[1] * call->op->in[0].dim[2], channels = call->op->in[0].dim[3];
    const int64_t columns = call->op->out.dim[3], column_tiles = mg_ceil_div(columns, COLUMN_TILE);
    const float *x = call->in[0], *weight = call->in[1], *bias = call->in[2], *residual = call->in[3];
    float *workspace = call->workspace;
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (column_tiles > 1)
    for (int64_t i = 0; i < call->op->in[0].dim[0] * column_tiles; i++) {
        float *product = workspace + (int64_t)omp_get_thread_num() * rows * COLUMN_TILE;
        const int64_t first = i / column_tiles * rows, column = i % column_tiles * COLUMN_TILE;
        const int64_t count = columns - column < COLUMN_TILE ? columns - column : COLUMN_TILE;
        const int64_t at = first * columns + column;
        scipy_cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)count, (int)channels, 1.0f,
                          x + first * channels, (int)channels, weight + column * channels, (int)channels, 0.0f, product,
                          COLUMN_TILE);
        mg_cpu_elements_of(context, &call->op->out)
            ->epilogue((float *)call->out + at, columns, product, COLUMN_TILE, rows, count, bias ? bias + column : NULL,
                       call->op->params.linear.activation, residual ? residual + at : NULL, columns);
    }
}

static size_t linear_workspace(const struct mg_context *context, const struct mg_op_shape *op) {
    size_t bytes;
    if (op->params.linear.few_rows)
        return mg_workspace_floats((size_t)(op->in[0].dim[1] * op->in[0].dim[2] * COLUMN_TILE),
                                   (size_t)context->num_threads, 0);
    const struct linear l = linear_of(context, op, NULL);
    if (!mg_size_mul(&bytes, l.copies + l.product, (size_t)context->num_threads) ||
        !mg_size_add(&bytes, bytes, l.rows + l.scales))
        return SIZE_MAX;
    return bytes;
}

static void linear_run(const struct mg_context *context, const struct mg_op_call *call) {
    if (call->op->params.linear.few_rows)
        run_few_rows(context, call);
    else
        run_many_rows(context, call);
}

const struct mg_cpu_driver mg_cpu_linear = {.run = linear_run, .workspace_bytes = linear_workspace};
