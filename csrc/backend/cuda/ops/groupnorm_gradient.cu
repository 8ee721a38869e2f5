/* groupnorm_gradient.cu: gradients of group normalisation.
 *
 * With y = gamma n + beta, n = (x - mean) / deviation, and g the gradient of y: the gradient of x is
 * (gamma g - mean(gamma g) - n mean(gamma g n)) / deviation, means over what is normalised together. */
#include "../gradient.cuh"

/* The gradient before the SiLU, if there is one, of what is behind it. */
__device__ static inline float through_silu(bool silu, float normal, float gamma, float beta, float dy) {
    return silu ? dy * mg_activation_derivative(normal * gamma + beta, MG_ACT_SILU) : dy;
}

/* partials: (N, strips, 2, C): sums of g, and of g times normalised x. Also writes the statistics to the result. */
template <class T>
__global__ void group_sums_kernel(float *partials, float *out, const T *x, const float *gamma, const float *beta,
                                  const T *dy, const float2 *statistics, struct mg_cuda_channel_sums p) {
    const int64_t image = blockIdx.y;
    for (MG_CUDA_GRID_STRIDE(i, p.strips * p.channels)) {
        const int64_t c = i % p.channels, strip = i / p.channels, first = strip * MG_CUDA_PARTIAL_LENGTH;
        const int64_t last = first + MG_CUDA_PARTIAL_LENGTH < p.pixels ? first + MG_CUDA_PARTIAL_LENGTH : p.pixels;
        const float2 s = statistics[image * p.channels + c];
        float sum = 0.0f, products = 0.0f;
        for (int64_t pixel = first; pixel < last; pixel++) {
            const int64_t at = (image * p.pixels + pixel) * p.channels + c;
            const float normal = (mg_float(x[at]) - s.x) * s.y;
            const float g = through_silu(p.silu, normal, gamma[c], beta[c], mg_float(dy[at]));
            sum += g;
            products += g * normal;
        }
        float *to = partials + (image * p.strips + strip) * 2 * p.channels + c;
        to[0] = sum;
        to[p.channels] = products;
        if (strip == 0) {
            out[image * 4 * p.channels + c] = s.x;
            out[(image * 4 + 1) * p.channels + c] = s.y;
        }
    }
}

static size_t groupnorm_sums_bytes(const struct mg_op_shape *op) {
    return mg_cuda_group_partials_bytes(op) + mg_cuda_channel_sums_bytes(op) +
           (size_t)(op->in[0].dim[0] * op->in[0].dim[3]) * sizeof(float2);
}

static void groupnorm_sums_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    struct mg_cuda_channel_sums p = mg_cuda_channel_sums_of(call->op);
    const int64_t images = call->op->in[0].dim[0];
    char *workspace = (char *)call->workspace;
    float *partials = (float *)(workspace + mg_cuda_group_partials_bytes(call->op)), *out = (float *)call->out;
    float2 *statistics = (float2 *)((char *)partials + mg_cuda_channel_sums_bytes(call->op));
    const struct mg_cuda_partials all = {partials, NULL, images, p.strips, 2 * p.channels, 4 * p.channels};
    dim3 grid = mg_cuda_grid(p.strips * p.channels);
    grid.y = (unsigned)images;
    p.silu = call->op->params.groupnorm.silu;
    mg_cuda_group_statistics(state, call->op, call->in[0], statistics, workspace);
    mg_cuda_dispatch_type(call->op->in[0].dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, grid, MG_CUDA_THREADS, group_sums_kernel<T>, partials, out, (const T *)call->in[0],
                       (const float *)call->in[1], (const float *)call->in[2], (const T *)call->in[3],
                       (const float2 *)statistics, p);
    });
    mg_cuda_sum_partials(state, out + 2 * p.channels, &all);
}
const struct mg_cuda_driver mg_cuda_groupnorm_sums = {.run = groupnorm_sums_run,
                                                      .workspace_bytes = groupnorm_sums_bytes};

/* means: (N, groups): of gamma g, and of gamma g times normalised x. Thread: one group of one image. */
__global__ void group_means_kernel(float2 *means, const float *gamma, const float *sums, int64_t count, int64_t groups,
                                   struct mg_cuda_channel_sums p) {
    const int64_t width = p.channels / groups;
    for (MG_CUDA_GRID_STRIDE(i, count)) {
        const float *of_image = sums + i / groups * 4 * p.channels;
        const int64_t first = i % groups * width;
        double average = 0.0, projection = 0.0;
        for (int64_t c = first; c < first + width; c++) {
            average += (double)gamma[c] * of_image[2 * p.channels + c];
            projection += (double)gamma[c] * of_image[3 * p.channels + c];
        }
        const double number = (double)(p.pixels * width);
        means[i] = make_float2((float)(average / number), (float)(projection / number));
    }
}

template <class T> struct group_tensors {
    const T *x;
    const float *gamma, *beta;
    const T *dy;
    const float *sums;
    const float2 *means;
};

/* An element of dy is read before the gradient takes its place. */
template <class T>
__global__ void group_gradient_kernel(T *out, struct group_tensors<T> t, int64_t count, int64_t groups,
                                      struct mg_cuda_channel_sums p) {
    for (MG_CUDA_GRID_STRIDE(i, count)) {
        const int64_t c = i % p.channels, image = i / p.channels / p.pixels;
        const float *sums = t.sums + image * 4 * p.channels + c;
        const float2 mean = t.means[image * groups + c / (p.channels / groups)];
        const float inverse = sums[p.channels], normal = (mg_float(t.x[i]) - sums[0]) * inverse;
        const float g = through_silu(p.silu, normal, t.gamma[c], t.beta[c], mg_float(t.dy[i]));
        out[i] = mg_element<T>((t.gamma[c] * g - mean.x - normal * mean.y) * inverse);
    }
}

static size_t groupnorm_gradient_bytes(const struct mg_op_shape *op) {
    return (size_t)(op->in[0].dim[0] * op->params.groupnorm.groups) * sizeof(float2);
}

static void groupnorm_gradient_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    struct mg_cuda_channel_sums p = mg_cuda_channel_sums_of(call->op);
    const int64_t groups = call->op->params.groupnorm.groups, of_all = call->op->in[0].dim[0] * groups;
    const int64_t count = mg_tensor_count(&call->op->out);
    float2 *means = (float2 *)call->workspace;
    const float *gamma = (const float *)call->in[1], *sums = (const float *)call->in[4];
    p.silu = call->op->params.groupnorm.silu;
    mg_cuda_launch(state, mg_cuda_grid(of_all), MG_CUDA_THREADS, group_means_kernel, means, gamma, sums, of_all, groups,
                   p);
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        const struct group_tensors<T> t = {
            (const T *)call->in[0], gamma, (const float *)call->in[2], (const T *)call->in[3], sums, means
        };
        mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, group_gradient_kernel<T>, (T *)call->out, t, count,
                       groups, p);
    });
}
const struct mg_cuda_driver mg_cuda_groupnorm_gradient = {.run = groupnorm_gradient_run,
                                                          .workspace_bytes = groupnorm_gradient_bytes};
