/* winograd_weight_gradient.c: gradients of 3x3 filters of stride 1 by Winograd's F(4x4, 3x3) run backwards: of
 * y = A^T [(G g G^T) * (B^T d B)] A the gradient of g is G^T [(A dy A^T) * (B^T d B)] G. So 36 products over tiles, a quarter of
 * the multiplications over pixels.
 *
 * An image after the other: its tiles are transformed, V[36][tiles][C] and D[36][panel][tiles][panel]; a task has some channels and
 * a panel of filters, sums over all tiles in their order, and adds to what is there. So neither threads nor batches change a bit.
 * In bfloat16, too, V and D are float32: rounding them again would be worse than a direct product. */
#include <string.h>

#include "../../../core/thread_pool.h"
#include "conv2d.h"

enum { POSITIONS = 36, CHANNEL_TILE = 96, ROW_PADDING = 16 };

/* Larger images go pixel by pixel: V and D are three times as large as they. */
enum { MOST_BYTES = 96 << 20 };

struct job {
    const struct mg_conv_sizes *z;
    const struct mg_cpu_kernels *kernels;
    const struct mg_cpu_elements *elements;
    int64_t tiles_x, tiles, panel, panels, row, channel_tiles;
    size_t v, d, zeros, m, pointers, thread; /* bytes */
};

static struct job job_of(const struct mg_context *context, const struct mg_conv_sizes *z) {
    struct job j = {.z = z, .kernels = mg_cpu_kernels_of(context), .elements = mg_cpu_elements_of(context, z->x)};
    j.tiles_x = mg_ceil_div(z->out_w, 4);
    j.tiles = j.tiles_x * mg_ceil_div(z->out_h, 4);
    j.panel = j.kernels->panel;
    j.panels = mg_ceil_div(z->k, j.panel);
    j.row = z->c + ROW_PADDING;
    j.channel_tiles = mg_ceil_div(z->c, CHANNEL_TILE);
    j.v = mg_aligned_bytes(POSITIONS * j.tiles * j.row, sizeof(float));
    j.d = mg_aligned_bytes(POSITIONS * j.tiles * j.panels * j.panel, sizeof(float));
    j.zeros = mg_aligned_bytes(z->c > z->k ? z->c : z->k, sizeof(float));
    j.m = mg_aligned_bytes(POSITIONS * CHANNEL_TILE * j.panel, sizeof(float));
    j.pointers = mg_aligned_bytes(j.tiles, sizeof(void *));
    j.thread = j.m + j.pointers;
    return j;
}

bool mg_winograd_has_weight_gradient(const struct mg_context *context, const struct mg_conv_sizes *z) {
    const struct job j = job_of(context, z);
    return mg_conv_uses_winograd(z) && j.v + j.d <= MOST_BYTES;
}

size_t mg_winograd_weight_gradient_bytes(const struct mg_context *context, const struct mg_conv_sizes *z) {
    const struct job j = job_of(context, z);
    size_t bytes;
    if (!mg_size_mul(&bytes, j.thread, (size_t)context->num_threads) ||
        !mg_size_add(&bytes, bytes, j.v + j.d + j.zeros))
        return SIZE_MAX;
    return bytes;
}

static void transform_input(const struct job *j, const char *image, int64_t tile, const void *zeros, float *v) {
    const struct mg_conv_sizes *z = j->z;
    const int64_t top = tile / j->tiles_x * 4 - z->pad_top, left = tile % j->tiles_x * 4 - z->pad_left;
    const void *pixels[POSITIONS];
    for (int i = 0; i < POSITIONS; i++)
        pixels[i] = mg_conv_pixel(z, image, top + i / 6, left + i % 6, zeros);
    j->elements->winograd_input(v + tile * j->row, j->tiles * j->row, pixels, z->c);
}

