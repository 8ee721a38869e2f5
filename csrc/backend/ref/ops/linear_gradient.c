/* linear_gradient.c: reference of the linear layer's gradients. */
#include "../ref.h"

void mg_ref_linear_input_gradient(const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op;
    const int64_t filters = op->in[0].dim[3], channels = op->out.dim[3];
    const int64_t rows = mg_tensor_count(&op->in[0]) / filters;
    const float *dy = call->in[0], *weight = call->in[1], *sum = call->in[2];
    float *dx = call->out;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t c = 0; c < channels; c++) {
            double total = sum ? sum[row * channels + c] : 0.0;
            for (int64_t k = 0; k < filters; k++)
                total += (double)dy[row * filters + k] * weight[k * channels + c];
            dx[row * channels + c] = (float)total;
        }
}

void mg_ref_linear_weight_gradient(const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op;
    const int64_t filters = op->out.dim[0], channels = op->out.dim[1];
    const int64_t rows = mg_tensor_count(&op->in[0]) / channels;
    const float *x = call->in[0], *dy = call->in[1], *sum = call->in[2];
    float *dw = call->out;
    for (int64_t k = 0; k < filters; k++)
        for (int64_t c = 0; c < channels; c++) {
            double total = sum[k * channels + c];
            for (int64_t row = 0; row < rows; row++)
                total += (double)dy[row * filters + k] * x[row * channels + c];
            dw[k * channels + c] = (float)total;
        }
}
