/* pointwise.cu: elementwise operations: activations, scaling, casts, sums, GEGLU. */
#include "../cuda.cuh"

template <class T, int N>
__global__ void activation_kernel(T *out, const T *x, int64_t vectors, mg_activation activation) {
    for (MG_CUDA_GRID_STRIDE(i, vectors)) {
        float value[N];
        mg_load<N>(value, x + i * N);
#pragma unroll
        for (int e = 0; e < N; e++)
            value[e] = mg_activate(value[e], activation);
        mg_store<N>(out + i * N, value);
    }
}

static void activation_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_dispatch_width<T>(count, [&](auto width) {
            constexpr int N = decltype(width)::value;
            mg_cuda_launch(state, mg_cuda_grid(count / N), MG_CUDA_THREADS, activation_kernel<T, N>, (T *)call->out,
                           (const T *)call->in[0], count / N, call->op->params.activation);
        });
    });
}
const struct mg_cuda_driver mg_cuda_activation = {.run = activation_run};

template <class T, int N>
__global__ void scale_kernel(T *out, const T *x, int64_t vectors, float factor, float offset) {
    for (MG_CUDA_GRID_STRIDE(i, vectors)) {
        float value[N];
        mg_load<N>(value, x + i * N);
#pragma unroll
        for (int e = 0; e < N; e++)
            value[e] = value[e] * factor + offset;
        mg_store<N>(out + i * N, value);
    }
}

static void scale_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const struct mg_scale p = call->op->params.scale;
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_dispatch_width<T>(count, [&](auto width) {
            constexpr int N = decltype(width)::value;
            mg_cuda_launch(state, mg_cuda_grid(count / N), MG_CUDA_THREADS, scale_kernel<T, N>, (T *)call->out,
                           (const T *)call->in[0], count / N, p.factor, p.offset);
        });
    });
}
const struct mg_cuda_driver mg_cuda_scale = {.run = scale_run};

template <class T, class U, int N> __global__ void cast_kernel(T *out, const U *x, int64_t vectors) {
    for (MG_CUDA_GRID_STRIDE(i, vectors)) {
        float value[N];
        mg_load<N>(value, x + i * N);
        mg_store<N>(out + i * N, value);
    }
}

static void cast_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto to) {
        mg_cuda_dispatch_type(call->op->in[0].dtype, [&](auto from) {
            using T = decltype(to);
            using U = decltype(from);
            mg_cuda_dispatch_width<float>(count, [&](auto width) {
                constexpr int N = decltype(width)::value;
                mg_cuda_launch(state, mg_cuda_grid(count / N), MG_CUDA_THREADS, cast_kernel<T, U, N>, (T *)call->out,
                               (const U *)call->in[0], count / N);
            });
        });
    });
}
const struct mg_cuda_driver mg_cuda_cast = {.run = cast_run};

/* The second input may be of size 1 in N, H, W: its strides are then 0. Channels in vectors. */
struct broadcast {
    int64_t vectors, h, w, c;
    int64_t stride_n, stride_h, stride_w;
};

template <class T, int N> __global__ void add_kernel(T *out, const T *a, const T *b, struct broadcast p) {
    for (MG_CUDA_GRID_STRIDE(i, p.vectors)) {
        const int64_t pixel = i / p.c, row = pixel / p.w;
        const int64_t from = row / p.h * p.stride_n + row % p.h * p.stride_h + pixel % p.w * p.stride_w + i % p.c * N;
        float left[N], right[N];
        mg_load<N>(left, a + i * N);
        mg_load<N>(right, b + from);
#pragma unroll
        for (int e = 0; e < N; e++)
            left[e] += right[e];
        mg_store<N>(out + i * N, left);
    }
}

static void add_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t *big = call->op->out.dim, *small = call->op->in[1].dim;
    struct broadcast p = {mg_tensor_count(&call->op->out), big[1], big[2], big[3], 0, 0, 0};
    p.stride_w = small[2] > 1 ? small[3] : 0;
    p.stride_h = small[1] > 1 ? small[2] * small[3] : 0;
    p.stride_n = small[0] > 1 ? small[1] * small[2] * small[3] : 0;
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_dispatch_width<T>(big[3], [&](auto width) {
            constexpr int N = decltype(width)::value;
            p.vectors /= N;
            p.c /= N;
            mg_cuda_launch(state, mg_cuda_grid(p.vectors), MG_CUDA_THREADS, add_kernel<T, N>, (T *)call->out,
                           (const T *)call->in[0], (const T *)call->in[1], p);
        });
    });
}
const struct mg_cuda_driver mg_cuda_add = {.run = add_run};

/* Channels in vectors. */
template <class T, int N> __global__ void geglu_kernel(T *out, const T *x, int64_t vectors, int64_t channels) {
    for (MG_CUDA_GRID_STRIDE(i, vectors)) {
        const T *first = x + (i / channels * 2 * channels + i % channels) * N;
        float value[N], gate[N];
        mg_load<N>(value, first);
        mg_load<N>(gate, first + channels * N);
#pragma unroll
        for (int e = 0; e < N; e++)
            value[e] *= mg_gelu(gate[e]);
        mg_store<N>(out + i * N, value);
    }
}

static void geglu_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out), channels = call->op->out.dim[3];
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_dispatch_width<T>(channels, [&](auto width) {
            constexpr int N = decltype(width)::value;
            mg_cuda_launch(state, mg_cuda_grid(count / N), MG_CUDA_THREADS, geglu_kernel<T, N>, (T *)call->out,
                           (const T *)call->in[0], count / N, channels / N);
        });
    });
}
const struct mg_cuda_driver mg_cuda_geglu = {.run = geglu_run};
