/* concat.cu: concatenation of channels. */
#include "../cuda.cuh"

static void concat_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t a = call->op->in[0].dim[3], b = call->op->in[1].dim[3];
    const int64_t pixels = mg_tensor_count(&call->op->out) / (a + b);
    mg_cuda_copy_channels(state, call, 0, {pixels, a, 0, a + b, 0, a});
    mg_cuda_copy_channels(state, call, 1, {pixels, b, a, a + b, 0, b});
}
const struct mg_cuda_driver mg_cuda_concat = {.run = concat_run};
