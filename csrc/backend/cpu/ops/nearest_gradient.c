/* nearest_gradient.c: gradient of nearest upsampling: a row of the result gathers the rows that show it. */
#include <string.h>

#include "tiles.h"

static int64_t source_of(int64_t index, int64_t size, int64_t upsampled) {
    if (size == upsampled)
        return index;
    const int64_t source = (int64_t)((float)index * ((float)size / (float)upsampled));
    return source < size ? source : size - 1;
}

static void gather_row(const struct mg_cpu_elements *elements, const struct mg_op_call *call, int64_t image,
                       int64_t index, float *row) {
    const int64_t *big = call->op->in[0].dim, *small = call->op->out.dim, c = big[3];
    memset(row, 0, (size_t)(small[2] * c) * sizeof *row);
    for (int64_t y = 0; y < big[1]; y++) {
        if (source_of(y, small[1], big[1]) != index)
            continue;
        const float *from = (const float *)call->in[0] + (image * big[1] + y) * big[2] * c;
        for (int64_t x = 0; x < big[2]; x++) {
            float *to = row + source_of(x, small[2], big[2]) * c;
            elements->add(to, to, from + x * c, c);
        }
    }
}

static void gather_rows(const struct mg_context *context, const struct mg_op_call *call, struct mg_tile tile) {
    const int64_t *small = call->op->out.dim;
    for (int64_t i = 0; i < tile.count; i++)
        gather_row(&mg_cpu_kernels_of(context)->of[MG_CPU_F32], call, tile.image, tile.begin + i,
                   (float *)call->out + (tile.first + i) * small[2] * small[3]);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const int64_t *small = call->op->out.dim;
    mg_run_tiles(context, call, mg_tiling_of(small[0], small[1], small[2] * small[3]), gather_rows);
}

const struct mg_cpu_driver mg_cpu_nearest_gradient = {.run = run, .widened = true};
