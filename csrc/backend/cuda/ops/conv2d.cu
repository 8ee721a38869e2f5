/* conv2d.cu: the convolution, as a matrix product whose left factor is never written: tiles of it are gathered from
 * the image, position by position of the window (implicit GEMM). A 1x1 convolution is a plain product. Called by
 * cuda_backend.cu and, for products that cuBLASLt has no kernel for, by product.cu, which it calls. */
#include "../convolution.cuh"
#include "../tile_product.cuh"

enum { ROWS = 128, NARROW = 64, WIDE = 128, MANY = 512 }; /* pixels and filters of a tile; tiles of an operation */

/* U: the type of the result. */
template <class T, class U> struct operands {
    U *y;
    const T *x, *weight;
    const U *residual;
    const float *bias, *vector;
};

template <int COLUMNS> struct tiles { uint4 a[2][ROWS * MG_TILE_STRIDE], b[2][COLUMNS * MG_TILE_STRIDE]; };

/* What one thread carries from memory to the tiles: the same chunk of every 64th row. */
template <class T, int COLUMNS> struct carrier {
    enum { STEP = MG_CUDA_THREADS / MG_TILE_CHUNKS, A = ROWS / STEP, B = COLUMNS / STEP };
    struct corner corners[A];
    const T *pixels[A], *filters[B]; /* NULL: zeros */
    uint4 a[A], b[B];
    int64_t position, channel;

    __device__ void find_pixels(const struct convolution &p, const T *x) {
#pragma unroll
        for (int i = 0; i < A; i++)
            pixels[i] = pixel_at(p, x, corners[i], position);
    }

    __device__ void begin(const struct convolution &p, const T *x, const T *weight, int64_t row, int64_t column) {
        const int own = threadIdx.x / MG_TILE_CHUNKS;
        position = 0;
        channel = 0;
#pragma unroll
        for (int i = 0; i < A; i++)
            corners[i] = corner_of(p, row + own + i * STEP);
#pragma unroll
        for (int i = 0; i < B; i++) {
            const int64_t filter = column + own + i * STEP;
            filters[i] = filter < p.k ? weight + filter * p.positions * p.padded : NULL;
        }
        find_pixels(p, x);
    }

    /* Reads the next block of channels, and moves on. */
    __device__ void read(const struct convolution &p, const T *x) {
        const int64_t own = channel + threadIdx.x % MG_TILE_CHUNKS * mg_chunk_elements<T>();
#pragma unroll
        for (int i = 0; i < A; i++)
            a[i] = mg_read_chunk<T>(pixels[i], own, p.c, p.whole);
#pragma unroll
        for (int i = 0; i < B; i++)
            b[i] = mg_read_chunk<T>(filters[i], position * p.padded + own, (position + 1) * p.padded, true);
        channel += mg_tile_depth<T>();
        if (channel >= p.padded) {
            channel = 0;
            position++;
            find_pixels(p, x);
        }
    }

    __device__ void write(uint4 *tile_a, uint4 *tile_b) const {
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
__global__ void __launch_bounds__(MG_CUDA_THREADS, 2) conv2d_kernel(struct convolution p, struct operands<T, U> o) {
    typedef struct tiles<COLUMNS> shared_tiles;
    MG_SHARED(shared_tiles, shared);
    const int64_t row = blockIdx.x * (int64_t)ROWS, column = blockIdx.y * (int64_t)COLUMNS;
    const int64_t steps = p.positions * ((p.padded + mg_tile_depth<T>() - 1) / mg_tile_depth<T>());
    struct carrier<T, COLUMNS> carrier;
    struct mg_tile_product<P, ROWS, COLUMNS> product;
    product.clear();
    carrier.begin(p, o.x, o.weight, row, column);
    carrier.read(p, o.x);
    carrier.write(shared.a[0], shared.b[0]);
    __syncthreads();
    for (int64_t step = 0; step < steps; step++) {
        const int now = (int)(step % 2), next = 1 - now;
        if (step + 1 < steps)
            carrier.read(p, o.x); /* on its way while the tiles are multiplied */
        product.multiply(shared.a[now], shared.b[now]);
        if (step + 1 < steps)
            carrier.write(shared.a[next], shared.b[next]);
        __syncthreads();
    }
    product.each([&](int r, int c, float sum) {
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
    const bool moved =
        q->stride > 1 || q->pad_top || q->pad_left || q->pad_bottom || q->pad_right || q->upsampled_h || q->upsampled_w;
    return op->in[1].dim[2] * op->in[1].dim[3] == 1 && !moved && !q->relu && !op->in[4].ndim;
}

static void multiply(struct mg_cuda_state *state, const struct mg_op_call *call, const struct convolution *p) {
    const struct mg_cuda_matrices m = {
        call->out, call->in[0], call->in[1], call->in[3],           (const float *)call->in[2], call->workspace,
        p->pixels, p->k,        p->c,        call->op->in[0].dtype, call->op->out.dtype,        MG_ACT_NONE};
    mg_cuda_multiply(state, &m);
}

template <class P, class T, class U>
static void convolve(struct mg_cuda_state *state, const struct convolution &p, const struct operands<T, U> &o) {
    constexpr bool fits = !std::is_same<P, float>::value;
    dim3 grid((unsigned)mg_cuda_divide_up(p.pixels, ROWS), (unsigned)mg_cuda_divide_up(p.k, NARROW));
    /* Wide tiles read the image half as often, where there are enough of them for all processors of a GPU. Without
     * tensor cores, whose factors are spread over a warp, they would not fit into the registers. */
    if (fits && p.k > NARROW && grid.x * (size_t)grid.y >= MANY) {
        constexpr int columns = fits ? WIDE : NARROW;
        grid.y = (unsigned)mg_cuda_divide_up(p.k, columns);
        mg_cuda_launch(state, grid, MG_CUDA_THREADS, conv2d_kernel<T, U, columns, P>, p, o);
    } else
        mg_cuda_launch(state, grid, MG_CUDA_THREADS, conv2d_kernel<T, U, NARROW, P>, p, o);
}

static void conv2d_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct convolution p = convolution_of(call->op);
    if (is_product(call->op)) {
        multiply(state, call, &p);
        return;
    }
    mg_cuda_for_product(state, call->op->out.dtype, [&](auto zero, auto product) {
        using T = decltype(zero);
        const struct operands<T, T> o = {
            (T *)call->out, (const T *)call->in[0], (const T *)call->in[1], (const T *)call->in[3],
                (const float *)call->in[2], (const float *)call->in[4]
        };
        convolve<decltype(product)>(state, p, o);
    });
}

/* A window of one pixel over an image of one line. */
void mg_cuda_multiply_directly(struct mg_cuda_state *state, const struct mg_cuda_matrices *m) {
    struct convolution p = {};
    p.pixels = p.w = p.full_w = p.out_w = m->rows;
    p.h = p.full_h = p.out_h = 1;
    p.c = m->depth;
    p.k = m->columns;
    p.padded = mg_cuda_padded(m->depth, m->dtype);
    p.positions = p.window_w = p.stride = 1;
    p.whole = p.c == p.padded;
    mg_cuda_for_product(state, m->dtype, [&](auto zero, auto product) {
        using T = decltype(zero);
        const auto run = [&](auto result) {
            using U = decltype(result);
            const struct operands<T, U> o = {
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

static size_t conv2d_bytes(const struct mg_op_shape *op) { return is_product(op) ? mg_cuda_multiply_bytes(op) : 0; }

const struct mg_cuda_driver mg_cuda_conv2d = {conv2d_run, conv2d_bytes};
