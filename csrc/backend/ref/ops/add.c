/* pointwise.c: reference of the operations that treat each element, or each pixel, by itself. */
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

void mg_ref_activation(const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)mg_ref_activate(x[i], call->op->params.activation);
}

void mg_ref_scale(const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const double factor = call->op->params.scale.factor, offset = call->op->params.scale.offset;
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)(x[i] * factor + offset);
}

void mg_ref_add(const struct mg_op_call *call) {
    const int64_t *dim = call->op->out.dim, *small = call->op->in[1].dim;
    const float *a = call->in[0], *b = call->in[1];
    float *out = call->out;
    int64_t at = 0;
    for (int64_t n = 0; n < dim[0]; n++)
        for (int64_t h = 0; h < dim[1]; h++)
            for (int64_t w = 0; w < dim[2]; w++) {
                int64_t row = (small[0] > 1 ? n : 0) * small[1] + (small[1] > 1 ? h : 0);
                const float *pixel = b + (row * small[2] + (small[2] > 1 ? w : 0)) * dim[3];
                for (int64_t c = 0; c < dim[3]; c++, at++)
                    out[at] = (float)((double)a[at] + pixel[c]);
            }
}

/* The conversion is the backend's own, for every operation: here nothing is left to do. */
void mg_ref_cast(const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t i = 0; i < count; i++)
        out[i] = x[i];
}
