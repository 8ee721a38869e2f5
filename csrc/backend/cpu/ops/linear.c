/* linear.c: linear layers and 1x1 convolutions: tiles of OpenBLAS sgemm, then bias, activation and residual while the tile
 * is in cache. OpenBLAS itself runs on one thread (set by cpu_backend.c); tiles are shared out here. */
#include <cblas.h>
#include <omp.h>

#include "../cpu.h"

/* Tile borders: rows of one image (so that a batch does not change them) times columns of the output. */
enum { TILE_ROWS = 384, TILE_COLUMNS = 512 };

struct linear_tiles {
    int64_t rows, columns, channels; /* of one image */
    int64_t tile_rows, tile_columns;
    int64_t row_tiles, column_tiles;
};

static struct linear_tiles tiles_of(const struct mg_op_shape *op) {
    struct linear_tiles t = {
        .rows = op->in[0].dim[1] * op->in[0].dim[2], .columns = op->out.dim[3], .channels = op->in[0].dim[3]};
    t.row_tiles = mg_ceil_div(t.rows, TILE_ROWS);
    t.tile_rows = mg_ceil_div(t.rows, t.row_tiles);
    t.column_tiles = mg_ceil_div(t.columns, TILE_COLUMNS);
    /* Few rows: cut the columns finer, so that every thread has work. */
    if (t.row_tiles < 4 && t.columns >= 128)
        t.column_tiles = t.column_tiles < 4 ? 4 : t.column_tiles;
    t.tile_columns = mg_ceil_div(mg_ceil_div(t.columns, t.column_tiles), 16) * 16;
    t.column_tiles = mg_ceil_div(t.columns, t.tile_columns);
    return t;
}

static size_t linear_workspace(const struct mg_context *context, const struct mg_op_shape *op) {
    struct linear_tiles t = tiles_of(op);
    return mg_workspace_floats((size_t)(t.tile_rows * t.tile_columns), (size_t)context->num_threads, 0);
}

static void run_tile(const struct mg_context *context, const struct mg_op_call *call, const struct linear_tiles *t,
                     int64_t index, float *product) {
    int64_t column = index % t->column_tiles * t->tile_columns;
    int64_t row_tile = index / t->column_tiles;
    int64_t row = row_tile % t->row_tiles * t->tile_rows;
    int64_t rows = t->rows - row < t->tile_rows ? t->rows - row : t->tile_rows;
    int64_t columns = t->columns - column < t->tile_columns ? t->columns - column : t->tile_columns;
    row += row_tile / t->row_tiles * t->rows;
    const float *x = call->in[0], *weight = call->in[1], *bias = call->in[2], *residual = call->in[3];
    int64_t at = row * t->columns + column;
    scipy_cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)columns, (int)t->channels, 1.0f,
                      x + row * t->channels, (int)t->channels, weight + column * t->channels, (int)t->channels, 0.0f,
                      product, (int)t->tile_columns);
    mg_cpu_kernels_of(context)->epilogue((float *)call->out + at, t->columns, product, t->tile_columns, rows, columns,
                                         bias ? bias + column : NULL, call->op->params.linear.activation,
                                         residual ? residual + at : NULL, t->columns);
}

static void linear_run(const struct mg_context *context, const struct mg_op_call *call) {
    struct linear_tiles t = tiles_of(call->op);
    int64_t total = call->op->in[0].dim[0] * t.row_tiles * t.column_tiles;
    float *workspace = call->workspace;
#pragma omp parallel num_threads(context->num_threads) if (total > 1)
    {
        float *product = workspace + (int64_t)omp_get_thread_num() * t.tile_rows * t.tile_columns;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < total; i++)
            run_tile(context, call, &t, i, product);
    }
}

const struct mg_cpu_driver mg_cpu_linear = {.run = linear_run, .workspace_bytes = linear_workspace};
