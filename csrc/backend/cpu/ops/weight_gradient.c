/* weight_gradient.c: see weight_gradient.h: for each position of the window, input pixels
 * (transposed) times output pixels, added to the gradient in the panels in which the weight lies.
 *
 * A task has some channels at one position of the window and some panels of filters, and runs over all images in chunks of
 * pixels. Pixels are added one after the other to what is there, so neither threads nor the cutting into chunks and batches
 * change a bit. bfloat16: two pixels at a time, their channels side by side. Workspace: zeros for pixels outside the image; pointers,
 * pairs of pixels and a packed panel of dy for each thread. */
#include <string.h>

#include "../../../core/thread_pool.h"
#include "conv2d.h"
#include "weight_gradient.h"

enum {
    PIXEL_CHUNK = 128, /* a packed panel of dy of so many pixels stays in the first-level cache */
    CHANNEL_TILE = 96, /* of a task; a multiple of the rows of the kernel's largest tile */
    CHANNEL_STEP = 12,
    PANEL_GROUP = 8, /* channels times filters of a task stay in the second-level cache */
    LEAST_TASKS = 8  /* where there are channels and filters enough */
};

struct weight_gradient {
    const struct mg_cpu_kernels *kernels;
    struct mg_conv_sizes sizes; /* a linear layer is a convolution with a window of one pixel */
    int64_t panel, panels, window, pixels;
    int64_t tile, tiles, group, groups;
    bool half;
    size_t zeros, pointers, pairs, packed, thread; /* bytes */
};

/* The convolution whose weight it is; a linear layer's pixels in one row. */
static struct mg_op_shape forward_of(const struct mg_op_shape *op) {
    struct mg_op_shape forward = {.kind = MG_OP_CONV2D, .in = {op->in[0], op->out}, .out = op->in[1]};
    /* The layout of the gradient, which is float32 always. */
    if (op->kind == MG_OP_CONV2D_WEIGHT_GRADIENT) {
        forward.params.conv2d = op->params.conv2d;
        return forward;
    }
    forward.params.conv2d.stride = 1;
    forward.in[1].ndim = 4;
    forward.in[1].dim[2] = forward.in[1].dim[3] = 1;
    return forward;
}

static void cut(struct weight_gradient *g) {
    g->tile = CHANNEL_TILE;
    g->group = PANEL_GROUP;
    for (;;) {
        g->tiles = mg_ceil_div(g->sizes.c, g->tile);
        g->groups = mg_ceil_div(g->panels, g->group);
        if (g->window * g->tiles * g->groups >= LEAST_TASKS || (g->tile == CHANNEL_STEP && g->group == 1))
            return;
        if (g->group > 1 && (g->group * g->panel > g->tile || g->tile == CHANNEL_STEP))
            g->group /= 2;
        else
            g->tile /= 2;
    }
}

static struct weight_gradient weight_gradient_of(const struct mg_context *context, const struct mg_op_shape *forward) {
    struct weight_gradient g = {.kernels = mg_cpu_kernels_of(context), .sizes = mg_conv_sizes_of(context, forward)};
    g.panel = g.kernels->panel;
    g.panels = mg_ceil_div(g.sizes.k, g.panel);
    g.window = g.sizes.r * g.sizes.s;
    g.pixels = g.sizes.out_h * g.sizes.out_w;
    cut(&g);
    g.half = g.sizes.x->dtype == MG_BF16;
    g.zeros = mg_aligned((size_t)g.sizes.c * sizeof(float));
    g.pointers = mg_aligned(PIXEL_CHUNK * sizeof(void *));
    g.pairs = g.half ? mg_aligned((size_t)(PIXEL_CHUNK / 2 * g.tile) * sizeof(uint32_t)) : 0;
    g.packed = mg_aligned((size_t)(PIXEL_CHUNK * g.panel) * sizeof(float));
    g.thread = g.pointers + g.pairs + g.packed;
    return g;
}

size_t mg_weight_gradient_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    const struct mg_op_shape forward = forward_of(op);
    const struct weight_gradient g = weight_gradient_of(context, &forward);
    size_t bytes;
    if (mg_winograd_has_weight_gradient(context, &g.sizes))
        return mg_winograd_weight_gradient_bytes(context, &g.sizes);
    if (!mg_size_mul(&bytes, g.thread, (size_t)context->num_threads) || !mg_size_add(&bytes, bytes, g.zeros))
        return SIZE_MAX;
    return bytes;
}

/* The input pixel that meets position `position` of the window at each of the output pixels. */
static void find_pixels(const struct weight_gradient *g, const char *image, int64_t position, int64_t first,
                        int64_t count, const void **out, const float *zeros) {
    const struct mg_conv_sizes *z = &g->sizes;
    const int64_t r = position / z->s - z->pad_top, s = position % z->s - z->pad_left;
    for (int64_t i = 0; i < count; i++) {
        const int64_t y = (first + i) / z->out_w, x = (first + i) % z->out_w;
        out[i] = mg_conv_pixel(z, image, y * z->stride + r, x * z->stride + s, zeros);
    }
}

