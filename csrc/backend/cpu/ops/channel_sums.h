/* channel_sums.h: two sums over the pixels of each channel, block by block in double, that the gradients of both normalisations
 * begin with. Private to backend/cpu/ops. */
#ifndef MG_CHANNEL_SUMS_H
#define MG_CHANNEL_SUMS_H
#include "tiles.h"

/* Two sums of every channel for every block: sums[image][block][2][C]. */
static inline size_t mg_channel_sums_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    (void)context;
    size_t bytes;
    return mg_size_mul(&bytes, 2 * (size_t)mg_pixel_blocks(&op->in[0]).total, (size_t)op->in[0].dim[3] * sizeof(double))
               ? bytes
               : SIZE_MAX;
}

/* Of the blocks of one image, in order. */
static inline double mg_merged_sum(const double *sums, const struct mg_tiling *tiling, int64_t image, int64_t which,
                                   int64_t c, int64_t channels) {
    double sum = 0.0;
    for (int64_t block = 0; block < tiling->per_image; block++)
        sum += sums[((image * tiling->per_image + block) * 2 + which) * channels + c];
    return sum;
}
#endif
