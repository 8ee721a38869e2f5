/* channel_slice.cu: slices of channels. */
#include "../cuda.cuh"

static void channel_slice_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct mg_slice p = call->op->params.slice;
    const int64_t channels = call->op->in[0].dim[3], pixels = mg_tensor_count(&call->op->out) / p.count;
    mg_cuda_copy_channels(state, call, 0, {pixels, p.count, 0, p.count, p.begin, channels});
}
const struct mg_cuda_driver mg_cuda_channel_slice = {.run = channel_slice_run};
