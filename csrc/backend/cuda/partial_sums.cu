/* partial_sums.cu: adds up partial sums (gradient.cuh). */
#include "gradient.cuh"

constexpr int LANES = MG_CUDA_WARP, WARPS = MG_CUDA_THREADS / MG_CUDA_WARP;

struct warp_columns {
    double sum[WARPS][LANES];
};

/* Block: 32 columns of one position; each warp takes every eighth partial sum. */
__global__ void sum_partials_kernel(float *out, struct mg_cuda_partials p) {
    MG_SHARED(struct warp_columns, shared);
    const int64_t blocks = (p.columns + LANES - 1) / LANES, position = blockIdx.x / blocks;
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int64_t column = blockIdx.x % blocks * LANES + lane;
    double sum = 0.0;
    if (column < p.columns)
        for (int64_t i = warp; i < p.count; i += WARPS)
            sum += p.partials[(position * p.count + i) * p.columns + column];
    shared.sum[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= p.columns)
        return;
    const int64_t at = position * p.stride + column;
    for (int w = 1; w < WARPS; w++)
        sum += shared.sum[w][lane];
    out[at] = (float)(p.sum ? sum + p.sum[at] : sum);
}

void mg_cuda_sum_partials(struct mg_cuda_state *state, float *out, const struct mg_cuda_partials *p) {
    const dim3 grid((unsigned)(p->positions * mg_cuda_divide_up(p->columns, LANES)));
    mg_cuda_launch(state, grid, MG_CUDA_THREADS, sum_partials_kernel, out, *p);
}
