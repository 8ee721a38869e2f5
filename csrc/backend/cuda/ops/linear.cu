/* linear.cu: the linear layer: one matrix product (gemm.cu). */
#include "../cuda.cuh"

static void linear_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op;
    const int64_t depth = op->in[0].dim[3];
    const struct mg_cuda_gemm m = {
        .y = call->out,
        .x = call->in[0],
        .weight = call->in[1],
        .residual = call->in[3],
        .bias = (const float *)call->in[2],
        .scratch = call->workspace,
        .rows = mg_tensor_count(&op->in[0]) / depth,
        .columns = op->out.dim[3],
        .depth = depth,
        .dtype = op->in[0].dtype,
        .result = op->out.dtype,
        .activation = op->params.linear.activation,
    };
    mg_cuda_run_gemm(state, &m);
}
const struct mg_cuda_driver mg_cuda_linear = {.run = linear_run, .workspace_bytes = mg_cuda_gemm_bytes};
