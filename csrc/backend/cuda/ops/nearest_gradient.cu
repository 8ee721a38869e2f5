/* nearest_gradient.cu: the gradient of nearest upsampling. */
#include "../cuda.cuh"

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
