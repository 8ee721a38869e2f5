/* layout.c: reference of the change between channels first and channels last. */
#include "../ref.h"

/* out[n][b][a] = in[n][a][b] */
static void transpose(float *out, const float *in, int64_t images, int64_t size_a, int64_t size_b) {
    for (int64_t n = 0; n < images; n++)
        for (int64_t a = 0; a < size_a; a++)
            for (int64_t b = 0; b < size_b; b++)
                out[(n * size_b + b) * size_a + a] = in[(n * size_a + a) * size_b + b];
}

void mg_ref_nchw_to_nhwc(const struct mg_op_call *call) {
    const int64_t *nchw = call->op->in[0].dim;
    transpose(call->out, call->in[0], nchw[0], nchw[1], nchw[2] * nchw[3]);
}

void mg_ref_nhwc_to_nchw(const struct mg_op_call *call) {
    const int64_t *nhwc = call->op->in[0].dim;
    transpose(call->out, call->in[0], nhwc[0], nhwc[1] * nhwc[2], nhwc[3]);
}
