/* embedding.cu: embeddings of time steps and of tokens. Float32 only. */
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

/* An id outside the table is moved to its nearest row: ids are data, and running may not fail. */
__device__ static inline int64_t row_of(float id, int64_t rows) {
    if (!(id > 0.0f))
        return 0;
    return id < (float)rows ? (int64_t)id : rows - 1;
}

__global__ void token_embedding_kernel(float *out, const float *ids, const float *table, const float *positions,
                                       int64_t rows, int64_t images, int64_t tokens, int64_t channels) {
    for (MG_CUDA_GRID_STRIDE(i, images * tokens * channels)) {
        const int64_t token = i / channels, c = i % channels;
        out[i] = table[row_of(ids[token], rows) * channels + c] + positions[token % tokens * channels + c];
    }
}

static void token_embedding_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t *out = call->op->out.dim;
    mg_cuda_launch(state, mg_cuda_grid(mg_tensor_count(&call->op->out)), MG_CUDA_THREADS, token_embedding_kernel,
                   (float *)call->out, (const float *)call->in[0], (const float *)call->in[1],
                   (const float *)call->in[2], call->op->in[1].dim[0], out[0], out[2], out[3]);
}
const struct mg_cuda_driver mg_cuda_token_embedding = {.run = token_embedding_run};
