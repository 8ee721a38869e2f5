/* optimizer.cu: a step of Adam in one pass over memory, what follows it (rounded weights, moving averages), and the sum of
 * squares that a gradient is clipped by. What fails is told by the
 * backend's finish(). */
#include "../device.cuh"

/* The device of a context, current while this lives, and the name of what it does. */
struct optimizer_call {
    struct mg_cuda_state *state;
    const struct mg_cuda_device_guard guard;

    optimizer_call(const struct mg_context *context, const char *name)
        : state(mg_cuda_state_of(context)), guard(state->device) {
        state->running = name;
        mg_cuda_note(state, guard.status, "cudaSetDevice");
    }
};

__global__ void adam_kernel(float *weight, float *gradient, float *m, float *v, int64_t count, struct mg_adam p,
                            float rate, float deviation) {
    for (MG_CUDA_GRID_STRIDE(i, count)) {
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
    const struct optimizer_call call(context, "adam");
    struct mg_cuda_state *state = call.state;
    mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, adam_kernel, weight, gradient, m, v, count, *params,
                   params->learning_rate / params->correction1, sqrtf(params->correction2));
}

__global__ void average_kernel(float *average, const float *x, int64_t count, float keep, float take) {
    for (MG_CUDA_GRID_STRIDE(i, count))
        average[i] = keep * average[i] + take * x[i];
}

void mg_cuda_average(const struct mg_context *context, float *average, const float *x, int64_t count, float keep,
                     float take) {
    const struct optimizer_call call(context, "average");
    struct mg_cuda_state *state = call.state;
    mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, average_kernel, average, x, count, keep, take);
}

/* Rows of `channels` floats to rows of whole chunks, filled up with zeros. Thread: a chunk. */
template <class T>
__global__ void round_kernel(T *out, const float *master, int64_t chunks, int64_t per_row, int64_t channels) {
    constexpr int N = MG_CUDA_CHUNK / (int)sizeof(T);
    for (MG_CUDA_GRID_STRIDE(i, chunks)) {
        const int64_t first = i % per_row * N;
        const float *row = master + i / per_row * channels;
        float value[N];
#pragma unroll
        for (int e = 0; e < N; e++)
            value[e] = first + e < channels ? row[first + e] : 0.0f;
        mg_store<N>(out + i * N, value);
    }
}

/* Only the layout of cuda.cuh's filters is rounded. */
void mg_cuda_round_weight(const struct mg_context *context, void *out, struct mg_weight_layout layout,
                          const struct mg_tensor *shape, const float *master) {
    const struct optimizer_call call(context, "round_weight");
    struct mg_cuda_state *state = call.state;
    const int64_t channels = shape->dim[1], per_row = mg_cuda_padded(channels, layout.dtype) / layout.group;
    const int64_t chunks = mg_tensor_count(shape) / channels * per_row;
    mg_cuda_dispatch_type(layout.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, mg_cuda_grid(chunks), MG_CUDA_THREADS, round_kernel<T>, (T *)out, master, chunks, per_row,
                       channels);
    });
}

/* ---- sum of squares: partial sums by blocks, then their sum by one block; always in the same order ---- */
constexpr int64_t PARTIAL_LENGTH = 32768;
constexpr int WARPS = MG_CUDA_THREADS / MG_CUDA_WARP;

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

__global__ void squares_kernel(double *partials, const float *x, int64_t count) {
    MG_SHARED(struct warp_sums, shared);
    const int64_t first = blockIdx.x * PARTIAL_LENGTH;
    const int64_t last = first + PARTIAL_LENGTH < count ? first + PARTIAL_LENGTH : count;
    double sum = 0.0;
    for (int64_t i = first + threadIdx.x; i < last; i += MG_CUDA_THREADS)
        sum += (double)x[i] * x[i];
    sum = block_sum(shared, sum);
    if (threadIdx.x == 0)
        partials[blockIdx.x] = sum;
}

__global__ void total_kernel(double *total, const double *partials, int64_t count) {
    MG_SHARED(struct warp_sums, shared);
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < count; i += MG_CUDA_THREADS)
        sum += partials[i];
    sum = block_sum(shared, sum);
    if (threadIdx.x == 0)
        *total = sum;
}

/* The partial sums lie in cuBLAS's workspace, which nobody uses meanwhile: room for more numbers than a GPU has. NaN after a
 * fault, which finish() tells. */
double mg_cuda_sum_of_squares(const struct mg_context *context, const float *x, int64_t count) {
    const struct optimizer_call call(context, "sum_of_squares");
    struct mg_cuda_state *state = call.state;
    const int64_t blocks = mg_cuda_divide_up(count, PARTIAL_LENGTH);
    double *sums = (double *)state->blas_workspace, total = NAN;
    mg_cuda_launch(state, dim3((unsigned)blocks), MG_CUDA_THREADS, squares_kernel, sums + 1, x, count);
    mg_cuda_launch(state, dim3(1), MG_CUDA_THREADS, total_kernel, sums, (const double *)(sums + 1), blocks);
    mg_cuda_note(state, cudaMemcpyAsync(&total, sums, sizeof total, cudaMemcpyDeviceToHost, state->stream),
                 "a download");
    mg_cuda_note(state, cudaStreamSynchronize(state->stream), "a download");
    return total;
}
