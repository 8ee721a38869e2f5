/* vector_gradient.c: reference of the gradient of a vector of channels that was added to every pixel. */
#include "../ref.h"

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
