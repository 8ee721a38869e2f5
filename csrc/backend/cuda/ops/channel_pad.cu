/* channel_pad.cu: padding with zero channels, the gradient of channel_slice. */
#include "../cuda.cuh"

template <class T>
__global__ void channel_pad_kernel(T *out, const T *x, int64_t count, int64_t channels, struct mg_slice p) {
    for (MG_CUDA_GRID_STRIDE(i, count)) {
        const int64_t c = i % channels - p.begin;
        out[i] = c >= 0 && c < p.count ? x[i / channels * p.count + c] : mg_element<T>(0.0f);
    }
}

static void channel_pad_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, channel_pad_kernel<T>, (T *)call->out,
                       (const T *)call->in[0], count, call->op->out.dim[3], call->op->params.slice);
    });
}
const struct mg_cuda_driver mg_cuda_channel_pad = {.run = channel_pad_run};
