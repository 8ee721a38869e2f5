/* linear.cu: the linear layer: one matrix product. Called by cuda_backend.cu; calls product.cu. */
#include "../cuda.cuh"

static void linear_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op;
    const int64_t depth = op->in[0].dim[3];
    const struct mg_cuda_matrices m = {
        call->out,
        call->in[0],
        call->in[1],
        call->in[3],
        (const float *)call->in[2],
        call->workspace,
        mg_tensor_count(&op->in[0]) / depth,
        op->out.dim[3],
        depth,
        op->in[0].dtype,
        op->out.dtype,
        op->params.linear.activation,
    };
    mg_cuda_multiply(state, &m);
}
const struct mg_cuda_driver mg_cuda_linear = {linear_run, mg_cuda_multiply_bytes};
