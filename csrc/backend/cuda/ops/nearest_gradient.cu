/* pointwise_gradient.cu: gradients of activations, GEGLU and nearest upsampling, and padding with zero channels. */
#include "../gradient.cuh"

/* Channels in vectors. An element of x and its gate are read before the gradients take their place. */
template <class T, int N>
__global__ void geglu_gradient_kernel(T *out, const T *x, const T *dy, int64_t vectors, int64_t channels) {
    for (MG_CUDA_GRID_STRIDE(i, vectors)) {
        const int64_t first = (i / channels * 2 * channels + i % channels) * N, second = first + channels * N;
        float value[N], gate[N], g[N];
        mg_load<N>(value, x + first);
        mg_load<N>(gate, x + second);
        mg_load<N>(g, dy + i * N);
#pragma unroll
        for (int e = 0; e < N; e++) {
            value[e] *= g[e] * mg_activation_slope(gate[e], MG_ACT_GELU);
            g[e] *= mg_gelu(gate[e]);
        }
        mg_store<N>(out + first, g);
        mg_store<N>(out + second, value);
    }
}

static void geglu_gradient_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t channels = call->op->in[1].dim[3], count = mg_tensor_count(&call->op->in[1]);
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_dispatch_width<T>(channels, [&](auto width) {
            constexpr int N = decltype(width)::value;
            mg_cuda_launch(state, mg_cuda_grid(count / N), MG_CUDA_THREADS, geglu_gradient_kernel<T, N>, (T *)call->out,
                           (const T *)call->in[0], (const T *)call->in[1], count / N, channels / N);
        });
    });
}
const struct mg_cuda_driver mg_cuda_geglu_gradient = {.run = geglu_gradient_run};

template <class T, int N>
__global__ void activation_gradient_kernel(T *out, const T *x, const T *dy, int64_t vectors, mg_activation activation) {
    for (MG_CUDA_GRID_STRIDE(i, vectors)) {
        float value[N], g[N];
        mg_load<N>(value, x + i * N);
        mg_load<N>(g, dy + i * N);
#pragma unroll
        for (int e = 0; e < N; e++)
            g[e] *= mg_activation_slope(value[e], activation);
        mg_store<N>(out + i * N, g);
    }
}

static void activation_gradient_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_dispatch_width<T>(count, [&](auto width) {
            constexpr int N = decltype(width)::value;
            mg_cuda_launch(state, mg_cuda_grid(count / N), MG_CUDA_THREADS, activation_gradient_kernel<T, N>,
                           (T *)call->out, (const T *)call->in[0], (const T *)call->in[1], count / N,
                           call->op->params.activation);
        });
    });
}
const struct mg_cuda_driver mg_cuda_activation_gradient = {.run = activation_gradient_run};

template <class T>
__global__ void channel_pad_kernel(T *out, const T *x, int64_t count, int64_t channels, struct mg_slice p) {
    for (MG_CUDA_GRID_STRIDE(i, count)) {
        const int64_t c = i % channels - p.begin;
        out[i] = c >= 0 && c < p.count ? x[i / channels * p.count + c] : mg_element<T>(0.0f);
    }
}

static void channel_pad_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, channel_pad_kernel<T>, (T *)call->out,
                       (const T *)call->in[0], count, call->op->out.dim[3], call->op->params.slice);
    });
}
const struct mg_cuda_driver mg_cuda_channel_pad = {.run = channel_pad_run};

/* ---- upsampling ---- */
struct upsampled {
    int64_t count, h, w, c; /* of the result */
    int64_t big_h, big_w;
    float ratio_h, ratio_w;
};

/* Rows or columns of the large map that show row or column `index`: *first .. the result. */
__device__ static inline int64_t shown_by(int64_t *first, int64_t index, float ratio, int64_t size, int64_t big) {
    int64_t i = (int64_t)((float)index / ratio) - 1; /* at most one beside it, whichever way it was rounded */
    i = i < 0 ? 0 : i;
    while (i < big && mg_nearest(i, ratio, size) < index)
        i++;
    *first = i;
    while (i < big && mg_nearest(i, ratio, size) == index)
        i++;
    return i;
}

template <class T> __global__ void nearest_gradient_kernel(T *out, const T *dy, struct upsampled p) {
    for (MG_CUDA_GRID_STRIDE(i, p.count)) {
        const int64_t c = i % p.c, image = i / p.c / p.w / p.h;
        int64_t top, left;
        const int64_t bottom = shown_by(&top, i / p.c / p.w % p.h, p.ratio_h, p.h, p.big_h);
        const int64_t right = shown_by(&left, i / p.c % p.w, p.ratio_w, p.w, p.big_w);
        float sum = 0.0f;
        for (int64_t y = top; y < bottom; y++)
            for (int64_t x = left; x < right; x++)
                sum += mg_float(dy[((image * p.big_h + y) * p.big_w + x) * p.c + c]);
        out[i] = mg_element<T>(sum);
    }
}

static void nearest_gradient_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t *big = call->op->in[0].dim, *small = call->op->out.dim;
    const struct upsampled p = {
        mg_tensor_count(&call->op->out), small[1], small[2], small[3], big[1], big[2], (float)small[1] / (float)big[1],
        (float)small[2] / (float)big[2]};
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, mg_cuda_grid(p.count), MG_CUDA_THREADS, nearest_gradient_kernel<T>, (T *)call->out,
                       (const T *)call->in[0], p);
    });
}
const struct mg_cuda_driver mg_cuda_nearest_gradient = {.run = nearest_gradient_run};
