/* copy_channels.cu: channels of every pixel from one map to another (cuda.cuh). */
#include "cuda.cuh"

template <class E> __global__ void copy_channels_kernel(E *out, const E *in, struct mg_cuda_channels p) {
    for (MG_CUDA_GRID_STRIDE(i, p.pixels * p.count)) {
        const int64_t pixel = i / p.count, c = i % p.count;
        out[pixel * p.out_channels + p.out_begin + c] = in[pixel * p.in_channels + p.in_begin + c];
    }
}

void mg_cuda_copy_channels(struct mg_cuda_state *state, const struct mg_op_call *call, int slot,
                           struct mg_cuda_channels p) {
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        /* All are multiples of a power of two if their bits together are. */
        const int64_t length = p.count | p.out_begin | p.out_channels | p.in_begin | p.in_channels;
        mg_cuda_dispatch_width<T>(length, [&](auto width) {
            constexpr int N = decltype(width)::value;
            using E = struct mg_vector<T, N>;
            const struct mg_cuda_channels q = {p.pixels,           p.count / N,    p.out_begin / N,
                                               p.out_channels / N, p.in_begin / N, p.in_channels / N};
            mg_cuda_launch(state, mg_cuda_grid(q.pixels * q.count), MG_CUDA_THREADS, copy_channels_kernel<E>,
                           (E *)call->out, (const E *)call->in[slot], q);
        });
    });
}
