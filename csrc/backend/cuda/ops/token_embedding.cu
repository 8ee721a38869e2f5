/* token_embedding.cu: rows of a table chosen by token, plus rows of positions. Float32 only. */
#include "../cuda.cuh"

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
