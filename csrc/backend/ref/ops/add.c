/* add.c: reference of sums, the second operand broadcast. */
#include "../ref.h"

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
