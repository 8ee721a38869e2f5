/* optimizer.cu: a step of Adam in one pass over memory, and the sum of squares that a gradient is clipped by. Called through
 * the table of cuda_backend.cu by marigold/optimizer.c; what fails is told by the backend's finish(). */
#include "memory.cuh"

static struct mg_cuda_state *begin(const struct mg_context *context, const char *what) {
    struct mg_cuda_state *state = mg_cuda_state_of(context);
    state->running = what;
    mg_cuda_note(state, cudaSetDevice(state->device), "cudaSetDevice");
    return state;
}

__global__ void adam_kernel(float *weight, float *gradient, float *m, float *v, int64_t count, struct mg_adam p,
                            float rate, float deviation) {
    for (MG_CUDA_EACH(i, count)) {
        float w = weight[i], g = gradient[i] * p.gradient_factor;
        if (p.decoupled)
            w -= p.learning_rate * p.decay * w;
        else
            g += p.decay * w;
        const float mean = m[i] + (1.0f - p.beta1) * (g - m[i]);
        const float square = p.beta2 * v[i] + (1.0f - p.beta2) * g * g;
        m[i] = mean;
        v[i] = square;
        weight[i] = w - rate * mean / (sqrtf(square) / deviation + p.epsilon);
        gradient[i] = 0.0f;
    }
}

void mg_cuda_adam(const struct mg_context *context, float *weight, float *gradient, float *m, float *v, int64_t count,
                  const struct mg_adam *params) {
    struct mg_cuda_state *state = begin(context, "adam");
    mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, adam_kernel, weight, gradient, m, v, count, *params,
                   params->learning_rate / params->correction1, sqrtf(params->correction2));
}

/* ---- sum of squares: of runs by blocks, then of all runs by one block; always in the same order ---- */
enum { RUN = 32768, WARPS = MG_CUDA_THREADS / MG_CUDA_WARP };

struct warp_sums {
    double sum[WARPS];
};

/* The sum over the threads of the block, in thread 0. */
__device__ static inline double block_sum(struct warp_sums &shared, double sum) {
    sum = mg_warp_sum(sum);
    if (threadIdx.x % MG_CUDA_WARP == 0)
        shared.sum[threadIdx.x / MG_CUDA_WARP] = sum;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int w = 1; w < WARPS; w++)
            sum += shared.sum[w];
    return sum;
}

__global__ void squares_kernel(double *runs, const float *x, int64_t count) {
    MG_SHARED(struct warp_sums, shared);
    const int64_t first = blockIdx.x * (int64_t)RUN, last = first + RUN < count ? first + RUN : count;
    double sum = 0.0;
    for (int64_t i = first + threadIdx.x; i < last; i += MG_CUDA_THREADS)
        sum += (double)x[i] * x[i];
    sum = block_sum(shared, sum);
    if (threadIdx.x == 0)
        runs[blockIdx.x] = sum;
}

__global__ void total_kernel(double *total, const double *runs, int64_t count) {
    MG_SHARED(struct warp_sums, shared);
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < count; i += MG_CUDA_THREADS)
        sum += runs[i];
    sum = block_sum(shared, sum);
    if (threadIdx.x == 0)
        *total = sum;
}

/* The runs' sums lie in cuBLAS's workspace, which nobody uses meanwhile: room for more numbers than a GPU has. NaN after a
 * fault, which finish() tells. */
double mg_cuda_sum_of_squares(const struct mg_context *context, const float *x, int64_t count) {
    struct mg_cuda_state *state = begin(context, "sum_of_squares");
    const int64_t runs = mg_cuda_divide_up(count, RUN);
    double *sums = (double *)state->blas_workspace, total = NAN;
    mg_cuda_launch(state, dim3((unsigned)runs), MG_CUDA_THREADS, squares_kernel, sums + 1, x, count);
    mg_cuda_launch(state, dim3(1), MG_CUDA_THREADS, total_kernel, sums, (const double *)(sums + 1), runs);
    mg_cuda_note(state, cudaMemcpyAsync(&total, sums, sizeof total, cudaMemcpyDeviceToHost, state->stream),
                 "a download");
    mg_cuda_note(state, cudaStreamSynchronize(state->stream), "a download");
    return total;
}
