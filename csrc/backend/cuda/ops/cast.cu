/* cast.cu: the same numbers in another type. */
#include "../cuda.cuh"

template <class T, class U, int N> __global__ void cast_kernel(T *out, const U *x, int64_t vectors) {
    for (MG_CUDA_GRID_STRIDE(i, vectors)) {
        float value[N];
        mg_load<N>(value, x + i * N);
        mg_store<N>(out + i * N, value);
    }
}

static void cast_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto to) {
        mg_cuda_dispatch_type(call->op->in[0].dtype, [&](auto from) {
            using T = decltype(to);
            using U = decltype(from);
            mg_cuda_dispatch_width<float>(count, [&](auto width) {
                constexpr int N = decltype(width)::value;
                mg_cuda_launch(state, mg_cuda_grid(count / N), MG_CUDA_THREADS, cast_kernel<T, U, N>, (T *)call->out,
                               (const U *)call->in[0], count / N);
            });
        });
    });
}
const struct mg_cuda_driver mg_cuda_cast = {.run = cast_run};
