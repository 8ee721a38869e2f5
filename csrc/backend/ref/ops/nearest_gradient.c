/* pointwise_gradient.c: reference of the gradients of activations and GEGLU, of channel_slice and of nearest upsampling. */
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
            out[at + channels] = (float)(g * value * mg_ref_activation_slope(gate, MG_ACT_GELU));
        }
}

void mg_ref_activation_gradient(const struct mg_op_call *call) {
    const float *x = call->in[0], *dy = call->in[1];
    float *out = call->out;
    for (int64_t i = 0; i < mg_tensor_count(&call->op->out); i++)
        out[i] = (float)(dy[i] * mg_ref_activation_slope(x[i], call->op->params.activation));
}

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

void mg_ref_nearest_gradient(const struct mg_op_call *call) {
    const int64_t *big = call->op->in[0].dim, *small = call->op->out.dim;
    const float *dy = call->in[0];
    float *out = call->out;
    for (int64_t n = 0; n < small[0]; n++)
        for (int64_t y = 0; y < small[1]; y++)
            for (int64_t x = 0; x < small[2]; x++)
                for (int64_t c = 0; c < small[3]; c++) {
                    double sum = 0;
                    for (int64_t row = 0; row < big[1]; row++)
                        for (int64_t column = 0; column < big[2]; column++)
                            if (mg_ref_source_index(row, small[1], big[1]) == y &&
                                mg_ref_source_index(column, small[2], big[2]) == x)
                                sum += dy[((n * big[1] + row) * big[2] + column) * big[3] + c];
                    out[((n * small[1] + y) * small[2] + x) * small[3] + c] = (float)sum;
                }
}
