/* linear_gradient.c: the gradients of a linear layer.
 *
 * Of its input: dy times the weight, plus a sum. Many rows go through the driver of linear with the transposed weight; few rows
 * meet it as it is stored. Workspace: the transposed weight, what linear needs.
 * Of its weight: many rows by weight_gradient.c; few rows here. */
#include "../../../core/thread_pool.h"
#include "transposed_weight.h"
#include "weight_gradient.h"

static struct mg_op_shape forward_of(const struct mg_op_shape *op) {
    struct mg_op_shape forward = {.kind = MG_OP_LINEAR, .in = {op->in[0]}, .out = op->out};
    forward.in[1] = mg_transposed_shape(&op->in[1]);
    forward.in[3] = op->in[2];
    return forward;
}

static size_t input_workspace(const struct mg_context *context, const struct mg_op_shape *op) {
    if (op->params.linear.few_rows)
        return 0;
    const struct mg_op_shape forward = forward_of(op);
    const size_t weight = mg_transposed_weight_bytes(context, &op->in[1]);
    size_t bytes = mg_cpu_linear.workspace_bytes(context, &forward);
    if (weight == SIZE_MAX || bytes == SIZE_MAX || !mg_size_add(&bytes, bytes, weight))
        return SIZE_MAX;
    return bytes;
}

struct few_rows {
    const struct mg_cpu_kernels *kernels;
    const struct mg_op_call *call;
};

enum { COLUMN_TILE = 64 };

/* Tile i of the columns of one image; one image at a time, so that the batch does not change the product's order. */
static void run_column_tile(const struct few_rows *f, int64_t i) {
    const struct mg_op_call *call = f->call;
    const int64_t *dim = call->op->in[0].dim, rows = dim[1] * dim[2], filters = dim[3];
    const int64_t channels = call->op->out.dim[3], tiles = mg_ceil_div(channels, COLUMN_TILE);
    const int64_t first = i / tiles * rows, c = i % tiles * COLUMN_TILE;
    const int64_t count = channels - c < COLUMN_TILE ? channels - c : COLUMN_TILE;
    const float *dy = call->in[0], *weight = call->in[1];
    f->kernels->sum_rows(rows, count, filters, dy + first * filters, weight + c, channels,
                         (float *)call->out + first * channels + c, channels, call->in[2] != NULL);
}

static void run_column_tiles(const void *user, int64_t begin, int64_t end, int thread) {
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        run_column_tile(user, i);
}

static void run_few_rows_of_input(const struct mg_context *context, const struct mg_op_call *call) {
    const struct few_rows f = {.kernels = mg_cpu_kernels_of(context), .call = call};
    if (call->in[2] && call->in[2] != call->out)
        memcpy(call->out, call->in[2], mg_tensor_bytes(&call->op->out));
    mg_parallel_for(context->num_threads, call->op->in[0].dim[0] * mg_ceil_div(call->op->out.dim[3], COLUMN_TILE),
                    run_column_tiles, &f);
}

static void run_input(const struct mg_context *context, const struct mg_op_call *call) {
    if (call->op->params.linear.few_rows) {
        run_few_rows_of_input(context, call);
        return;
    }
    const struct mg_op_shape forward = forward_of(call->op);
    char *workspace = call->workspace;
    mg_transpose_weight(context, workspace, call->in[1], &call->op->in[1]);
    mg_cpu_linear.run(
        context, &(struct mg_op_call){.op = &forward,
                                      .in = {call->in[0], workspace, NULL, call->in[2]},
                                      .out = call->out,
                                      .workspace = workspace + mg_transposed_weight_bytes(context, &call->op->in[1])});
}

const struct mg_cpu_driver mg_cpu_linear_input_gradient = {.run = run_input, .workspace_bytes = input_workspace};

/* The weight lies as it is stored: a row for each filter. */
static void add_filters(const void *user, int64_t begin, int64_t end, int thread) {
    const struct few_rows *f = user;
    const int64_t filters = f->call->op->out.dim[0], channels = f->call->op->out.dim[1];
    const int64_t rows = mg_tensor_count(&f->call->op->in[0]) / channels;
    const float *x = f->call->in[0], *dy = f->call->in[1], *sum = f->call->in[2];
    (void)thread;
    for (int64_t k = begin; k < end; k++) {
        float *out = (float *)f->call->out + k * channels;
        if (sum != f->call->out)
            memcpy(out, sum + k * channels, (size_t)channels * sizeof *out);
        for (int64_t row = 0; row < rows; row++)
            f->kernels->combine(out, out, x + row * channels, NULL, (float[3]){1.0f, dy[row * filters + k], 0.0f},
                                channels);
    }
}

static void run_few_rows_of_weight(const struct mg_context *context, const struct mg_op_call *call) {
    const struct few_rows f = {.kernels = mg_cpu_kernels_of(context), .call = call};
    const int64_t filters = call->op->out.dim[0], channels = call->op->out.dim[1];
    mg_parallel_for(filters * channels > 65536 ? context->num_threads : 1, filters, add_filters, &f);
}

static size_t weight_workspace(const struct mg_context *context, const struct mg_op_shape *op) {
    return op->params.linear.few_rows ? 0 : mg_weight_gradient_bytes(context, op);
}

static void run_weight(const struct mg_context *context, const struct mg_op_call *call) {
    if (call->op->params.linear.few_rows)
        run_few_rows_of_weight(context, call);
    else
        mg_weight_gradient_run(context, call);
}

const struct mg_cpu_driver mg_cpu_linear_weight_gradient = {.run = run_weight, .workspace_bytes = weight_workspace};
