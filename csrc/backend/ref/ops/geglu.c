/* geglu.c: reference of GEGLU. */
#include "../ref.h"

void mg_ref_geglu(const struct mg_op_call *call) {
    const int64_t channels = call->op->out.dim[3], pixels = mg_tensor_count(&call->op->out) / channels;
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t pixel = 0; pixel < pixels; pixel++)
        for (int64_t c = 0; c < channels; c++) {
            const float *value = x + pixel * 2 * channels + c;
            out[pixel * channels + c] = (float)(value[0] * mg_ref_gelu(value[channels]));
        }
}
