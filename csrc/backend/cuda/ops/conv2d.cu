/* conv2d.cu: convolution as an implicit GEMM: the im2col matrix is never written; its tiles are gathered from the image,
 * position by position of the filter. A 1x1 convolution is a plain matrix product (gemm.cu), which in turn falls back on
 * the kernel of this file. */
#include "../convolution.cuh"
#include "../tile_mma.cuh"

/* A tile of the output: pixels x filters. Wide tiles are used from so many tiles on. */
constexpr int PIXEL_TILE = 128, NARROW_TILE = 64, WIDE_TILE = 128, MIN_WIDE_TILES = 512;

/* U: the type of the result. */
template <class T, class U> struct conv2d_tensors {
    U *y;
    const T *x, *weight;
    const U *residual;
    const float *bias, *vector;
};

template <int COLUMNS> struct conv2d_tiles { uint4 a[2][PIXEL_TILE * MG_TILE_STRIDE], b[2][COLUMNS * MG_TILE_STRIDE]; };

/* Moves tiles from global to shared memory through registers. A thread moves the same chunk of every 64th row. */
template <class T, int COLUMNS> struct tile_loader {
    static constexpr int STEP = MG_CUDA_THREADS / MG_TILE_CHUNKS, A = PIXEL_TILE / STEP, B = COLUMNS / STEP;
    struct input_origin origins[A];
    const T *pixels[A], *filters[B]; /* NULL: zeros */
    uint4 a[A], b[B];
    int64_t position, channel;

    __device__ void find_pixels(const struct convolution &p, const T *x) {
#pragma unroll
        for (int i = 0; i < A; i++)
            pixels[i] = pixel_at(p, x, origins[i], position);
    }

    __device__ void init(const struct convolution &p, const T *x, const T *weight, int64_t row, int64_t column) {
        const int own = threadIdx.x / MG_TILE_CHUNKS;
        position = 0;
        channel = 0;
#pragma unroll
        for (int i = 0; i < A; i++)
            origins[i] = input_origin_of(p, row + own + i * STEP);
#pragma unroll
        for (int i = 0; i < B; i++) {
            const int64_t filter = column + own + i * STEP;
            filters[i] = filter < p.k ? weight + filter * p.positions * p.padded_c : NULL;
        }
        find_pixels(p, x);
    }

    /* Loads the next channels of this position, and advances. */
    __device__ void load_global(const struct convolution &p, const T *x) {
        const int64_t own = channel + threadIdx.x % MG_TILE_CHUNKS * mg_chunk_elements<T>();
#pragma unroll
        for (int i = 0; i < A; i++)
            a[i] = mg_load_chunk<T>(pixels[i], own, p.c, p.aligned);
#pragma unroll
        for (int i = 0; i < B; i++)
            b[i] = mg_load_chunk<T>(filters[i], position * p.padded_c + own, (position + 1) * p.padded_c, true);
        channel += mg_tile_depth<T>();
        if (channel >= p.padded_c) {
            channel = 0;
            position++;
            find_pixels(p, x);
        }
    }

    __device__ void store_shared(uint4 *tile_a, uint4 *tile_b) const {
        const int own = threadIdx.x / MG_TILE_CHUNKS * MG_TILE_STRIDE + threadIdx.x % MG_TILE_CHUNKS;
#pragma unroll
        for (int i = 0; i < A; i++)
            tile_a[own + i * STEP * MG_TILE_STRIDE] = a[i];
#pragma unroll
        for (int i = 0; i < B; i++)
            tile_b[own + i * STEP * MG_TILE_STRIDE] = b[i];
    }
};

/* P: the type of the products. */
template <class T, class U, int COLUMNS, class P>
__global__ void __launch_bounds__(MG_CUDA_THREADS, 2)
    conv2d_kernel(struct convolution p, struct conv2d_tensors<T, U> o) {
    typedef struct conv2d_tiles<COLUMNS> shared_tiles;
    MG_SHARED(shared_tiles, shared);
    const int64_t row = blockIdx.x * (int64_t)PIXEL_TILE, column = blockIdx.y * (int64_t)COLUMNS;
    const int64_t steps = p.positions * ((p.padded_c + mg_tile_depth<T>() - 1) / mg_tile_depth<T>());
    struct tile_loader<T, COLUMNS> loader;
    struct mg_tile_mma<P, PIXEL_TILE, COLUMNS> accumulators;
    accumulators.clear();
    loader.init(p, o.x, o.weight, row, column);
    loader.load_global(p, o.x);
    loader.store_shared(shared.a[0], shared.b[0]);
    __syncthreads();
    for (int64_t step = 0; step < steps; step++) {
        const int now = (int)(step % 2), next = 1 - now;
        if (step + 1 < steps)
            loader.load_global(p, o.x); /* in flight while the tiles are multiplied */
        accumulators.multiply(shared.a[now], shared.b[now]);
        if (step + 1 < steps)
            loader.store_shared(shared.a[next], shared.b[next]);
        __syncthreads();
    }
    accumulators.for_each([&](int r, int c, float sum) {
        const int64_t pixel = row + r, k = column + c, at = pixel * p.k + k;
        if (pixel >= p.pixels || k >= p.k)
            return;
        sum += o.bias ? o.bias[k] : 0.0f;
        sum += o.vector ? o.vector[pixel / (p.out_h * p.out_w) * p.vector_stride + k] : 0.0f;
        sum += o.residual ? mg_float(o.residual[at]) : 0.0f;
        o.y[at] = mg_element<U>(p.relu && sum < 0.0f ? 0.0f : sum);
    });
}

