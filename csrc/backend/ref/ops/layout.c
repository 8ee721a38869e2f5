/* layout.c: reference of the operations that only move elements. */
#include "../ref.h"

/* Copies `count` channels of every pixel, from channel `in_begin` of in_channels to `out_begin` of out_channels. */
static void copy_channels(float *out, int64_t out_begin, int64_t out_channels, const float *in, int64_t in_begin,
                          int64_t in_channels, int64_t count, int64_t pixels) {
    for (int64_t pixel = 0; pixel < pixels; pixel++)
        for (int64_t c = 0; c < count; c++)
            out[pixel * out_channels + out_begin + c] = in[pixel * in_channels + in_begin + c];
}

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

void mg_ref_concat(const struct mg_op_call *call) {
    const int64_t a = call->op->in[0].dim[3], b = call->op->in[1].dim[3];
    const int64_t pixels = mg_tensor_count(&call->op->out) / (a + b);
    copy_channels(call->out, 0, a + b, call->in[0], 0, a, a, pixels);
    copy_channels(call->out, a, a + b, call->in[1], 0, b, b, pixels);
}

void mg_ref_channel_slice(const struct mg_op_call *call) {
    const struct mg_slice *p = &call->op->params.slice;
    const int64_t pixels = mg_tensor_count(&call->op->out) / p->count;
    copy_channels(call->out, 0, p->count, call->in[0], p->begin, call->op->in[0].dim[3], p->count, pixels);
}
