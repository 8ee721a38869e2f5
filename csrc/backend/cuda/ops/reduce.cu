/* reduce.cu: sums over images and pixels, the gradients of operands that were broadcast over them. */
#include "../gradient.cuh"

/* Element (n, h, w) of the result is the sum of reduce_n x reduce_h x reduce_w pixels of the map, the first of them at
 * (n, h, w + begin). */
struct reduction {
    int64_t positions, h, w; /* of the result */
    int64_t reduce_n, reduce_h, reduce_w, begin;
    int64_t map_h, map_w, channels, partials;
};

template <class T> __global__ void partial_sums_kernel(float *partials, const T *x, struct reduction p) {
    const int64_t pixels = p.reduce_n * p.reduce_h * p.reduce_w;
    for (MG_CUDA_GRID_STRIDE(i, p.positions * p.partials * p.channels)) {
        const int64_t c = i % p.channels, first = i / p.channels % p.partials * MG_CUDA_PARTIAL_LENGTH;
        const int64_t position = i / p.channels / p.partials;
        const int64_t last = first + MG_CUDA_PARTIAL_LENGTH < pixels ? first + MG_CUDA_PARTIAL_LENGTH : pixels;
        const int64_t n = position / (p.h * p.w), h = position / p.w % p.h, w = position % p.w + p.begin;
        float sum = 0.0f;
        for (int64_t j = first; j < last; j++) {
            const int64_t row = (n + j / (p.reduce_h * p.reduce_w)) * p.map_h + h + j / p.reduce_w % p.reduce_h;
            sum += mg_float(x[(row * p.map_w + w + j % p.reduce_w) * p.channels + c]);
        }
        partials[i] = sum;
    }
}

/* Both operations: of a map, to which the result is broadcast, or to some columns of a map. */
static struct reduction reduction_of(const struct mg_op_shape *op) {
    const int64_t *map = op->in[0].dim, *result = op->out.dim;
    struct reduction p = {};
    p.map_h = map[1];
    p.map_w = map[2];
    p.channels = map[3];
    if (op->kind == MG_OP_REDUCE) {
        p.positions = result[0] * result[1] * result[2];
        p.h = result[1];
        p.w = result[2];
        p.reduce_n = map[0] / result[0];
        p.reduce_h = map[1] / result[1];
        p.reduce_w = map[2] / result[2];
    } else {
        p.positions = p.h = p.w = 1;
        p.reduce_n = map[0];
        p.reduce_h = map[1];
        p.reduce_w = op->params.slice.count;
        p.begin = op->params.slice.begin;
    }
    p.partials = mg_cuda_divide_up(p.reduce_n * p.reduce_h * p.reduce_w, MG_CUDA_PARTIAL_LENGTH);
    return p;
}

/* No more floats than the map has elements. */
size_t mg_cuda_reduction_bytes(const struct mg_op_shape *op) {
    const struct reduction p = reduction_of(op);
    return (size_t)(p.positions * p.partials * p.channels) * sizeof(float);
}

void mg_cuda_reduction_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct reduction p = reduction_of(call->op);
    float *partials = (float *)call->workspace;
    const struct mg_cuda_partials all = {partials,  (const float *)call->in[1], p.positions, p.partials, p.channels,
                                         p.channels};
    mg_cuda_dispatch_type(call->op->in[0].dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, mg_cuda_grid(p.positions * p.partials * p.channels), MG_CUDA_THREADS,
                       partial_sums_kernel<T>, partials, (const T *)call->in[0], p);
    });
    mg_cuda_sum_partials(state, (float *)call->out, &all);
}
const struct mg_cuda_driver mg_cuda_reduce = {.run = mg_cuda_reduction_run, .workspace_bytes = mg_cuda_reduction_bytes};
