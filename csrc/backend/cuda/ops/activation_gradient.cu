/* activation_gradient.cu: gradients of activations. */
#include "../gradient.cuh"

template <class T, int N>
__global__ void activation_gradient_kernel(T *out, const T *x, const T *dy, int64_t vectors, mg_activation activation) {
    for (MG_CUDA_GRID_STRIDE(i, vectors)) {
        float value[N], g[N];
        mg_load<N>(value, x + i * N);
        mg_load<N>(g, dy + i * N);
#pragma unroll
        for (int e = 0; e < N; e++)
            g[e] *= mg_activation_derivative(value[e], activation);
        mg_store<N>(out + i * N, g);
    }
}

static void activation_gradient_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_dispatch_width<T>(count, [&](auto width) {
            constexpr int N = decltype(width)::value;
            mg_cuda_launch(state, mg_cuda_grid(count / N), MG_CUDA_THREADS, activation_gradient_kernel<T, N>,
                           (T *)call->out, (const T *)call->in[0], (const T *)call->in[1], count / N,
                           call->op->params.activation);
        });
    });
}
const struct mg_cuda_driver mg_cuda_activation_gradient = {.run = activation_gradient_run};
