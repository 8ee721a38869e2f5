/* layout.c: channels first to channels last and back: transposes of (C, H*W) per image, for what enters and leaves the
 * engine. */
#include "tiles.h"

enum { BLOCK = 16 }; /* floats of a cache line, so that a block of lines read is a block of lines written */

/* out[c][r] = in[r][c] for rows r_begin..r_end of in[rows][columns]. */
static void transpose_rows(float *out, const float *in, int64_t rows, int64_t columns, int64_t r_begin, int64_t r_end) {
    for (int64_t r0 = r_begin; r0 < r_end; r0 += BLOCK) {
        int64_t r1 = r_end - r0 < BLOCK ? r_end : r0 + BLOCK;
        for (int64_t c0 = 0; c0 < columns; c0 += BLOCK) {
            int64_t c1 = columns - c0 < BLOCK ? columns : c0 + BLOCK;
            for (int64_t c = c0; c < c1; c++)
                for (int64_t r = r0; r < r1; r++)
                    out[c * rows + r] = in[r * columns + c];
        }
    }
}

/* The same for columns c_begin..c_end. */
static void transpose_columns(float *out, const float *in, int64_t rows, int64_t columns, int64_t c_begin,
                              int64_t c_end) {
    for (int64_t c0 = c_begin; c0 < c_end; c0 += BLOCK) {
        int64_t c1 = c_end - c0 < BLOCK ? c_end : c0 + BLOCK;
        for (int64_t r0 = 0; r0 < rows; r0 += BLOCK) {
            int64_t r1 = rows - r0 < BLOCK ? rows : r0 + BLOCK;
            for (int64_t r = r0; r < r1; r++)
                for (int64_t c = c0; c < c1; c++)
                    out[c * rows + r] = in[r * columns + c];
        }
    }
}

static void to_nhwc_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const struct mg_tensor *shape = &call->op->out;
    const int64_t pixels = mg_image_pixels(shape), c = shape->dim[3], image = tile.image * pixels * c;
    (void)context;
    transpose_columns((float *)call->out + image, (const float *)call->in[0] + image, c, pixels, tile.begin,
                      tile.begin + tile.count);
}

static void run_nchw_to_nhwc(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_pixel_tiles(&call->op->out), to_nhwc_tile);
}

const struct mg_cpu_driver mg_cpu_nchw_to_nhwc = {.run = run_nchw_to_nhwc};

static void to_nchw_tile(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const struct mg_tensor *shape = &call->op->in[0];
    const int64_t pixels = mg_image_pixels(shape), c = shape->dim[3], image = tile.image * pixels * c;
    (void)context;
    transpose_rows((float *)call->out + image, (const float *)call->in[0] + image, pixels, c, tile.begin,
                   tile.begin + tile.count);
}

static void run_nhwc_to_nchw(const struct mg_context *context, const struct mg_op_call *call) {
    mg_run_tiles(context, call, mg_pixel_tiles(&call->op->in[0]), to_nchw_tile);
}

const struct mg_cpu_driver mg_cpu_nhwc_to_nchw = {.run = run_nhwc_to_nchw};
