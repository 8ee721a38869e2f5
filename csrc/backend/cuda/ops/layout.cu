/* layout.cu: operations that only move elements: concatenation, slices of channels, channels first and last. */
#include "../cuda.cuh"

/* Copies `count` channels of every pixel, from channel in_begin of in_channels to out_begin of out_channels; all in
 * elements of the kernel. */
struct channels {
    int64_t pixels, count, out_begin, out_channels, in_begin, in_channels;
};

template <class E> __global__ void copy_channels_kernel(E *out, const E *in, struct channels p) {
    for (MG_CUDA_GRID_STRIDE(i, p.pixels * p.count)) {
        const int64_t pixel = i / p.count, c = i % p.count;
        out[pixel * p.out_channels + p.out_begin + c] = in[pixel * p.in_channels + p.in_begin + c];
    }
}

static void copy_channels(struct mg_cuda_state *state, const struct mg_op_call *call, int slot, struct channels p) {
    mg_cuda_dispatch_type(call->op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        /* All are multiples of a power of two if their bits together are. */
        const int64_t length = p.count | p.out_begin | p.out_channels | p.in_begin | p.in_channels;
        mg_cuda_dispatch_width<T>(length, [&](auto width) {
            constexpr int N = decltype(width)::value;
            using E = struct mg_vector<T, N>;
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
const struct mg_cuda_driver mg_cuda_concat = {.run = concat_run};

static void channel_slice_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct mg_slice p = call->op->params.slice;
    const int64_t channels = call->op->in[0].dim[3], pixels = mg_tensor_count(&call->op->out) / p.count;
    copy_channels(state, call, 0, {pixels, p.count, 0, p.count, p.begin, channels});
}
const struct mg_cuda_driver mg_cuda_channel_slice = {.run = channel_slice_run};

/* out[n][b][a] = in[n][a][b], through a tile in shared memory, so that both reads and writes are coalesced. One float of padding avoids
 * bank conflicts. */
constexpr int TILE_DIM = 32, TILE_ROWS = MG_CUDA_THREADS / TILE_DIM;

struct transpose_tile {
    float at[TILE_DIM][TILE_DIM + 1];
};

__global__ void transpose_kernel(float *out, const float *in, int64_t size_a, int64_t size_b) {
    MG_SHARED(struct transpose_tile, shared);
    const int64_t tiles_b = (size_b + TILE_DIM - 1) / TILE_DIM;
    const int64_t a0 = blockIdx.x / tiles_b * TILE_DIM, b0 = blockIdx.x % tiles_b * TILE_DIM;
    const int64_t image = (int64_t)blockIdx.y * size_a * size_b;
    const int lane = threadIdx.x % TILE_DIM, row = threadIdx.x / TILE_DIM;
    for (int i = row; i < TILE_DIM; i += TILE_ROWS)
        if (a0 + i < size_a && b0 + lane < size_b)
            shared.at[i][lane] = in[image + (a0 + i) * size_b + b0 + lane];
    __syncthreads();
    for (int i = row; i < TILE_DIM; i += TILE_ROWS)
        if (b0 + i < size_b && a0 + lane < size_a)
            out[image + (b0 + i) * size_a + a0 + lane] = shared.at[lane][i];
}

static void transpose(struct mg_cuda_state *state, const struct mg_op_call *call, int64_t images, int64_t a,
                      int64_t b) {
    const dim3 grid((unsigned)(mg_cuda_divide_up(a, TILE_DIM) * mg_cuda_divide_up(b, TILE_DIM)), (unsigned)images);
    mg_cuda_launch(state, grid, MG_CUDA_THREADS, transpose_kernel, (float *)call->out, (const float *)call->in[0], a,
                   b);
}

static void nchw_to_nhwc_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t *nchw = call->op->in[0].dim;
    transpose(state, call, nchw[0], nchw[1], nchw[2] * nchw[3]);
}
const struct mg_cuda_driver mg_cuda_nchw_to_nhwc = {.run = nchw_to_nhwc_run};

static void nhwc_to_nchw_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t *nhwc = call->op->in[0].dim;
    transpose(state, call, nhwc[0], nhwc[1] * nhwc[2], nhwc[3]);
}
const struct mg_cuda_driver mg_cuda_nhwc_to_nchw = {.run = nhwc_to_nchw_run};