/* Filters k .. k+panel of `count` pixels of dy, zeros past the last. */
static void pack_panel(const struct weight_gradient *g, const float *dy, int64_t k, int64_t count, float *out) {
    const int64_t real = g->sizes.k - k < g->panel ? g->sizes.k - k : g->panel;
    for (int64_t i = 0; i < count; i++, out += g->panel, dy += g->sizes.k) {
        memcpy(out, dy + k, (size_t)real * sizeof *out);
        memset(out + real, 0, (size_t)(g->panel - real) * sizeof *out);
    }
}

/* Of dy as pack_panel, two pixels side by side. */
static void pack_pairs(const struct weight_gradient *g, const mg_bf16 *dy, int64_t k, int64_t count, uint32_t *out) {
    const int64_t filters = g->sizes.k, real = filters - k < g->panel ? filters - k : g->panel;
    for (int64_t i = 0; i < count; i += 2, out += g->panel, dy += 2 * filters) {
        g->kernels->pair_rows(out, dy + k, i + 1 < count ? dy + filters + k : NULL, real);
        memset(out + real, 0, (size_t)(g->panel - real) * sizeof *out);
    }
}

/* The channels of each two of the pixels found, side by side; the pointers then show the pairs. Returns their number. */
static int64_t pair_pixels(const struct weight_gradient *g, const void **pixels, int64_t count, int64_t channel,
                           int64_t channels, uint32_t *out) {
    for (int64_t i = 0; i < count; i += 2, out += channels) {
        const mg_bf16 *second = i + 1 < count ? (const mg_bf16 *)pixels[i + 1] + channel : NULL;
        g->kernels->pair_rows(out, (const mg_bf16 *)pixels[i] + channel, second, channels);
        pixels[i / 2] = out;
    }
    return (count + 1) / 2;
}

static void run_task(const struct weight_gradient *g, const struct mg_op_call *call, int64_t index, char *scratch) {
    const struct mg_conv_sizes *z = &g->sizes;
    const int64_t position = index / (g->tiles * g->groups), channel = index / g->groups % g->tiles * g->tile;
    const int64_t panel = index % g->groups * g->group;
    const int64_t channels = z->c - channel < g->tile ? z->c - channel : g->tile;
    const int64_t panels = g->panels - panel < g->group ? g->panels - panel : g->group;
    const void **pointers = (const void **)scratch;
    void *pairs = scratch + g->pointers, *packed = scratch + g->pointers + g->pairs;
    for (int64_t n = 0; n < z->n; n++)
        for (int64_t pixel = 0; pixel < g->pixels; pixel += PIXEL_CHUNK) {
            const int64_t count = g->pixels - pixel < PIXEL_CHUNK ? g->pixels - pixel : PIXEL_CHUNK;
            const char *dy = (const char *)call->in[1] + (n * g->pixels + pixel) * z->k * z->bytes;
            find_pixels(g, mg_conv_image(z, call, n), position, pixel, count, pointers, call->workspace);
            const int64_t steps = g->half ? pair_pixels(g, pointers, count, channel, channels, pairs) : count;
            for (int64_t p = panel; p < panel + panels; p++) {
                float *to = (float *)call->out + ((p * g->window + position) * z->c + channel) * g->panel;
                if (g->half) {
                    pack_pairs(g, (const mg_bf16 *)dy, p * g->panel, count, packed);
                    g->kernels->product_pixels_half(channels, steps, pointers, 0, packed, to);
                } else {
                    pack_panel(g, (const float *)dy, p * g->panel, count, packed);
                    g->kernels->product_pixels(channels, steps, pointers, channel, packed, to);
                }
            }
        }
}

struct job {
    const struct weight_gradient *g;
    const struct mg_op_call *call;
};

static void run_tasks(const void *user, int64_t begin, int64_t end, int thread) {
    const struct job *job = user;
    char *scratch = (char *)job->call->workspace + job->g->zeros + (size_t)thread * job->g->thread;
    for (int64_t i = begin; i < end; i++)
        run_task(job->g, job->call, i, scratch);
}

void mg_weight_gradient_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_op_shape forward = forward_of(call->op);
    const struct weight_gradient g = weight_gradient_of(context, &forward);
    if (call->out != call->in[2])
        memcpy(call->out, call->in[2], g.sizes.panels.bytes);
    if (mg_winograd_has_weight_gradient(context, &g.sizes)) {
        mg_winograd_weight_gradient(context, &g.sizes, call->in[0], call->in[1], call->out, call->workspace);
        return;
    }
    const struct job job = {.g = &g, .call = call};
    memset(call->workspace, 0, g.zeros);
    mg_parallel_for(context->num_threads, g.window * g.tiles * g.groups, run_tasks, &job);
}
