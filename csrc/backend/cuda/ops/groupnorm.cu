/* groupnorm.cu: group normalisation.
 *
 * It takes three kernels: mean and squared deviations of each channel over strips of
 * pixels; from them mean and deviation of each group, in double, as a factor and an offset for each channel; and their
 * application. Strips depend on the shape of one image only. */
#include "../gradient.cuh"

constexpr int64_t STRIP = 64; /* pixels that one thread sums up in float32 */

struct group_norm {
    int64_t pixels, channels, strips;
    int groups;
    float epsilon;
    bool silu;
};

/* partials: (N, strips, channels) pairs of the mean and the sum of squared deviations from it. Thread: one channel of one
 * strip, which it reads twice, so that neither a large mean nor a few large values cost digits; the second time from the
 * cache. */
template <class T> __global__ void channel_partials_kernel(float2 *partials, const T *x, struct group_norm p) {
    const int64_t blocks = (p.channels + blockDim.x - 1) / blockDim.x, image = blockIdx.y;
    const int64_t channel = blockIdx.x % blocks * blockDim.x + threadIdx.x, strip = blockIdx.x / blocks;
    if (channel >= p.channels)
        return;
    const int64_t first = strip * STRIP, count = p.pixels - first < STRIP ? p.pixels - first : STRIP;
    const T *values = x + (image * p.pixels + first) * p.channels + channel;
    float sum = 0.0f, rest = 0.0f, squares = 0.0f;
    for (int64_t i = 0; i < count; i++)
        sum += mg_float(values[i * p.channels]);
    const float mean = sum / (float)count;
    for (int64_t i = 0; i < count; i++) {
        const float deviation = mg_float(values[i * p.channels]) - mean;
        rest += deviation;
        squares += deviation * deviation;
    }
    rest /= (float)count; /* what rounding left in the mean */
    partials[(image * p.strips + strip) * p.channels + channel] =
        make_float2(mean + rest, squares - rest * rest * (float)count);
}

struct warp_sums {
    double sum[MG_CUDA_THREADS / MG_CUDA_WARP], squares[MG_CUDA_THREADS / MG_CUDA_WARP];
    float factor, offset;
};

/* affine: (N, channels) pairs of factor and offset; without gamma, of the mean and 1 / deviation. Block: one group of one
 * image. */
__global__ void group_statistics_kernel(float2 *affine, const float2 *partials, const float *gamma, const float *beta,
                                        struct group_norm p) {
    MG_SHARED(struct warp_sums, shared);
    const int64_t width = p.channels / p.groups, image = blockIdx.y, begin = blockIdx.x * width;
    const int warp = threadIdx.x / MG_CUDA_WARP, lane = threadIdx.x % MG_CUDA_WARP;
    double sum = 0.0, squares = 0.0;
    for (int64_t i = threadIdx.x; i < p.strips * width; i += blockDim.x) {
        const int64_t strip = i / width, left = p.pixels - strip * STRIP;
        const float2 part = partials[(image * p.strips + strip) * p.channels + begin + i % width];
        const double mean = part.x, weighted = mean * (double)(left < STRIP ? left : STRIP);
        sum += weighted;
        squares += (double)part.y + weighted * mean;
    }
    sum = mg_warp_sum(sum);
    squares = mg_warp_sum(squares);
    if (lane == 0) {
        shared.sum[warp] = sum;
        shared.squares[warp] = squares;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < MG_CUDA_THREADS / MG_CUDA_WARP; w++) {
            sum += shared.sum[w];
            squares += shared.squares[w];
        }
        const double count = (double)(p.pixels * width), mean = sum / count;
        const double variance = squares / count - mean * mean;
        const double factor = 1.0 / sqrt((variance > 0.0 ? variance : 0.0) + (double)p.epsilon);
        shared.factor = (float)factor;
        shared.offset = (float)(gamma ? mean * factor : mean);
    }
    __syncthreads();
    for (int64_t c = begin + threadIdx.x; c < begin + width; c += blockDim.x)
        affine[image * p.channels + c] = gamma
                                             ? make_float2(shared.factor * gamma[c], beta[c] - shared.offset * gamma[c])
                                             : make_float2(shared.offset, shared.factor);
}

