/* scheduler_step.cu: a step of the scheduler: a combination of sample, output and noise. */
#include "../cuda.cuh"

__global__ void scheduler_step_kernel(float *out, const float *sample, const float *model_output, const float *factors,
                                      const float *noise, int64_t count) {
    for (MG_CUDA_GRID_STRIDE(i, count)) {
        const float sum = factors[0] * sample[i] + factors[1] * model_output[i];
        out[i] = noise ? sum + factors[2] * noise[i] : sum;
    }
}

static void scheduler_step_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, scheduler_step_kernel, (float *)call->out,
                   (const float *)call->in[0], (const float *)call->in[1], (const float *)call->in[2],
                   (const float *)call->in[3], count);
}
const struct mg_cuda_driver mg_cuda_scheduler_step = {.run = scheduler_step_run};
