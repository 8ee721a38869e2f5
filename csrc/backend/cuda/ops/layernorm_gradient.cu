/* layernorm_gradient.cu: gradients of layer normalisation, a warp for each row; groupnorm_gradient.cu has the formula. */
#include "../gradient.cuh"
#include "../layernorm.cuh"

template <class T>
__global__ void row_statistics_kernel(float2 *statistics, const T *x, int64_t rows, int64_t channels, float epsilon) {
    const int64_t row = blockIdx.x * (int64_t)MG_CUDA_ROWS + threadIdx.x / MG_CUDA_WARP;
    if (row >= rows)
        return;
    const float2 s = mg_cuda_row_statistics(x + row * channels, channels, epsilon);
    if (threadIdx.x % MG_CUDA_WARP == 0)
        statistics[row] = s;
}

/* partials: (N, strips, 2, C), as for group normalisation. */
template <class T>
__global__ void layer_sums_kernel(float *partials, const T *x, const T *dy, const float2 *statistics,
                                  struct mg_cuda_channel_sums p) {
    const int64_t image = blockIdx.y;
    for (MG_CUDA_GRID_STRIDE(i, p.strips * p.channels)) {
        const int64_t c = i % p.channels, strip = i / p.channels, first = strip * MG_CUDA_PARTIAL_LENGTH;
        const int64_t last = first + MG_CUDA_PARTIAL_LENGTH < p.pixels ? first + MG_CUDA_PARTIAL_LENGTH : p.pixels;
        float sum = 0.0f, products = 0.0f;
        for (int64_t pixel = first; pixel < last; pixel++) {
            const int64_t row = image * p.pixels + pixel, at = row * p.channels + c;
            const float2 s = statistics[row];
            const float g = mg_float(dy[at]);
            sum += g;
            products += g * ((mg_float(x[at]) - s.x) * s.y);
        }
        float *to = partials + (image * p.strips + strip) * 2 * p.channels + c;
        to[0] = sum;
        to[p.channels] = products;
    }
}

static size_t layernorm_sums_bytes(const struct mg_op_shape *op) {
    const struct mg_cuda_channel_sums p = mg_cuda_channel_sums_of(op);
    return mg_cuda_channel_sums_bytes(op) + (size_t)(op->in[0].dim[0] * p.pixels) * sizeof(float2);
}

static void layernorm_sums_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct mg_cuda_channel_sums p = mg_cuda_channel_sums_of(call->op);
    const int64_t images = call->op->in[0].dim[0], rows = images * p.pixels;
    float *partials = (float *)call->workspace;
    float2 *statistics = (float2 *)((char *)partials + mg_cuda_channel_sums_bytes(call->op));
    const struct mg_cuda_partials all = {partials, NULL, images, p.strips, 2 * p.channels, 2 * p.channels};
    dim3 grid = mg_cuda_grid(p.strips * p.channels);
    grid.y = (unsigned)images;
    mg_cuda_dispatch_type(call->op->in[0].dtype, [&](auto zero) {
        using T = decltype(zero);
        const T *x = (const T *)call->in[0];
        mg_cuda_launch(state, dim3((unsigned)mg_cuda_divide_up(rows, MG_CUDA_ROWS)), MG_CUDA_THREADS,
                       row_statistics_kernel<T>, statistics, x, rows, p.channels, call->op->params.layernorm.epsilon);
        mg_cuda_launch(state, grid, MG_CUDA_THREADS, layer_sums_kernel<T>, partials, x, (const T *)call->in[1],
                       (const float2 *)statistics, p);
    });
    mg_cuda_sum_partials(state, (float *)call->out, &all);
}
const struct mg_cuda_driver mg_cuda_layernorm_sums = {.run = layernorm_sums_run,
                                                      .workspace_bytes = layernorm_sums_bytes};

/* A lane reads an element of dy before it writes the gradient in its place. */
template <class T>
__global__ void layer_gradient_kernel(T *out, const T *x, const float *gamma, const T *dy, int64_t rows,
                                      int64_t channels, float epsilon) {
    const int lane = threadIdx.x % MG_CUDA_WARP;
    const int64_t row = blockIdx.x * (int64_t)MG_CUDA_ROWS + threadIdx.x / MG_CUDA_WARP;
    if (row >= rows)
        return;
    x += row * channels;
    dy += row * channels;
    const float2 s = mg_cuda_row_statistics(x, channels, epsilon);
    float average = 0.0f, projection = 0.0f;
    for (int64_t c = lane; c < channels; c += MG_CUDA_WARP) {
        const float g = gamma[c] * mg_float(dy[c]);
        average += g;
        projection += g * ((mg_float(x[c]) - s.x) * s.y);
    }
    average = mg_warp_sum(average) / (float)channels;
    projection = mg_warp_sum(projection) / (float)channels;
    for (int64_t c = lane; c < channels; c += MG_CUDA_WARP) {
        const float g = gamma[c] * mg_float(dy[c]), normal = (mg_float(x[c]) - s.x) * s.y;
        out[row * channels + c] = mg_element<T>((g - average - normal * projection) * s.y);
    }
}

static void layernorm_gradient_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t channels = call->op->in[0].dim[3], rows = mg_tensor_count(&call->op->in[0]) / channels;
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, dim3((unsigned)mg_cuda_divide_up(rows, MG_CUDA_ROWS)), MG_CUDA_THREADS,
                       layer_gradient_kernel<T>, (T *)call->out, (const T *)call->in[0], (const float *)call->in[1],
                       (const T *)call->in[2], rows, channels, call->op->params.layernorm.epsilon);
    });
}
const struct mg_cuda_driver mg_cuda_layernorm_gradient = {.run = layernorm_gradient_run};
