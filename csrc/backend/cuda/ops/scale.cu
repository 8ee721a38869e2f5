/* scale.cu: a factor and an offset for all elements. */
#include "../cuda.cuh"

template <class T, int N>
__global__ void scale_kernel(T *out, const T *x, int64_t vectors, float factor, float offset) {
    for (MG_CUDA_GRID_STRIDE(i, vectors)) {
        float value[N];
        mg_load<N>(value, x + i * N);
#pragma unroll
        for (int e = 0; e < N; e++)
            value[e] = value[e] * factor + offset;
        mg_store<N>(out + i * N, value);
    }
}

static void scale_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const struct mg_scale p = call->op->params.scale;
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_dispatch_width<T>(count, [&](auto width) {
            constexpr int N = decltype(width)::value;
            mg_cuda_launch(state, mg_cuda_grid(count / N), MG_CUDA_THREADS, scale_kernel<T, N>, (T *)call->out,
                           (const T *)call->in[0], count / N, p.factor, p.offset);
        });
    });
}
const struct mg_cuda_driver mg_cuda_scale = {.run = scale_run};
