/* time_embedding.cu: sinusoids of time steps. Float32 only. */
#include "../cuda.cuh"

__global__ void time_embedding_kernel(float *out, const float *timesteps, int64_t images, struct mg_time_embedding p) {
    const int64_t half = p.channels / 2;
    for (MG_CUDA_GRID_STRIDE(i, images * half)) {
        const int64_t image = i / half, k = i % half;
        const float frequency = expf(-logf(p.max_period) * (float)k / ((float)half - p.frequency_shift));
        const float angle = timesteps[image] * frequency;
        float *row = out + image * p.channels;
        row[p.flip_sin_to_cos ? half + k : k] = sinf(angle);
        row[p.flip_sin_to_cos ? k : half + k] = cosf(angle);
    }
}

static void time_embedding_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t images = call->op->in[0].dim[0];
    const struct mg_time_embedding p = call->op->params.time_embedding;
    mg_cuda_launch(state, mg_cuda_grid(images * p.channels / 2), MG_CUDA_THREADS, time_embedding_kernel,
                   (float *)call->out, (const float *)call->in[0], images, p);
}
const struct mg_cuda_driver mg_cuda_time_embedding = {.run = time_embedding_run};
