/* direct.c: convolution of any window and stride as a matrix product (im2col): a tile of output pixels gathers its windows,
 * a chunk of the R*S*C values at a time, and multiplies them with the same rows of the filter's panels.
 * For strided windows, and maps too small for Winograd.
 *
 * Filters in int8, which are for Winograd's sake, are turned back to float32 here, chunk by chunk: only the smallest maps come
 * this way. */
#include <string.h>

#include "../../../core/thread_pool.h"
#include "conv2d.h"
#include "row_tiles.h"

/* From one gathered row to the next: a chunk and a bit, as rows a power of two apart would evict each other from the
 * first-level cache. */
enum { GATHERED_ROW = MG_DEPTH_CHUNK + 32 };

struct direct {
    const struct mg_conv_sizes *z;
    struct mg_row_weight weight;
    const struct mg_cpu_elements *elements;
    struct mg_row_tiles tiles;
    bool widened;                                              /* int8 filters */
    size_t rows, wide_rows, wide_panel, product, sums, thread; /* bytes */
};

static struct direct direct_of(const struct mg_context *context, const struct mg_conv_sizes *z, const void *weight) {
    struct direct d = {
        .z = z,
        .weight = {.kernels = mg_cpu_kernels_of(context), .layout = z->layout, .panels = z->panels, .data = weight},
        .elements = mg_cpu_elements_of(context, z->x),
        .tiles = mg_row_tiles_of(z->out_h * z->out_w, z->k, z->layout.panel),
        .widened = z->layout.dtype == MG_I8};
    d.rows = mg_aligned_bytes(d.tiles.tile * GATHERED_ROW, (size_t)z->bytes);
    d.wide_rows = d.widened ? mg_aligned_bytes(d.tiles.tile * GATHERED_ROW, sizeof(float)) : 0;
    d.wide_panel = d.widened ? mg_aligned_bytes(z->layout.panel * MG_DEPTH_CHUNK, sizeof(float)) : 0;
    d.product = mg_row_product_floats(&d.tiles) * sizeof(float);
    d.sums = mg_aligned_bytes(z->k, sizeof(float));
    d.thread = d.rows + d.wide_rows + d.wide_panel + d.product + d.sums;
    return d;
}

size_t mg_direct_workspace(const struct mg_context *context, const struct mg_conv_sizes *z) {
    struct direct d = direct_of(context, z, NULL);
    size_t bytes;
    return mg_size_mul(&bytes, d.thread, (size_t)context->num_threads) ? bytes : SIZE_MAX;
}

/* Values begin .. begin+count of the window of one output pixel, the channels of each position rounded up to whole groups. */
static void gather_window(const struct mg_conv_sizes *z, const char *image, int64_t pixel, int64_t begin, int64_t count,
                          char *row) {
    const int64_t top = pixel / z->out_w * z->stride - z->pad_top, left = pixel % z->out_w * z->stride - z->pad_left;
    while (count > 0) {
        const int64_t position = begin / z->panels.channels, channel = begin % z->panels.channels;
        const int64_t piece = z->panels.channels - channel < count ? z->panels.channels - channel : count;
        const int64_t real = z->c - channel < piece ? z->c - channel : piece;
        const char *from = mg_conv_pixel(z, image, top + position / z->s, left + position % z->s, NULL);
        const int64_t copied = from && real > 0 ? real : 0;
        if (copied)
            memcpy(row, from + channel * z->bytes, (size_t)(copied * z->bytes));
        memset(row + copied * z->bytes, 0, (size_t)((piece - copied) * z->bytes));
        begin += piece;
        row += piece * z->bytes;
        count -= piece;
    }
}

/* As mg_row_multiply, in float32. `wide` has room for the rows and for one panel. */
static void multiply_widened(const struct direct *d, const struct mg_row_task *task, const char *rows, int64_t begin,
                             int64_t chunk, char *wide, float *product) {
    const int64_t panel = d->weight.layout.panel;
    float *wide_rows = (float *)wide, *wide_panel = (float *)(wide + d->wide_rows);
    for (int64_t i = 0; i < task->rows; i++)
        d->elements->widen(wide_rows + i * GATHERED_ROW, rows + i * GATHERED_ROW * d->z->bytes, chunk);
    for (int64_t p = 0; p < task->panels; p++) {
        const int64_t index = task->panel + p;
        const char *quads = d->weight.data + (size_t)index * d->weight.panels.panel_bytes + begin * panel;
        const float *scales = (const float *)(d->weight.data + d->weight.panels.scales) + index * panel;
        d->weight.kernels->widen_quads(wide_panel, (const int8_t *)quads, scales, chunk);
        d->weight.kernels->product_f32(task->rows, chunk, wide_rows, GATHERED_ROW, wide_panel, product + p * panel,
                                       d->tiles.group * panel, begin > 0);
    }
}

static void multiply(const struct direct *d, const struct mg_row_task *task, const char *image, char *scratch,
                     float *product) {
    const int64_t depth = d->weight.panels.rows;
    for (int64_t begin = 0; begin < depth; begin += MG_DEPTH_CHUNK) {
        const int64_t chunk = depth - begin < MG_DEPTH_CHUNK ? depth - begin : MG_DEPTH_CHUNK;
        for (int64_t i = 0; i < task->rows; i++)
            gather_window(d->z, image, task->row + i, begin, chunk, scratch + i * GATHERED_ROW * d->z->bytes);
        if (d->widened)
            multiply_widened(d, task, scratch, begin, chunk, scratch + d->rows, product);
        else
            mg_row_multiply(&d->weight, task, d->tiles.group, scratch, GATHERED_ROW, begin, chunk, product);
    }
}

static void run_task(const struct direct *d, const struct mg_op_call *call, int64_t index, char *scratch) {
    const struct mg_conv_sizes *z = d->z;
    const struct mg_row_task task = mg_row_task_at(&d->tiles, index, z->n);
    float *product = (float *)(scratch + d->rows + d->wide_rows + d->wide_panel);
    float *sums = (float *)((char *)product + d->product);
    const float *addend = mg_conv_addend(d->weight.kernels, call, task.image, sums);
    const int64_t at = ((task.image * d->tiles.rows + task.row) * z->k + task.column) * z->bytes;
    const char *residual = call->in[3];
    char *out = (char *)call->out + at;
    multiply(d, &task, mg_conv_image(z, call, task.image), scratch, product);
    d->elements->epilogue(out, z->k, product, d->tiles.group * d->tiles.panel, task.rows, task.columns,
                          addend ? addend + task.column : NULL, MG_ACT_NONE, residual ? residual + at : NULL, z->k);
    for (int64_t i = 0; call->op->params.conv2d.relu && i < task.rows; i++)
        d->elements->activate(out + i * z->k * z->bytes, out + i * z->k * z->bytes, task.columns, MG_ACT_RELU);
}

struct job {
    const struct direct *direct;
    const struct mg_op_call *call;
};

static void run_tasks(const void *user, int64_t begin, int64_t end, int thread) {
    const struct job *job = user;
    char *scratch = (char *)job->call->workspace + (size_t)thread * job->direct->thread;
    for (int64_t i = begin; i < end; i++)
        run_task(job->direct, job->call, i, scratch);
}

void mg_direct_run(const struct mg_context *context, const struct mg_op_call *call, const struct mg_conv_sizes *z) {
    const struct direct d = direct_of(context, z, call->in[1]);
    const struct job job = {.direct = &d, .call = call};
    mg_parallel_for(context->num_threads, z->n * d.tiles.tiles * d.tiles.groups, run_tasks, &job);
}
