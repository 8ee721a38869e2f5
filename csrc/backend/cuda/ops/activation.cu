/* activation.cu: operations that treat each element by itself: activations, scaling, casts, sums, GEGLU, the
 * scheduler's step. Called by cuda_backend.cu. */
#include "../cuda.cuh"

template <class T> __global__ void activation_kernel(T *out, const T *x, int64_t count, mg_activation activation) {
    for (MG_CUDA_EACH(i, count))
        out[i] = mg_element<T>(mg_activate(mg_float(x[i]), activation));
}

static void activation_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    mg_cuda_for_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, activation_kernel<T>, (T *)call->out,
                       (const T *)call->in[0], count, call->op->params.activation);
    });
}
const struct mg_cuda_driver mg_cuda_activation = {activation_run, NULL};

template <class T> __global__ void scale_kernel(T *out, const T *x, int64_t count, float factor, float offset) {
    for (MG_CUDA_EACH(i, count))
        out[i] = mg_element<T>(mg_float(x[i]) * factor + offset);
}

static void scale_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const struct mg_scale p = call->op->params.scale;
    mg_cuda_for_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, scale_kernel<T>, (T *)call->out,
                       (const T *)call->in[0], count, p.factor, p.offset);
    });
}
const struct mg_cuda_driver mg_cuda_scale = {scale_run, NULL};

template <class T, class U> __global__ void cast_kernel(T *out, const U *x, int64_t count) {
    for (MG_CUDA_EACH(i, count))
        out[i] = mg_element<T>(mg_float(x[i]));
}

static void cast_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    mg_cuda_for_type(call->op->out.dtype, [&](auto to) {
        mg_cuda_for_type(call->op->in[0].dtype, [&](auto from) {
            using T = decltype(to);
            using U = decltype(from);
            mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, cast_kernel<T, U>, (T *)call->out,
                           (const U *)call->in[0], count);
        });
    });
}
const struct mg_cuda_driver mg_cuda_cast = {cast_run, NULL};

/* The second input may be of size 1 in N, H, W: its strides are then 0. */
struct broadcast {
    int64_t count, h, w, c;
    int64_t stride_n, stride_h, stride_w;
};

template <class T> __global__ void add_kernel(T *out, const T *a, const T *b, struct broadcast p) {
    for (MG_CUDA_EACH(i, p.count)) {
        const int64_t pixel = i / p.c, row = pixel / p.w;
        const int64_t from = row / p.h * p.stride_n + row % p.h * p.stride_h + pixel % p.w * p.stride_w + i % p.c;
        out[i] = mg_element<T>(mg_float(a[i]) + mg_float(b[from]));
    }
}

static void add_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t *big = call->op->out.dim, *small = call->op->in[1].dim;
    struct broadcast p = {mg_tensor_count(&call->op->out), big[1], big[2], big[3], 0, 0, 0};
    p.stride_w = small[2] > 1 ? small[3] : 0;
    p.stride_h = small[1] > 1 ? small[2] * small[3] : 0;
    p.stride_n = small[0] > 1 ? small[1] * small[2] * small[3] : 0;
    mg_cuda_for_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, mg_cuda_grid(p.count), MG_CUDA_THREADS, add_kernel<T>, (T *)call->out,
                       (const T *)call->in[0], (const T *)call->in[1], p);
    });
}
const struct mg_cuda_driver mg_cuda_add = {add_run, NULL};

template <class T> __global__ void geglu_kernel(T *out, const T *x, int64_t count, int64_t channels) {
    for (MG_CUDA_EACH(i, count)) {
        const T *value = x + i / channels * 2 * channels + i % channels;
        out[i] = mg_element<T>(mg_float(value[0]) * mg_gelu(mg_float(value[channels])));
    }
}

static void geglu_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out), channels = call->op->out.dim[3];
    mg_cuda_for_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, geglu_kernel<T>, (T *)call->out,
                       (const T *)call->in[0], count, channels);
    });
}
const struct mg_cuda_driver mg_cuda_geglu = {geglu_run, NULL};

__global__ void scheduler_step_kernel(float *out, const float *sample, const float *model_output, const float *factors,
                                      const float *noise, int64_t count) {
    for (MG_CUDA_EACH(i, count)) {
        const float sum = factors[0] * sample[i] + factors[1] * model_output[i];
        out[i] = noise ? sum + factors[2] * noise[i] : sum;
    }
}

static void scheduler_step_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, scheduler_step_kernel, (float *)call->out,
                   (const float *)call->in[0], (const float *)call->in[1], (const float *)call->in[2],
                   (const float *)call->in[3], count);
}
const struct mg_cuda_driver mg_cuda_scheduler_step = {scheduler_step_run, NULL};
