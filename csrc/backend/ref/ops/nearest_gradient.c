/* nearest_gradient.c: reference of the gradient of nearest upsampling. */
#include "../ref.h"

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
