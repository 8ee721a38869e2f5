/* conv2d.c: reference of the convolution. */
#include "../ref.h"

/* The ratio and the product are float32. */
int64_t mg_ref_source_index(int64_t index, int64_t in_size, int64_t upsampled) {
    if (!upsampled)
        return index;
    float ratio = (float)in_size / (float)upsampled;
    int64_t source = (int64_t)floorf((float)index * ratio);
    return source < in_size - 1 ? source : in_size - 1;
}

/* Sum over the window and the channels for output pixel (y, x) of one image (H,W,C) and one filter (C,R,S). */
static double window_sum(const struct mg_op_shape *op, const float *image, const float *filter, int64_t y, int64_t x) {
    const struct mg_conv2d *p = &op->params.conv2d;
    const int64_t in_h = op->in[0].dim[1], in_w = op->in[0].dim[2], channels = op->in[0].dim[3];
    const int64_t h = p->upsampled_h ? p->upsampled_h : in_h, w = p->upsampled_w ? p->upsampled_w : in_w;
    const int64_t size_r = op->in[1].dim[2], size_s = op->in[1].dim[3];
    double sum = 0;
    for (int64_t r = 0; r < size_r; r++) {
        int64_t row = y * p->stride + r - p->pad_top;
        if (row < 0 || row >= h)
            continue;
        for (int64_t s = 0; s < size_s; s++) {
            int64_t column = x * p->stride + s - p->pad_left;
            if (column < 0 || column >= w)
                continue;
            const float *pixel = image + (mg_ref_source_index(row, in_h, p->upsampled_h) * in_w +
                                          mg_ref_source_index(column, in_w, p->upsampled_w)) *
                                             channels;
            for (int64_t c = 0; c < channels; c++)
                sum += (double)pixel[c] * filter[(c * size_r + r) * size_s + s];
        }
    }
    return sum;
}

void mg_ref_conv2d(const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op;
    const float *x = call->in[0], *weight = call->in[1], *bias = call->in[2], *residual = call->in[3];
    const float *vector = call->in[4];
    const int64_t *in = op->in[0].dim, *out = op->out.dim, filters = out[3];
    const int64_t filter_size = op->in[1].dim[1] * op->in[1].dim[2] * op->in[1].dim[3];
    float *y = call->out;
    for (int64_t n = 0; n < out[0]; n++) {
        const float *image = x + n * in[1] * in[2] * in[3];
        const float *image_vector = vector && op->in[4].dim[0] > 1 ? vector + n * filters : vector;
        for (int64_t pixel = 0; pixel < out[1] * out[2]; pixel++)
            for (int64_t k = 0; k < filters; k++) {
                int64_t at = (n * out[1] * out[2] + pixel) * filters + k;
                double sum = window_sum(op, image, weight + k * filter_size, pixel / out[2], pixel % out[2]);
                sum += bias ? bias[k] : 0.0;
                sum += image_vector ? image_vector[k] : 0.0;
                sum += residual ? residual[at] : 0.0;
                y[at] = (float)mg_ref_activate(sum, op->params.conv2d.relu ? MG_ACT_RELU : MG_ACT_NONE);
            }
    }
}
