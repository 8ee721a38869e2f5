/* concat.c: reference of the concatenation of channels. */
#include "../ref.h"

void mg_ref_concat(const struct mg_op_call *call) {
    const int64_t a = call->op->in[0].dim[3], b = call->op->in[1].dim[3];
    const int64_t pixels = mg_tensor_count(&call->op->out) / (a + b);
    mg_ref_copy_channels(call->out, 0, a + b, call->in[0], 0, a, a, pixels);
    mg_ref_copy_channels(call->out, a, a + b, call->in[1], 0, b, b, pixels);
}
