/* self_attention_gradient.c: reference of the three gradients of attention in one: the parts one after the other, then
 * side by side. Workspace: attention_rows, and the parts. */
#include "../ref.h"

static int64_t rows_count(const struct mg_op_shape *op) {
    return mg_tensor_count(&op->in[0]) / op->in[0].dim[3] * 2 * op->params.attention.heads;
}

size_t mg_ref_self_attention_gradient_bytes(const struct mg_op_shape *op) {
    return (size_t)(rows_count(op) + 3 * mg_tensor_count(&op->in[0])) * sizeof(float);
}

void mg_ref_self_attention_gradient(const struct mg_op_call *call) {
    const int64_t channels = call->op->in[0].dim[3], count = mg_tensor_count(&call->op->in[0]);
    float *rows = call->workspace, *queries = rows + rows_count(call->op), *keys = queries + count, *out = call->out;
    mg_ref_attention_rows(
        &(struct mg_op_call){.op = call->op, .in = {call->in[0], call->in[1], call->in[3], call->in[4]}, .out = rows});
    struct mg_op_call part = {
        .op = call->op, .in = {call->in[0], call->in[1], call->in[2], call->in[4], rows}, .out = queries};
    mg_ref_attention_query_gradient(&part);
    part.out = keys;
    mg_ref_attention_key_value_gradient(&part);
    for (int64_t i = 0; i < count / channels; i++)
        for (int64_t c = 0; c < channels; c++) {
            out[i * 3 * channels + c] = queries[i * channels + c];
            out[(i * 3 + 1) * channels + c] = keys[i * 2 * channels + c];
            out[(i * 3 + 2) * channels + c] = keys[(i * 2 + 1) * channels + c];
        }
}
