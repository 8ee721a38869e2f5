/* geglu.cu: GEGLU. */
#include "../cuda.cuh"

/* Channels in vectors. */
template <class T, int N> __global__ void geglu_kernel(T *out, const T *x, int64_t vectors, int64_t channels) {
    for (MG_CUDA_GRID_STRIDE(i, vectors)) {
        const T *first = x + (i / channels * 2 * channels + i % channels) * N;
        float value[N], gate[N];
        mg_load<N>(value, first);
        mg_load<N>(gate, first + channels * N);
#pragma unroll
        for (int e = 0; e < N; e++)
            value[e] *= mg_gelu(gate[e]);
        mg_store<N>(out + i * N, value);
    }
}

static void geglu_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out), channels = call->op->out.dim[3];
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_dispatch_width<T>(channels, [&](auto width) {
            constexpr int N = decltype(width)::value;
            mg_cuda_launch(state, mg_cuda_grid(count / N), MG_CUDA_THREADS, geglu_kernel<T, N>, (T *)call->out,
                           (const T *)call->in[0], count / N, channels / N);
        });
    });
}
const struct mg_cuda_driver mg_cuda_geglu = {.run = geglu_run};
