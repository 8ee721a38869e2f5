/* channels.cuh: copies of some channels of every pixel, for concatenation and slices. */
#ifndef MG_CUDA_CHANNELS_CUH
#define MG_CUDA_CHANNELS_CUH
#include "cuda.cuh"

/* Copies `count` channels of every pixel, from channel in_begin of in_channels to out_begin of out_channels; all in
 * elements of the kernel. */
struct channels {
    int64_t pixels, count, out_begin, out_channels, in_begin, in_channels;
};

template <class E> __global__ void copy_channels_kernel(E *out, const E *in, struct channels p) {
    for (MG_CUDA_GRID_STRIDE(i, p.pixels * p.count)) {
        const int64_t pixel = i / p.count, c = i % p.count;
        out[pixel * p.out_channels + p.out_begin + c] = in[pixel * p.in_channels + p.in_begin + c];
    }
}

static void copy_channels(struct mg_cuda_state *state, const struct mg_op_call *call, int slot, struct channels p) {
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        /* All are multiples of a power of two if their bits together are. */
        const int64_t length = p.count | p.out_begin | p.out_channels | p.in_begin | p.in_channels;
        mg_cuda_dispatch_width<T>(length, [&](auto width) {
            constexpr int N = decltype(width)::value;
            using E = struct mg_vector<T, N>;
            const struct channels q = {p.pixels,           p.count / N,    p.out_begin / N,
                                       p.out_channels / N, p.in_begin / N, p.in_channels / N};
            mg_cuda_launch(state, mg_cuda_grid(q.pixels * q.count), MG_CUDA_THREADS, copy_channels_kernel<E>,
                           (E *)call->out, (const E *)call->in[slot], q);
        });
    });
}
#endif