template <class T, int N> __global__ void affine_kernel(T *out, const T *x, const float2 *affine, struct group_norm p) {
    const int64_t image = blockIdx.y, count = p.pixels * p.channels, vectors = p.channels / N;
    for (MG_CUDA_GRID_STRIDE(i, count / N)) {
        const float2 *a = affine + image * p.channels + i % vectors * N;
        float value[N];
        mg_load<N>(value, x + image * count + i * N);
#pragma unroll
        for (int e = 0; e < N; e++) {
            const float y = value[e] * a[e].x + a[e].y;
            value[e] = p.silu ? mg_silu(y) : y;
        }
        mg_store<N>(out + image * count + i * N, value);
    }
}

static struct group_norm group_norm_of(const struct mg_op_shape *op) {
    const struct mg_groupnorm *p = &op->params.groupnorm;
    const int64_t pixels = op->in[0].dim[1] * op->in[0].dim[2];
    return {pixels, op->in[0].dim[3], mg_cuda_divide_up(pixels, STRIP), p->groups, p->epsilon, p->silu};
}

size_t mg_cuda_group_partials_bytes(const struct mg_op_shape *op) {
    const struct group_norm p = group_norm_of(op);
    return mg_aligned((size_t)(op->in[0].dim[0] * p.strips * p.channels) * sizeof(float2));
}

template <class T>
static void find_statistics(struct mg_cuda_state *state, const struct mg_op_shape *op, const T *x, float2 *affine,
                            float2 *partials, const float *gamma, const float *beta) {
    const struct group_norm p = group_norm_of(op);
    const unsigned images = (unsigned)op->in[0].dim[0];
    const int threads = p.channels < 128 ? 64 : 128;
    const dim3 grid((unsigned)(mg_cuda_divide_up(p.channels, threads) * p.strips), images);
    mg_cuda_launch(state, grid, threads, channel_partials_kernel<T>, partials, x, p);
    mg_cuda_launch(state, dim3((unsigned)p.groups, images), MG_CUDA_THREADS, group_statistics_kernel, affine, partials,
                   gamma, beta, p);
}

void mg_cuda_group_statistics(struct mg_cuda_state *state, const struct mg_op_shape *op, const void *x,
                              float2 *statistics, void *partials) {
    mg_cuda_dispatch_type(op->in[0].dtype, [&](auto zero) {
        using T = decltype(zero);
        find_statistics(state, op, (const T *)x, statistics, (float2 *)partials, NULL, NULL);
    });
}

/* Cannot overflow: at most two floats for each element and each channel of x. */
static size_t groupnorm_bytes(const struct mg_op_shape *op) {
    return mg_cuda_group_partials_bytes(op) + (size_t)(op->in[0].dim[0] * op->in[0].dim[3]) * sizeof(float2);
}

static void groupnorm_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct group_norm p = group_norm_of(call->op);
    const unsigned images = (unsigned)call->op->in[0].dim[0];
    float2 *partials = (float2 *)call->workspace;
    float2 *affine = (float2 *)((char *)call->workspace + mg_cuda_group_partials_bytes(call->op));
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        const T *x = (const T *)call->in[0];
        find_statistics(state, call->op, x, affine, partials, (const float *)call->in[1], (const float *)call->in[2]);
        mg_cuda_dispatch_width<T>(p.channels, [&](auto width) {
            constexpr int N = decltype(width)::value;
            dim3 elements = mg_cuda_grid(p.pixels * p.channels / N);
            elements.y = images;
            mg_cuda_launch(state, elements, MG_CUDA_THREADS, affine_kernel<T, N>, (T *)call->out, x, affine, p);
        });
    });
}
const struct mg_cuda_driver mg_cuda_groupnorm = {.run = groupnorm_run, .workspace_bytes = groupnorm_bytes};
