/* activation.c: reference of activations. */
#include "../ref.h"

void mg_ref_activation(const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)mg_ref_activate(x[i], call->op->params.activation);
}
