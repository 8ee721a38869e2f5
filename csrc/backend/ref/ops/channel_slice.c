/* channel_slice.c: reference of slices of channels. */
#include "../ref.h"

void mg_ref_channel_slice(const struct mg_op_call *call) {
    const struct mg_slice *p = &call->op->params.slice;
    const int64_t pixels = mg_tensor_count(&call->op->out) / p->count;
    mg_ref_copy_channels(call->out, 0, p->count, call->in[0], p->begin, call->op->in[0].dim[3], p->count, pixels);
}
