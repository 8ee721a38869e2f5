/* layernorm.c: reference of layer normalisation. */
#include "../ref.h"

void mg_ref_layernorm(const struct mg_op_call *call) {
    const int64_t channels = call->op->in[0].dim[3], count = mg_tensor_count(&call->op->in[0]);
    const struct mg_ref_block block = {.rows = 1, .columns = channels, .stride = channels};
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t at = 0; at < count; at += channels)
        mg_ref_normalise(out + at, x + at, call->in[1], call->in[2], block, call->op->params.layernorm.epsilon,
                         MG_ACT_NONE);
}
