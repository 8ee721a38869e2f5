/* activation_gradient.c: reference of the gradients of activations. */
#include "../ref.h"

void mg_ref_activation_gradient(const struct mg_op_call *call) {
    const float *x = call->in[0], *dy = call->in[1];
    float *out = call->out;
    for (int64_t i = 0; i < mg_tensor_count(&call->op->out); i++)
        out[i] = (float)(dy[i] * mg_ref_activation_derivative(x[i], call->op->params.activation));
}
