/* layout.cu: channels first to channels last and back. */
#include "../cuda.cuh"

/* out[n][b][a] = in[n][a][b], through a tile in shared memory, so that both reads and writes are coalesced. One float of padding avoids
 * bank conflicts. */
constexpr int TILE_DIM = 32, TILE_ROWS = MG_CUDA_THREADS / TILE_DIM;

struct transpose_tile {
    float at[TILE_DIM][TILE_DIM + 1];
};

__global__ void transpose_kernel(float *out, const float *in, int64_t size_a, int64_t size_b) {
    MG_SHARED(struct transpose_tile, shared);
    const int64_t tiles_b = (size_b + TILE_DIM - 1) / TILE_DIM;
    const int64_t a0 = blockIdx.x / tiles_b * TILE_DIM, b0 = blockIdx.x % tiles_b * TILE_DIM;
    const int64_t image = (int64_t)blockIdx.y * size_a * size_b;
    const int lane = threadIdx.x % TILE_DIM, row = threadIdx.x / TILE_DIM;
    for (int i = row; i < TILE_DIM; i += TILE_ROWS)
        if (a0 + i < size_a && b0 + lane < size_b)
            shared.at[i][lane] = in[image + (a0 + i) * size_b + b0 + lane];
    __syncthreads();
    for (int i = row; i < TILE_DIM; i += TILE_ROWS)
        if (b0 + i < size_b && a0 + lane < size_a)
            out[image + (b0 + i) * size_a + a0 + lane] = shared.at[lane][i];
}

static void transpose(struct mg_cuda_state *state, const struct mg_op_call *call, int64_t images, int64_t a,
                      int64_t b) {
    const dim3 grid((unsigned)(mg_cuda_divide_up(a, TILE_DIM) * mg_cuda_divide_up(b, TILE_DIM)), (unsigned)images);
    mg_cuda_launch(state, grid, MG_CUDA_THREADS, transpose_kernel, (float *)call->out, (const float *)call->in[0], a,
                   b);
}

static void nchw_to_nhwc_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t *nchw = call->op->in[0].dim;
    transpose(state, call, nchw[0], nchw[1], nchw[2] * nchw[3]);
}
const struct mg_cuda_driver mg_cuda_nchw_to_nhwc = {.run = nchw_to_nhwc_run};

static void nhwc_to_nchw_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t *nhwc = call->op->in[0].dim;
    transpose(state, call, nhwc[0], nhwc[1] * nhwc[2], nhwc[3]);
}
const struct mg_cuda_driver mg_cuda_nhwc_to_nchw = {.run = nhwc_to_nchw_run};