static bool is_product(const struct mg_op_shape *op) {
    const struct mg_conv2d *q = &op->params.conv2d;
    const bool has_window =
        q->stride > 1 || q->pad_top || q->pad_left || q->pad_bottom || q->pad_right || q->upsampled_h || q->upsampled_w;
    return op->in[1].dim[2] * op->in[1].dim[3] == 1 && !has_window && !q->relu && !op->in[4].ndim;
}

static void multiply(struct mg_cuda_state *state, const struct mg_op_call *call, const struct convolution *p) {
    const struct mg_cuda_gemm m = {
        call->out, call->in[0], call->in[1], call->in[3],           (const float *)call->in[2], call->workspace,
        p->pixels, p->k,        p->c,        call->op->in[0].dtype, call->op->out.dtype,        MG_ACT_NONE};
    mg_cuda_run_gemm(state, &m);
}

template <class P, class T, class U>
static void convolve(struct mg_cuda_state *state, const struct convolution &p, const struct conv2d_tensors<T, U> &o) {
    constexpr bool fits = !std::is_same<P, float>::value;
    dim3 grid((unsigned)mg_cuda_divide_up(p.pixels, PIXEL_TILE), (unsigned)mg_cuda_divide_up(p.k, NARROW_TILE));
    /* Wide tiles read the image half as often; they need enough tiles for all multiprocessors. Without tensor cores,
     * whose fragments are distributed over a warp, they would not fit into the registers. */
    if (fits && p.k > NARROW_TILE && grid.x * (size_t)grid.y >= MIN_WIDE_TILES) {
        constexpr int columns = fits ? WIDE_TILE : NARROW_TILE;
        grid.y = (unsigned)mg_cuda_divide_up(p.k, columns);
        mg_cuda_launch(state, grid, MG_CUDA_THREADS, conv2d_kernel<T, U, columns, P>, p, o);
    } else
        mg_cuda_launch(state, grid, MG_CUDA_THREADS, conv2d_kernel<T, U, NARROW_TILE, P>, p, o);
}

static void conv2d_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct convolution p = convolution_of(call->op);
    if (is_product(call->op)) {
        multiply(state, call, &p);
        return;
    }
    mg_cuda_dispatch_product(state, call->op->out.dtype, [&](auto zero, auto product) {
        using T = decltype(zero);
        const struct conv2d_tensors<T, T> o = {
            (T *)call->out, (const T *)call->in[0], (const T *)call->in[1], (const T *)call->in[3],
                (const float *)call->in[2], (const float *)call->in[4]
        };
        convolve<decltype(product)>(state, p, o);
    });
}

/* A 1x1 filter over an image of one row. */
void mg_cuda_gemm_own_kernel(struct mg_cuda_state *state, const struct mg_cuda_gemm *m) {
    struct convolution p = {};
    p.pixels = p.w = p.upsampled_w = p.out_w = m->rows;
    p.h = p.upsampled_h = p.out_h = 1;
    p.c = m->depth;
    p.k = m->columns;
    p.padded_c = mg_cuda_padded(m->depth, m->dtype);
    p.positions = p.filter_w = p.stride = 1;
    p.aligned = p.c == p.padded_c;
    mg_cuda_dispatch_product(state, m->dtype, [&](auto zero, auto product) {
        using T = decltype(zero);
        const auto run = [&](auto result) {
            using U = decltype(result);
            const struct conv2d_tensors<T, U> o = {
                (U *)m->y, (const T *)m->x, (const T *)m->weight, (const U *)m->residual, m->bias, NULL
            };
            convolve<decltype(product)>(state, p, o);
        };
        if (m->result == m->dtype)
            run(zero);
        else
            run(float());
    });
}

static size_t conv2d_bytes(const struct mg_op_shape *op) { return is_product(op) ? mg_cuda_gemm_bytes(op) : 0; }

const struct mg_cuda_driver mg_cuda_conv2d = {.run = conv2d_run, .workspace_bytes = conv2d_bytes};
