/* geglu_gradient.c: reference of the gradient of GEGLU. */
#include "../ref.h"

void mg_ref_geglu_gradient(const struct mg_op_call *call) {
    const int64_t channels = call->op->in[1].dim[3], pixels = mg_tensor_count(&call->op->in[1]) / channels;
    const float *x = call->in[0], *dy = call->in[1];
    float *out = call->out;
    for (int64_t pixel = 0; pixel < pixels; pixel++)
        for (int64_t c = 0; c < channels; c++) {
            const int64_t at = pixel * 2 * channels + c;
            const double value = x[at], gate = x[at + channels], g = dy[pixel * channels + c];
            out[at] = (float)(g * mg_ref_gelu(gate));
            out[at + channels] = (float)(g * value * mg_ref_activation_derivative(gate, MG_ACT_GELU));
        }
}
