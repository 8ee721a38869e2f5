/* reduce.c: reference of sums over images, rows and columns. */
#include "../ref.h"

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
