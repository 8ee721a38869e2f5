/* layout.cu: operations that only move elements: concatenation, slices of channels, channels first and last.
 * Called by cuda_backend.cu. */
#include "../cuda.cuh"

/* Copies `count` channels of every pixel, from channel in_begin of in_channels to out_begin of out_channels; all in
 * elements of the kernel. */
struct channels {
    int64_t pixels, count, out_begin, out_channels, in_begin, in_channels;
};

template <class E> __global__ void copy_channels_kernel(E *out, const E *in, struct channels p) {
    for (MG_CUDA_EACH(i, p.pixels * p.count)) {
        const int64_t pixel = i / p.count, c = i % p.count;
        out[pixel * p.out_channels + p.out_begin + c] = in[pixel * p.in_channels + p.in_begin + c];
    }
}

static void copy_channels(struct mg_cuda_state *state, const struct mg_op_call *call, int slot, struct channels p) {
    mg_cuda_for_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        /* All are multiples of a power of two if their bits together are. */
        const int64_t length = p.count | p.out_begin | p.out_channels | p.in_begin | p.in_channels;
        mg_cuda_for_width<T>(length, [&](auto width) {
            constexpr int N = decltype(width)::value;
            using E = struct mg_pack<T, N>;
            const struct channels q = {p.pixels,           p.count / N,    p.out_begin / N,
                                       p.out_channels / N, p.in_begin / N, p.in_channels / N};
            mg_cuda_launch(state, mg_cuda_grid(q.pixels * q.count), MG_CUDA_THREADS, copy_channels_kernel<E>,
                           (E *)call->out, (const E *)call->in[slot], q);
        });
    });
}

static void concat_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t a = call->op->in[0].dim[3], b = call->op->in[1].dim[3];
    const int64_t pixels = mg_tensor_count(&call->op->out) / (a + b);
    copy_channels(state, call, 0, {pixels, a, 0, a + b, 0, a});
    copy_channels(state, call, 1, {pixels, b, a, a + b, 0, b});
}
const struct mg_cuda_driver mg_cuda_concat = {concat_run, NULL};

static void channel_slice_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct mg_slice p = call->op->params.slice;
    const int64_t channels = call->op->in[0].dim[3], pixels = mg_tensor_count(&call->op->out) / p.count;
    copy_channels(state, call, 0, {pixels, p.count, 0, p.count, p.begin, channels});
}
const struct mg_cuda_driver mg_cuda_channel_slice = {channel_slice_run, NULL};

/* out[n][b][a] = in[n][a][b], through a square in shared memory, so that both sides are read and written along rows.
 * One float of padding keeps the columns of the square in different banks. */
enum { SQUARE = 32, SQUARE_ROWS = MG_CUDA_THREADS / SQUARE };

struct square {
    float at[SQUARE][SQUARE + 1];
};

__global__ void transpose_kernel(float *out, const float *in, int64_t size_a, int64_t size_b) {
    MG_SHARED(struct square, shared);
    const int64_t squares_b = (size_b + SQUARE - 1) / SQUARE;
    const int64_t a0 = blockIdx.x / squares_b * SQUARE, b0 = blockIdx.x % squares_b * SQUARE;
    const int64_t image = (int64_t)blockIdx.y * size_a * size_b;
    const int lane = threadIdx.x % SQUARE, row = threadIdx.x / SQUARE;
    for (int i = row; i < SQUARE; i += SQUARE_ROWS)
        if (a0 + i < size_a && b0 + lane < size_b)
            shared.at[i][lane] = in[image + (a0 + i) * size_b + b0 + lane];
    __syncthreads();
    for (int i = row; i < SQUARE; i += SQUARE_ROWS)
        if (b0 + i < size_b && a0 + lane < size_a)
            out[image + (b0 + i) * size_a + a0 + lane] = shared.at[lane][i];
}

static void transpose(struct mg_cuda_state *state, const struct mg_op_call *call, int64_t images, int64_t a,
                      int64_t b) {
    const dim3 grid((unsigned)(mg_cuda_divide_up(a, SQUARE) * mg_cuda_divide_up(b, SQUARE)), (unsigned)images);
    mg_cuda_launch(state, grid, MG_CUDA_THREADS, transpose_kernel, (float *)call->out, (const float *)call->in[0], a,
                   b);
}

static void nchw_to_nhwc_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t *nchw = call->op->in[0].dim;
    transpose(state, call, nchw[0], nchw[1], nchw[2] * nchw[3]);
}
const struct mg_cuda_driver mg_cuda_nchw_to_nhwc = {nchw_to_nhwc_run, NULL};

static void nhwc_to_nchw_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t *nhwc = call->op->in[0].dim;
    transpose(state, call, nhwc[0], nhwc[1] * nhwc[2], nhwc[3]);
}
const struct mg_cuda_driver mg_cuda_nhwc_to_nchw = {nhwc_to_nchw_run, NULL};
