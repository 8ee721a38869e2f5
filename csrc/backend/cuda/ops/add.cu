/* add.cu: sums of two maps, the second broadcast where its size is 1. */
#include "../cuda.cuh"

/* The second input may be of size 1 in N, H, W: its strides are then 0. Channels in vectors. */
struct broadcast {
    int64_t vectors, h, w, c;
    int64_t stride_n, stride_h, stride_w;
};

template <class T, int N> __global__ void add_kernel(T *out, const T *a, const T *b, struct broadcast p) {
    for (MG_CUDA_GRID_STRIDE(i, p.vectors)) {
        const int64_t pixel = i / p.c, row = pixel / p.w;
        const int64_t from = row / p.h * p.stride_n + row % p.h * p.stride_h + pixel % p.w * p.stride_w + i % p.c * N;
        float left[N], right[N];
        mg_load<N>(left, a + i * N);
        mg_load<N>(right, b + from);
#pragma unroll
        for (int e = 0; e < N; e++)
            left[e] += right[e];
        mg_store<N>(out + i * N, left);
    }
}

static void add_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t *big = call->op->out.dim, *small = call->op->in[1].dim;
    struct broadcast p = {mg_tensor_count(&call->op->out), big[1], big[2], big[3], 0, 0, 0};
    p.stride_w = small[2] > 1 ? small[3] : 0;
    p.stride_h = small[1] > 1 ? small[2] * small[3] : 0;
    p.stride_n = small[0] > 1 ? small[1] * small[2] * small[3] : 0;
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_dispatch_width<T>(big[3], [&](auto width) {
            constexpr int N = decltype(width)::value;
            p.vectors /= N;
            p.c /= N;
            mg_cuda_launch(state, mg_cuda_grid(p.vectors), MG_CUDA_THREADS, add_kernel<T, N>, (T *)call->out,
                           (const T *)call->in[0], (const T *)call->in[1], p);
        });
    });
}
const struct mg_cuda_driver mg_cuda_add = {.run = add_run};
