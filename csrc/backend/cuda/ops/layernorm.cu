/* layernorm.cu: layer normalisation, a warp for each row. */
#include "../layernorm.cuh"

template <class T>
__global__ void layernorm_kernel(T *out, const T *x, const float *gamma, const float *beta, int64_t rows,
                                 int64_t channels, float epsilon) {
    const int lane = threadIdx.x % MG_CUDA_WARP;
    const int64_t row = blockIdx.x * (int64_t)MG_CUDA_ROWS + threadIdx.x / MG_CUDA_WARP;
    if (row >= rows)
        return;
    x += row * channels;
    out += row * channels;
    const float2 s = mg_cuda_row_statistics(x, channels, epsilon);
    for (int64_t c = lane; c < channels; c += MG_CUDA_WARP)
        out[c] = mg_element<T>((mg_float(x[c]) - s.x) * s.y * gamma[c] + beta[c]);
}

static void layernorm_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t channels = call->op->in[0].dim[3], rows = mg_tensor_count(&call->op->in[0]) / channels;
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, dim3((unsigned)mg_cuda_divide_up(rows, MG_CUDA_ROWS)), MG_CUDA_THREADS,
                       layernorm_kernel<T>, (T *)call->out, (const T *)call->in[0], (const float *)call->in[1],
                       (const float *)call->in[2], rows, channels, call->op->params.layernorm.epsilon);
    });
}
const struct mg_cuda_driver mg_cuda_layernorm = {.run = layernorm_run};