/* One tile of dy, one panel of its channels. */
static void transform_output(const struct job *j, const char *dy, int64_t tile, int64_t p, const void *zeros,
                             float *d) {
    const struct mg_conv_sizes *z = j->z;
    const int64_t top = tile / j->tiles_x * 4, left = tile % j->tiles_x * 4, k = p * j->panel;
    const int64_t stride = j->panels * j->tiles * j->panel, count = z->k - k < j->panel ? z->k - k : j->panel;
    const void *pixels[16];
    for (int i = 0; i < 16; i++) {
        const int64_t y = top + i / 4, x = left + i % 4;
        pixels[i] = y < z->out_h && x < z->out_w ? dy + ((y * z->out_w + x) * z->k + k) * z->bytes : zeros;
    }
    float *to = d + (p * j->tiles + tile) * j->panel;
    for (int64_t q = 0; count < j->panel && q < POSITIONS; q++)
        memset(to + q * stride, 0, (size_t)j->panel * sizeof *to);
    j->elements->winograd_gradient(to, stride, pixels, count);
}

/* What one image's loops share. */
struct image {
    const struct job *j;
    const char *x, *dy;
    float *v, *d, *gradient;
    char *zeros, *threads;
};

static void run_task(const struct job *j, int64_t index, const float *v, const float *d, float *gradient,
                     char *scratch) {
    const struct mg_conv_sizes *z = j->z;
    const int64_t p = index / j->channel_tiles, channel = index % j->channel_tiles * CHANNEL_TILE;
    const int64_t channels = z->c - channel < CHANNEL_TILE ? z->c - channel : CHANNEL_TILE;
    float *m = (float *)scratch;
    const void **pointers = (const void **)(scratch + j->m);
    memset(m, 0, (size_t)(POSITIONS * channels * j->panel) * sizeof *m);
    for (int64_t q = 0; q < POSITIONS; q++) {
        for (int64_t t = 0; t < j->tiles; t++)
            pointers[t] = v + (q * j->tiles + t) * j->row;
        j->kernels->product_pixels(channels, j->tiles, pointers, channel, d + (q * j->panels + p) * j->tiles * j->panel,
                                   m + q * channels * j->panel);
    }
    j->kernels->winograd_weight_gradient(gradient + (p * 9 * z->c + channel) * j->panel, z->c * j->panel, m,
                                         channels * j->panel, channels * j->panel);
}

static void transform_inputs(const void *user, int64_t begin, int64_t end, int thread) {
    const struct image *image = user;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        transform_input(image->j, image->x, t, image->zeros, image->v);
}

static void transform_outputs(const void *user, int64_t begin, int64_t end, int thread) {
    const struct image *image = user;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        transform_output(image->j, image->dy, i / image->j->panels, i % image->j->panels, image->zeros, image->d);
}

static void run_tasks(const void *user, int64_t begin, int64_t end, int thread) {
    const struct image *image = user;
    for (int64_t i = begin; i < end; i++)
        run_task(image->j, i, image->v, image->d, image->gradient, image->threads + (size_t)thread * image->j->thread);
}

void mg_winograd_weight_gradient(const struct mg_context *context, const struct mg_conv_sizes *z, const void *x,
                                 const void *dy, float *gradient, void *workspace) {
    const struct job j = job_of(context, z);
    struct image image = {.j = &j, .v = workspace, .gradient = gradient};
    image.d = (float *)((char *)workspace + j.v);
    image.zeros = (char *)workspace + j.v + j.d;
    image.threads = image.zeros + j.zeros;
    memset(image.zeros, 0, j.zeros);
    for (int64_t n = 0; n < z->n; n++) {
        image.x = (const char *)x + n * z->in_h * z->in_w * z->c * z->bytes;
        image.dy = (const char *)dy + n * z->out_h * z->out_w * z->k * z->bytes;
        mg_parallel_for(context->num_threads, j.tiles, transform_inputs, &image);
        mg_parallel_for(context->num_threads, j.tiles * j.panels, transform_outputs, &image);
        mg_parallel_for(context->num_threads, j.panels * j.channel_tiles, run_tasks, &image);
    }
}
