/* conv2d_gradient.c: reference of the convolution's gradients. */
#include "../ref.h"

/* Every product of the convolution: output pixel (y, x), window position (r, s), input pixel (row, column) within the
 * (upsampled) input. visit() is called in the order of the loops. */
struct walk {
    const struct mg_conv2d *p;
    int64_t out_h, out_w, r, s, h, w;
};

typedef void visit_fn(void *user, int64_t out_pixel, int64_t position, int64_t row, int64_t column);

static void walk(const struct walk *z, visit_fn *visit, void *user) {
    for (int64_t y = 0; y < z->out_h; y++)
        for (int64_t x = 0; x < z->out_w; x++)
            for (int64_t r = 0; r < z->r; r++)
                for (int64_t s = 0; s < z->s; s++) {
                    const int64_t row = y * z->p->stride + r - z->p->pad_top;
                    const int64_t column = x * z->p->stride + s - z->p->pad_left;
                    if (row >= 0 && row < z->h && column >= 0 && column < z->w)
                        visit(user, y * z->out_w + x, r * z->s + s, row, column);
                }
}

/* ---- of the input: one channel at a time, so that its sums are double ---- */
struct input_job {
    const float *dy, *weight;
    double *sums;                                /* of one channel of one image */
    int64_t c, channels, filters, window, width; /* weight (filters, channels, window) */
};

static void add_to_input(void *user, int64_t out_pixel, int64_t position, int64_t row, int64_t column) {
    const struct input_job *job = user;
    double sum = 0;
    for (int64_t k = 0; k < job->filters; k++)
        sum += (double)job->dy[out_pixel * job->filters + k] *
               job->weight[(k * job->channels + job->c) * job->window + position];
    job->sums[row * job->width + column] += sum;
}

size_t mg_ref_conv2d_input_gradient_bytes(const struct mg_op_shape *op) {
    return (size_t)(op->out.dim[1] * op->out.dim[2]) * sizeof(double);
}

void mg_ref_conv2d_input_gradient(const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op;
    const int64_t *dy = op->in[0].dim, *weight = op->in[1].dim, *out = op->out.dim, pixels = out[1] * out[2];
    const struct walk z = {.p = &op->params.conv2d,
                           .out_h = dy[1],
                           .out_w = dy[2],
                           .r = weight[2],
                           .s = weight[3],
                           .h = out[1],
                           .w = out[2]};
    const float *sum = call->in[2];
    float *dx = call->out;
    struct input_job job = {.weight = call->in[1],
                            .sums = call->workspace,
                            .channels = out[3],
                            .filters = dy[3],
                            .window = weight[2] * weight[3],
                            .width = out[2]};
    for (int64_t n = 0; n < out[0]; n++)
        for (job.c = 0; job.c < out[3]; job.c++) {
            job.dy = (const float *)call->in[0] + n * dy[1] * dy[2] * dy[3];
            for (int64_t i = 0; i < pixels; i++)
                job.sums[i] = 0;
            walk(&z, add_to_input, &job);
            for (int64_t i = 0; i < pixels; i++) {
                const int64_t at = (n * pixels + i) * out[3] + job.c;
                dx[at] = (float)(job.sums[i] + (sum ? sum[at] : 0.0));
            }
        }
}

/* ---- of the weight: one filter and channel at a time ---- */
enum { MOST_POSITIONS = 1024 };

struct weight_job {
    const float *x, *dy;
    double sums[MOST_POSITIONS]; /* of one filter and channel, by position */
    int64_t c, k, channels, filters, in_h, in_w;
    const struct mg_conv2d *p;
    int64_t first; /* position of sums[0] */
};

static void add_to_weight(void *user, int64_t out_pixel, int64_t position, int64_t row, int64_t column) {
    struct weight_job *job = user;
    if (position < job->first || position >= job->first + MOST_POSITIONS)
        return;
    const int64_t y = mg_ref_source_index(row, job->in_h, job->p->upsampled_h);
    const int64_t x = mg_ref_source_index(column, job->in_w, job->p->upsampled_w);
    job->sums[position - job->first] +=
        (double)job->dy[out_pixel * job->filters + job->k] * job->x[(y * job->in_w + x) * job->channels + job->c];
}

void mg_ref_conv2d_weight_gradient(const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op;
    const struct mg_conv2d *p = &op->params.conv2d;
    const int64_t *x = op->in[0].dim, *dy = op->in[1].dim, *out = op->out.dim, window = out[2] * out[3];
    const struct walk z = {.p = p,
                           .out_h = dy[1],
                           .out_w = dy[2],
                           .r = out[2],
                           .s = out[3],
                           .h = p->upsampled_h ? p->upsampled_h : x[1],
                           .w = p->upsampled_w ? p->upsampled_w : x[2]};
    const float *sum = call->in[2];
    float *dw = call->out;
    struct weight_job job = {.channels = x[3], .filters = dy[3], .in_h = x[1], .in_w = x[2], .p = p};
    for (job.k = 0; job.k < out[0]; job.k++)
        for (job.c = 0; job.c < out[1]; job.c++)
            for (job.first = 0; job.first < window; job.first += MOST_POSITIONS) {
                const int64_t left = window - job.first, count = left < MOST_POSITIONS ? left : MOST_POSITIONS;
                float *to = dw + (job.k * out[1] + job.c) * window + job.first;
                const float *from = sum + (to - dw);
                for (int64_t i = 0; i < count; i++)
                    job.sums[i] = 0;
                for (int64_t n = 0; n < x[0]; n++) {
                    job.x = (const float *)call->in[0] + n * x[1] * x[2] * x[3];
                    job.dy = (const float *)call->in[1] + n * dy[1] * dy[2] * dy[3];
                    walk(&z, add_to_weight, &job);
                }
                for (int64_t i = 0; i < count; i++)
                    to[i] = (float)(from[i] + job.sums[i]);
            }
}
