/* channel_pad.c: reference of padding with zero channels, the gradient of channel_slice. */
#include "../ref.h"

void mg_ref_channel_pad(const struct mg_op_call *call) {
    const struct mg_slice *p = &call->op->params.slice;
    const int64_t channels = call->op->out.dim[3], count = mg_tensor_count(&call->op->out);
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t i = 0; i < count; i++) {
        const int64_t c = i % channels - p->begin;
        out[i] = c >= 0 && c < p->count ? x[i / channels * p->count + c] : 0.0f;
    }
}
