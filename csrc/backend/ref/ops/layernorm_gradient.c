/* layernorm_gradient.c: reference of the gradients of layer normalisation; groupnorm_gradient.c has the formula. */
#include "../ref.h"

void mg_ref_layernorm_sums(const struct mg_op_call *call) {
    const int64_t *dim = call->op->in[0].dim, pixels = dim[1] * dim[2], channels = dim[3];
    const struct mg_ref_block block = {.rows = 1, .columns = channels, .stride = channels};
    for (int64_t n = 0; n < dim[0]; n++) {
        const float *x = (const float *)call->in[0] + n * pixels * channels;
        const float *dy = (const float *)call->in[1] + n * pixels * channels;
        float *out = (float *)call->out + n * 2 * channels;
        for (int64_t c = 0; c < channels; c++) {
            double sum = 0, sum_of_products = 0;
            for (int64_t pixel = 0; pixel < pixels; pixel++) {
                double mean, inverse;
                mg_ref_statistics(&mean, &inverse, x + pixel * channels, block, call->op->params.layernorm.epsilon);
                sum += dy[pixel * channels + c];
                sum_of_products += dy[pixel * channels + c] * (x[pixel * channels + c] - mean) * inverse;
            }
            out[c] = (float)sum;
            out[channels + c] = (float)sum_of_products;
        }
    }
}

void mg_ref_layernorm_gradient(const struct mg_op_call *call) {
    const int64_t channels = call->op->in[0].dim[3], count = mg_tensor_count(&call->op->in[0]);
    const struct mg_ref_block block = {.rows = 1, .columns = channels, .stride = channels};
    const float *gamma = call->in[1];
    for (int64_t at = 0; at < count; at += channels) {
        const float *x = (const float *)call->in[0] + at, *dy = (const float *)call->in[2] + at;
        float *out = (float *)call->out + at;
        double mean, inverse, average = 0, projection = 0;
        mg_ref_statistics(&mean, &inverse, x, block, call->op->params.layernorm.epsilon);
        for (int64_t c = 0; c < channels; c++) {
            average += (double)gamma[c] * dy[c] / (double)channels;
            projection += (double)gamma[c] * dy[c] * (x[c] - mean) * inverse / (double)channels;
        }
        for (int64_t c = 0; c < channels; c++)
            out[c] = (float)(((double)gamma[c] * dy[c] - average - (x[c] - mean) * inverse * projection) * inverse);
    }
}
