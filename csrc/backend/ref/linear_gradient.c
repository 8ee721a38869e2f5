/* linear_gradient.c: reference of the linear layer's gradients, and of sums over pixels. Called by ref_backend.c. */
#include "ref.h"

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

void mg_ref_vector_gradient(const struct mg_op_call *call) {
    const struct mg_slice *p = &call->op->params.slice;
    const int64_t *dim = call->op->in[0].dim;
    const float *dy = call->in[0], *sum = call->in[1];
    float *out = call->out;
    for (int64_t c = 0; c < dim[3]; c++) {
        double total = sum[c];
        for (int64_t row = 0; row < dim[0] * dim[1]; row++)
            for (int64_t column = p->begin; column < p->begin + p->count; column++)
                total += dy[(row * dim[2] + column) * dim[3] + c];
        out[c] = (float)total;
    }
}

/* An element of the result stands for `span` elements along each axis: all of the input's, or one. */
void mg_ref_reduce(const struct mg_op_call *call) {
    const int64_t *big = call->op->in[0].dim, *small = call->op->out.dim;
    const int64_t span[] = {big[0] / small[0], big[1] / small[1], big[2] / small[2]};
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t i = 0; i < mg_tensor_count(&call->op->out); i++) {
        const int64_t c = i % small[3], w = i / small[3] % small[2], h = i / small[3] / small[2] % small[1];
        const int64_t n = i / small[3] / small[2] / small[1];
        double sum = 0;
        for (int64_t j = n; j < n + span[0]; j++)
            for (int64_t y = h; y < h + span[1]; y++)
                for (int64_t column = w; column < w + span[2]; column++)
                    sum += x[((j * big[1] + y) * big[2] + column) * big[3] + c];
        out[i] = (float)sum;
    }
}
