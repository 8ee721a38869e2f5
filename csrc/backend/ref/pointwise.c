/* pointwise.c: reference of the operations that treat each element, or each pixel, by itself. Called by ref_backend.c.
 */
#include "ref.h"

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

void mg_ref_scheduler_step(const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const float *sample = call->in[0], *model_output = call->in[1], *factors = call->in[2], *noise = call->in[3];
    float *out = call->out;
    for (int64_t i = 0; i < count; i++) {
        double sum = (double)factors[0] * sample[i] + (double)factors[1] * model_output[i];
        sum += noise ? (double)factors[2] * noise[i] : 0.0;
        out[i] = (float)sum;
    }
}

/* A NaN stays a NaN. */
static double clip_to_unit(double x) { return x < -1 ? -1 : x > 1 ? 1 : x; }

void mg_ref_depth_head(const struct mg_op_call *call) {
    const int64_t channels = call->op->in[0].dim[3], pixels = mg_tensor_count(&call->op->out);
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t pixel = 0; pixel < pixels; pixel++) {
        double mean = 0;
        for (int64_t c = 0; c < channels; c++)
            mean += x[pixel * channels + c];
        out[pixel] = (float)((clip_to_unit(mean / (double)channels) + 1) / 2);
    }
}

void mg_ref_normals_head(const struct mg_op_call *call) {
    const int64_t pixels = mg_tensor_count(&call->op->out) / 3;
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t pixel = 0; pixel < pixels; pixel++) {
        double normal[3], squares = 0;
        for (int c = 0; c < 3; c++) {
            normal[c] = clip_to_unit(x[pixel * 3 + c]);
            if (c == 2 && !call->op->params.normals_head.full_z)
                normal[c] = (normal[c] + 1) / 2;
            squares += normal[c] * normal[c];
        }
        const double length = sqrt(squares), divisor = length < 1e-6 ? 1e-6 : length;
        for (int c = 0; c < 3; c++)
            out[pixel * 3 + c] = (float)(normal[c] / divisor);
    }
}

void mg_ref_intrinsics_head(const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)((clip_to_unit(x[i]) + 1) / 2);
}

/* The conversion is the backend's own, for every operation: here nothing is left to do. */
void mg_ref_cast(const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t i = 0; i < count; i++)
        out[i] = x[i];
}
