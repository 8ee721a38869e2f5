/* linear.c: reference of the linear layer. */
#include "../ref.h"

void mg_ref_linear(const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op;
    const float *x = call->in[0], *weight = call->in[1], *bias = call->in[2], *residual = call->in[3];
    const int64_t channels = op->in[0].dim[3], outputs = op->out.dim[3];
    const int64_t rows = mg_tensor_count(&op->in[0]) / channels;
    float *y = call->out;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < outputs; k++) {
            double sum = bias ? bias[k] : 0.0;
            for (int64_t c = 0; c < channels; c++)
                sum += (double)x[row * channels + c] * weight[k * channels + c];
            sum = mg_ref_activate(sum, op->params.linear.activation);
            sum += residual ? residual[row * outputs + k] : 0.0;
            y[row * outputs + k] = (float)sum;
        }
}
