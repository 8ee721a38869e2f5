/* linear.c: linear layers and 1x1 convolutions: rows times a weight, then bias, activation and residual while the sums are in
 * cache. Many rows (pixels) meet the weight in panels; few rows (time steps, words) meet it as it is stored, through OpenBLAS,
 * which runs on one thread (set by cpu_backend.c): the columns are shared out here. */
#include <cblas.h>
#include <omp.h>

#include "row_tiles.h"

/* ---- many rows ---- */
struct linear {
    const struct mg_cpu_kernels *kernels;
    struct mg_row_tiles tiles;
    int64_t channels;
};

static struct linear linear_of(const struct mg_context *context, const struct mg_op_shape *op) {
    struct linear l = {.kernels = mg_cpu_kernels_of(context), .channels = op->in[0].dim[3]};
    l.tiles = mg_row_tiles_of(op->in[0].dim[1] * op->in[0].dim[2], op->out.dim[3], l.kernels->panel);
    return l;
}

static void run_task(const struct linear *l, const struct mg_op_call *call, int64_t index, float *product) {
    const struct mg_row_tiles *t = &l->tiles;
    const struct mg_row_task task = mg_row_task_at(t, index, call->op->in[0].dim[0]);
    const int64_t ld = t->group * t->panel, row = task.image * t->rows + task.row;
    const int64_t at = row * t->columns + task.column;
    const float *x = (const float *)call->in[0] + row * l->channels, *weight = call->in[1], *bias = call->in[2];
    const float *residual = call->in[3];
    for (int64_t begin = 0; begin < l->channels; begin += MG_DEPTH_CHUNK) {
        const int64_t chunk = l->channels - begin < MG_DEPTH_CHUNK ? l->channels - begin : MG_DEPTH_CHUNK;
        for (int64_t p = 0; p < task.panels; p++)
            l->kernels->gemm_panel(task.rows, chunk, x + begin, l->channels,
                                   weight + ((task.panel + p) * l->channels + begin) * t->panel, product + p * t->panel,
                                   ld, begin > 0);
    }
    l->kernels->epilogue((float *)call->out + at, t->columns, product, ld, task.rows, task.columns,
                         bias ? bias + task.column : NULL, call->op->params.linear.activation,
                         residual ? residual + at : NULL, t->columns);
}

static void run_many_rows(const struct mg_context *context, const struct mg_op_call *call) {
    const struct linear l = linear_of(context, call->op);
    const int64_t tasks = call->op->in[0].dim[0] * l.tiles.tiles * l.tiles.groups;
    float *workspace = call->workspace;
#pragma omp parallel num_threads(context->num_threads) if (tasks > 1)
    {
        float *mine = workspace + (size_t)omp_get_thread_num() * mg_row_product_floats(&l.tiles);
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
        mg_cpu_kernels_of(context)->epilogue((float *)call->out + at, columns, product, COLUMN_TILE, rows, count,
                                             bias ? bias + column : NULL, call->op->params.linear.activation,
                                             residual ? residual + at : NULL, columns);
    }
}

static size_t linear_workspace(const struct mg_context *context, const struct mg_op_shape *op) {
    const struct linear l = linear_of(context, op);
    const size_t few = (size_t)(op->in[0].dim[1] * op->in[0].dim[2] * COLUMN_TILE);
    return mg_workspace_floats(op->params.linear.few_rows ? few : mg_row_product_floats(&l.tiles),
                               (size_t)context->num_threads, 0);
}

static void linear_run(const struct mg_context *context, const struct mg_op_call *call) {
    if (call->op->params.linear.few_rows)
        run_few_rows(context, call);
    else
        run_many_rows(context, call);
}

const struct mg_cpu_driver mg_cpu_linear = {.run = linear_run, .workspace_bytes = linear_workspace};
