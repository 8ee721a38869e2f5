/* geglu_gradient.cu: the gradient of GEGLU. */
#include "../gradient.cuh"

/* Channels in vectors. An element of x and its gate are read before the gradients take their place. */
template <class T, int N>
__global__ void geglu_gradient_kernel(T *out, const T *x, const T *dy, int64_t vectors, int64_t channels) {
    for (MG_CUDA_GRID_STRIDE(i, vectors)) {
        const int64_t first = (i / channels * 2 * channels + i % channels) * N, second = first + channels * N;
        float value[N], gate[N], g[N];
        mg_load<N>(value, x + first);
        mg_load<N>(gate, x + second);
        mg_load<N>(g, dy + i * N);
#pragma unroll
        for (int e = 0; e < N; e++) {
            value[e] *= g[e] * mg_activation_derivative(gate[e], MG_ACT_GELU);
            g[e] *= mg_gelu(gate[e]);
        }
        mg_store<N>(out + first, g);
        mg_store<N>(out + second, value);
    }
}

static void geglu_gradient_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t channels = call->op->in[1].dim[3], count = mg_tensor_count(&call->op->in[1]);
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_dispatch_width<T>(channels, [&](auto width) {
            constexpr int N = decltype(width)::value;
            mg_cuda_launch(state, mg_cuda_grid(count / N), MG_CUDA_THREADS, geglu_gradient_kernel<T, N>, (T *)call->out,
                           (const T *)call->in[0], (const T *)call->in[1], count / N, channels / N);
        });
    });
}
const struct mg_cuda_driver mg_cuda_geglu_gradient = {.run = geglu_gradient_run};
