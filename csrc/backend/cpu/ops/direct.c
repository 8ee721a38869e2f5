/* direct.c: convolution of any window and stride as a matrix product (im2col): a tile of output pixels gathers its windows,
 * a chunk of the R*S*C values at a time, and multiplies them with the same rows of the filter's panels. Called by conv2d.c
 * for strided windows, 1x1 windows with stride, and maps too small for Winograd. */
#include <omp.h>
#include <string.h>

#include "conv2d.h"
#include "row_tiles.h"

struct direct {
    const struct mg_conv_sizes *z;
    const struct mg_cpu_kernels *kernels;
    struct mg_row_tiles tiles;
    int64_t depth; /* R*S*C */
    size_t rows_floats, product_floats, thread_floats;
};

static struct direct direct_of(const struct mg_context *context, const struct mg_conv_sizes *z) {
    struct direct d = {.z = z, .kernels = mg_cpu_kernels_of(context), .depth = z->r * z->s * z->c};
    d.tiles = mg_row_tiles_of(z->out_h * z->out_w, z->k, d.kernels->panel);
    d.rows_floats = (size_t)(d.tiles.tile * MG_DEPTH_CHUNK);
    d.product_floats = mg_row_product_floats(&d.tiles);
    d.thread_floats = d.rows_floats + d.product_floats + (size_t)((z->k + 15) / 16 * 16);
    return d;
}

size_t mg_direct_workspace(const struct mg_context *context, const struct mg_conv_sizes *z) {
    struct direct d = direct_of(context, z);
    return mg_workspace_floats(d.thread_floats, (size_t)context->num_threads, 0);
}

/* Values begin .. begin+count of the window of one output pixel. */
static void gather_window(const struct mg_conv_sizes *z, const float *image, int64_t pixel, int64_t begin,
                          int64_t count, float *row) {
    const int64_t top = pixel / z->out_w * z->stride - z->pad_top, left = pixel % z->out_w * z->stride - z->pad_left;
    while (count > 0) {
        const int64_t position = begin / z->c, channel = begin % z->c;
        const int64_t piece = z->c - channel < count ? z->c - channel : count;
        const float *from = mg_conv_pixel(z, image, top + position / z->s, left + position % z->s, NULL);
        if (from)
            memcpy(row, from + channel, (size_t)piece * sizeof(float));
        else
            memset(row, 0, (size_t)piece * sizeof(float));
        begin += piece;
        row += piece;
        count -= piece;
    }
}

static void multiply(const struct direct *d, const struct mg_row_task *task, const float *image, const float *weight,
                     float *rows, float *product) {
    const int64_t panel = d->tiles.panel, ld = d->tiles.group * panel;
    for (int64_t begin = 0; begin < d->depth; begin += MG_DEPTH_CHUNK) {
        const int64_t chunk = d->depth - begin < MG_DEPTH_CHUNK ? d->depth - begin : MG_DEPTH_CHUNK;
        for (int64_t i = 0; i < task->rows; i++)
            gather_window(d->z, image, task->row + i, begin, chunk, rows + i * chunk);
        for (int64_t p = 0; p < task->panels; p++)
            d->kernels->gemm_panel(task->rows, chunk, rows, chunk,
                                   weight + ((task->panel + p) * d->depth + begin) * panel, product + p * panel, ld,
                                   begin > 0);
    }
}

static void run_task(const struct direct *d, const struct mg_op_call *call, int64_t index, float *scratch) {
    const struct mg_conv_sizes *z = d->z;
    const struct mg_row_task task = mg_row_task_at(&d->tiles, index, z->n);
    float *rows = scratch, *product = rows + d->rows_floats, *sums = product + d->product_floats;
    const float *image = (const float *)call->in[0] + task.image * z->in_h * z->in_w * z->c, *residual = call->in[3];
    const float *addend = mg_conv_addend(d->kernels, call, task.image, sums);
    const int64_t at = (task.image * d->tiles.rows + task.row) * z->k + task.column;
    float *out = (float *)call->out + at;
    multiply(d, &task, image, call->in[1], rows, product);
    d->kernels->epilogue(out, z->k, product, d->tiles.group * d->tiles.panel, task.rows, task.columns,
                         addend ? addend + task.column : NULL, MG_ACT_NONE, residual ? residual + at : NULL, z->k);
    for (int64_t i = 0; call->op->params.conv2d.relu && i < task.rows; i++)
        d->kernels->activate(out + i * z->k, out + i * z->k, task.columns, MG_ACT_RELU);
}

void mg_direct_run(const struct mg_context *context, const struct mg_op_call *call, const struct mg_conv_sizes *z) {
    const struct direct d = direct_of(context, z);
    const int64_t tasks = z->n * d.tiles.tiles * d.tiles.groups;
    float *workspace = call->workspace;
#pragma omp parallel num_threads(context->num_threads) if (tasks > 1)
    {
        float *mine = workspace + (size_t)omp_get_thread_num() * d.thread_floats;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < tasks; i++)
            run_task(&d, call, i, mine);
    }
}
