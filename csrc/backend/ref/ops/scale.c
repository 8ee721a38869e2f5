/* scale.c: reference of scaling. */
#include "../ref.h"

void mg_ref_scale(const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const double factor = call->op->params.scale.factor, offset = call->op->params.scale.offset;
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)(x[i] * factor + offset);
}
