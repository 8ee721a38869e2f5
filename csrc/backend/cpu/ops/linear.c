/* linear.c: linear layers and 1x1 convolutions: rows times a weight, then bias, activation and residual while the sums are in
 * cache. Many rows (pixels) meet the weight in panels; few rows (time steps, words) meet it as it is stored.
 *
 * Rows are multiplied where they lie, but for two cases: an odd number of bfloat16 channels is completed to whole pairs, tile
 * by tile; and for int8 weights all rows are quantised first, each with a scale of its own. */
#include <string.h>

#include "../../../core/thread_pool.h"
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

struct job {
    const struct linear *linear;
    const struct mg_op_call *call;
};

static void quantise_rows(const void *user, int64_t begin, int64_t end, int thread) {
    const struct job *job = user;
    const struct linear *l = job->linear;
    char *rows = job->call->workspace;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        l->elements->quantise_row((uint8_t *)rows + i * l->padded, (float *)(rows + l->rows) + i,
                                  (const char *)job->call->in[0] + i * l->channels * l->bytes, l->channels);
}

static void run_tasks(const void *user, int64_t begin, int64_t end, int thread) {
    const struct job *job = user;
    const struct linear *l = job->linear;
    char *scratch = (char *)job->call->workspace + l->rows + l->scales + (size_t)thread * (l->copies + l->product);
    for (int64_t i = begin; i < end; i++)
        run_task(l, job->call, i, scratch);
}

static void run_many_rows(const struct mg_context *context, const struct mg_op_call *call) {
    const struct linear l = linear_of(context, call->op, call->in[1]);
    const struct job job = {.linear = &l, .call = call};
    if (l.quantised)
        mg_parallel_for(context->num_threads, l.images * l.tiles.rows, quantise_rows, &job);
    mg_parallel_for(context->num_threads, l.images * l.tiles.tiles * l.tiles.groups, run_tasks, &job);
}

/* ---- few rows ---- */
enum { COLUMN_TILE = 256 };

struct few_rows {
    const struct mg_cpu_kernels *kernels;
    const struct mg_cpu_elements *elements;
    const struct mg_op_call *call;
    int64_t rows, channels, columns, column_tiles;
};

/* Tile i of the columns of one image: the weight is read once for all its rows. */
static void run_column_tile(const struct few_rows *f, int64_t i, float *product) {
    const struct mg_op_call *call = f->call;
    const float *x = call->in[0], *weight = call->in[1], *bias = call->in[2], *residual = call->in[3];
    const int64_t first = i / f->column_tiles * f->rows, column = i % f->column_tiles * COLUMN_TILE;
    const int64_t count = f->columns - column < COLUMN_TILE ? f->columns - column : COLUMN_TILE;
    const int64_t at = first * f->columns + column;
    f->kernels->dot_rows(f->rows, count, f->channels, x + first * f->channels, weight + column * f->channels, product,
                         COLUMN_TILE);
    f->elements->epilogue((float *)call->out + at, f->columns, product, COLUMN_TILE, f->rows, count,
                          bias ? bias + column : NULL, call->op->params.linear.activation,
                          residual ? residual + at : NULL, f->columns);
}

static void run_column_tiles(const void *user, int64_t begin, int64_t end, int thread) {
    const struct few_rows *f = user;
    float *product = (float *)f->call->workspace + (int64_t)thread * f->rows * COLUMN_TILE;
    for (int64_t i = begin; i < end; i++)
        run_column_tile(f, i, product);
}

static void run_few_rows(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_tensor *x = &call->op->in[0];
    const struct few_rows f = {.kernels = mg_cpu_kernels_of(context),
                               .elements = mg_cpu_elements_of(context, &call->op->out),
                               .call = call,
                               .rows = x->dim[1] * x->dim[2],
                               .channels = x->dim[3],
                               .columns = call->op->out.dim[3],
                               .column_tiles = mg_ceil_div(call->op->out.dim[3], COLUMN_TILE)};
    mg_parallel_for(context->num_threads, x->dim[0] * f.column_tiles, run_column_tiles, &f);
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
