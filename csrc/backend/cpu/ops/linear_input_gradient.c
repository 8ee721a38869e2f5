/* linear_input_gradient.c: dy times the weight, plus a sum. Many rows go through the driver of linear with the transposed
 * weight; few rows meet it as it is stored. Called by cpu_backend.c.
 * Workspace: the transposed weight, what linear needs. */
#include <cblas.h>

#include "transposed_weight.h"

static struct mg_op_shape forward_of(const struct mg_op_shape *op) {
    struct mg_op_shape forward = {.kind = MG_OP_LINEAR, .in = {op->in[0]}, .out = op->out};
    forward.in[1] = mg_transposed_shape(&op->in[1]);
    forward.in[3] = op->in[2];
    return forward;
}

static size_t workspace_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    if (op->params.linear.few_rows)
        return 0;
    const struct mg_op_shape forward = forward_of(op);
    const size_t weight = mg_transposed_weight_bytes(context, &op->in[1]);
    size_t bytes = mg_cpu_linear.workspace_bytes(context, &forward);
    if (weight == SIZE_MAX || bytes == SIZE_MAX || !mg_size_add(&bytes, bytes, weight))
        return SIZE_MAX;
    return bytes;
}

enum { COLUMN_TILE = 64 };

/* One image at a time, so that the batch does not change the product's order. */
static void run_few_rows(const struct mg_context *context, const struct mg_op_call *call) {
    const int64_t *dim = call->op->in[0].dim, rows = dim[1] * dim[2], filters = dim[3];
    const int64_t channels = call->op->out.dim[3], tiles = mg_ceil_div(channels, COLUMN_TILE);
    const float *dy = call->in[0], *weight = call->in[1];
    float *out = call->out;
    if (call->in[2] && call->in[2] != call->out)
        memcpy(out, call->in[2], mg_tensor_bytes(&call->op->out));
#pragma omp parallel for num_threads(context->num_threads) schedule(static) if (tiles > 1)
    for (int64_t i = 0; i < dim[0] * tiles; i++) {
        const int64_t first = i / tiles * rows, c = i % tiles * COLUMN_TILE;
        const int64_t count = channels - c < COLUMN_TILE ? channels - c : COLUMN_TILE;
        scipy_cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)count, (int)filters, 1.0f,
                          dy + first * filters, (int)filters, weight + c, (int)channels, call->in[2] ? 1.0f : 0.0f,
                          out + first * channels + c, (int)channels);
    }
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    if (call->op->params.linear.few_rows) {
        run_few_rows(context, call);
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

const struct mg_cpu_driver mg_cpu_linear_input_gradient = {.run = run, .workspace_bytes = workspace_bytes};
