/* conv2d.cu: convolution as an implicit GEMM: the im2col matrix is never written; its tiles are gathered from the image,
 * position by position of the filter. A 1x1 convolution is a plain matrix product (gemm.cu), which in turn falls back on
 * the kernel of this file.
 *
 * Tiles arrive by cp.async in a ring of stages, so that those of the next steps are in flight while one is multiplied.
 * The epilogue goes through shared memory to 16-byte accesses. */
#include "../convolution.cuh"
#include "../tile_mma.cuh"

/* A tile of the output: pixels x filters. Wide tiles are used from so many tiles on. */
constexpr int PIXEL_TILE = 128, NARROW_TILE = 64, WIDE_TILE = 128, MIN_WIDE_TILES = 512;
/* Three stages fill the shared memory that needs no opt-in; without cp.async (compute capability below 8.0) registers are
 * the third, which leaves too few of them for a wide tile. */
constexpr int MIN_FOR_ASYNC_COPIES = 80;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int STAGES = 2;
#else
constexpr int STAGES = 3;
#endif

/* U: the type of the result. */
template <class T, class U> struct conv2d_tensors {
    U *y;
    const T *x, *weight;
    const U *residual;
    const float *bias, *vector;
};

/* A warp's accumulators on their way out: 32 rows of 32 floats, padded so that rows begin in different banks. */
constexpr int EPILOGUE_COLUMNS = 32, EPILOGUE_STRIDE = EPILOGUE_COLUMNS + 4;

template <int COLUMNS> union conv2d_shared {
    struct {
        uint4 a[STAGES][PIXEL_TILE * MG_TILE_CHUNKS], b[STAGES][COLUMNS * MG_TILE_CHUNKS];
    } tiles;
    float epilogue[MG_CUDA_THREADS / MG_CUDA_WARP][PIXEL_TILE / 4][EPILOGUE_STRIDE];
};

/* Copies tiles from global to shared memory. A thread copies the same chunk of every 64th row. */
template <class T, int COLUMNS> struct tile_loader {
    static constexpr int STEP = MG_CUDA_THREADS / MG_TILE_CHUNKS, A = PIXEL_TILE / STEP, B = COLUMNS / STEP;
    const T *image[A]; /* of the pixel; NULL past the last one */
    int y[A], x[A];    /* under the filter's first position */
    const T *pixel[A]; /* under the present position; NULL in the padding */
    const T *filter[B];
    int position_y, position_x, channel;

    __device__ int own_row() const { return threadIdx.x / MG_TILE_CHUNKS; }
    __device__ int own_channel() const {
        return channel + (int)(threadIdx.x % MG_TILE_CHUNKS) * mg_chunk_elements<T>();
    }

    __device__ void find_pixels(const struct convolution &p) {
#pragma unroll
        for (int i = 0; i < A; i++) {
            int row = y[i] + position_y, column = x[i] + position_x;
            const bool inside = (unsigned)row < (unsigned)p.upsampled_h && (unsigned)column < (unsigned)p.upsampled_w;
            if (p.is_upsampled) {
                row = (int)mg_nearest(row, p.ratio_h, p.h);
                column = (int)mg_nearest(column, p.ratio_w, p.w);
            }
            pixel[i] = inside && image[i] ? image[i] + (row * (int)p.w + column) * p.c : NULL;
        }
    }

    __device__ void init(const struct convolution &p, const T *input, const T *weight, int64_t row, int64_t column) {
        position_y = position_x = channel = 0;
#pragma unroll
        for (int i = 0; i < A; i++) {
            const struct input_origin at = input_origin_of(p, row + own_row() + i * STEP);
            image[i] = at.image < 0 ? NULL : input + at.image * p.h * p.w * p.c;
            y[i] = (int)at.y;
            x[i] = (int)at.x;
        }
#pragma unroll
        for (int i = 0; i < B; i++) {
            const int64_t k = column + own_row() + i * STEP;
            filter[i] = k < p.k ? weight + k * p.positions * p.padded_c : NULL;
        }
        find_pixels(p);
    }

    /* To the next channels of this position, or to the next position. */
    __device__ void advance(const struct convolution &p) {
        channel += mg_tile_depth<T>();
        if (channel < p.padded_c)
            return;
        channel = 0;
        if (++position_x == p.filter_w) {
            position_x = 0;
            position_y++;
        }
#pragma unroll
        for (int i = 0; i < B; i++)
            filter[i] = filter[i] ? filter[i] + p.padded_c : NULL;
        find_pixels(p);
    }

    __device__ uint4 *place(uint4 *tile, int i) const {
        return tile + mg_tile_chunk(own_row() + i * STEP, threadIdx.x % MG_TILE_CHUNKS);
    }

    /* `input` and `weight` are what an invalid copy points to. Pixels that are not made of whole chunks are read element by
     * element. */
    __device__ void copy(const struct convolution &p, const T *input, const T *weight, uint4 *a, uint4 *b) {
        const int own = own_channel();
#pragma unroll
        for (int i = 0; i < A; i++) {
            const bool valid = pixel[i] && own < p.c;
            if (p.aligned)
                mg_copy_async(place(a, i), valid ? pixel[i] + own : input, valid);
            else
                *place(a, i) = mg_load_chunk<T>(pixel[i], own, p.c, false);
        }
#pragma unroll
        for (int i = 0; i < B; i++) {
            const bool valid = filter[i] && own < p.padded_c;
            mg_copy_async(place(b, i), valid ? filter[i] + own : weight, valid);
        }
        advance(p);
    }

    /* The same in two halves, for GPUs without cp.async: what fetch() has read put() writes, after the products. */
    uint4 fetched_a[A], fetched_b[B];

    __device__ void fetch(const struct convolution &p) {
        const int own = own_channel();
#pragma unroll
        for (int i = 0; i < A; i++)
            fetched_a[i] = mg_load_chunk<T>(pixel[i], own, p.c, p.aligned);
#pragma unroll
        for (int i = 0; i < B; i++)
            fetched_b[i] = mg_load_chunk<T>(filter[i], own, p.padded_c, true);
        advance(p);
    }

    __device__ void put(uint4 *a, uint4 *b) const {
#pragma unroll
        for (int i = 0; i < A; i++)
            *place(a, i) = fetched_a[i];
#pragma unroll
        for (int i = 0; i < B; i++)
            *place(b, i) = fetched_b[i];
    }
};

/* ---- epilogue ---- */
/* Bias, vector and residual are added to N neighbouring sums, which are stored. */
template <int N, class T, class U>
__device__ inline void finish_pixel(const struct convolution &p, const struct conv2d_tensors<T, U> &o, int64_t pixel,
                                    int64_t k, const float *sums) {
    float sum[N], other[N];
#pragma unroll
    for (int e = 0; e < N; e++)
        sum[e] = sums[e];
    if (o.bias)
#pragma unroll
        for (int e = 0; e < N; e++)
            sum[e] += o.bias[k + e];
    if (o.vector) {
        const float *vector = o.vector + pixel / (p.out_h * p.out_w) * p.vector_stride + k;
#pragma unroll
        for (int e = 0; e < N; e++)
            sum[e] += vector[e];
    }
    if (o.residual) {
        mg_load<N>(other, o.residual + pixel * p.k + k);
#pragma unroll
        for (int e = 0; e < N; e++)
            sum[e] += other[e];
    }
    if (p.relu)
#pragma unroll
        for (int e = 0; e < N; e++)
            sum[e] = sum[e] < 0.0f ? 0.0f : sum[e];
    mg_store<N>(o.y + pixel * p.k + k, sum);
}

/* A warp's accumulators, 32 columns at a time, to rows of which a lane stores 16 bytes. */
template <class T, class U, int COLUMNS, class P>
__device__ inline void store_tile(const struct convolution &p, const struct conv2d_tensors<T, U> &o,
                                  struct mg_tile_mma<P, PIXEL_TILE, COLUMNS> &tile, float (*staged)[EPILOGUE_STRIDE],
                                  int64_t row, int64_t column) {
    constexpr int N = 16 / (int)sizeof(U), LANES = EPILOGUE_COLUMNS / N, ROWS = MG_CUDA_WARP / LANES;
    constexpr int FRAGMENTS = EPILOGUE_COLUMNS / 8;
    const int lane = threadIdx.x % MG_CUDA_WARP;
    const bool whole_chunks = p.k % N == 0;
    __syncthreads(); /* the epilogue takes the place of the tiles */
#pragma unroll
    for (int first = 0; first < tile.COLUMN_FRAGMENTS; first += FRAGMENTS) {
#pragma unroll
        for (int i = 0; i < tile.ROW_FRAGMENTS; i++)
#pragma unroll
            for (int j = 0; j < FRAGMENTS; j++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const float *sums = tile.accumulator[i][first + j] + 2 * half;
                    *(float2 *)&staged[i * 16 + lane / 4 + half * 8][j * 8 + lane % 4 * 2] =
                        make_float2(sums[0], sums[1]);
                }
        __syncwarp();
#pragma unroll 1
        for (int r = lane / LANES; r < PIXEL_TILE / 4; r += ROWS) {
            const int64_t pixel = row + tile.warp_row() + r;
            const int64_t k = column + tile.warp_column() + first * 8 + lane % LANES * N;
            const float *sums = &staged[r][lane % LANES * N];
            if (pixel < p.pixels && whole_chunks && k < p.k)
                finish_pixel<N>(p, o, pixel, k, sums);
            else
                for (int e = 0; pixel < p.pixels && e < N && k + e < p.k; e++)
                    finish_pixel<1>(p, o, pixel, k + e, sums + e);
        }
        __syncwarp();
    }
}

template <class T, class U, int COLUMNS>
__device__ inline void store_tile(const struct convolution &p, const struct conv2d_tensors<T, U> &o,
                                  struct mg_tile_mma<float, PIXEL_TILE, COLUMNS> &tile, float (*)[EPILOGUE_STRIDE],
                                  int64_t row, int64_t column) {
    tile.for_each([&](int r, int c, float sum) {
        if (row + r < p.pixels && column + c < p.k)
            finish_pixel<1>(p, o, row + r, column + c, &sum);
    });
}

/* P: the type of the products. */
template <class T, class U, int COLUMNS, class P>
__global__ void __launch_bounds__(MG_CUDA_THREADS, 2)
    conv2d_kernel(struct convolution p, struct conv2d_tensors<T, U> o) {
    if (COLUMNS > NARROW_TILE && STAGES < 3)
        return; /* never launched */
    typedef union conv2d_shared<COLUMNS> shared_tiles;
    MG_SHARED(shared_tiles, shared);
    const int64_t row = blockIdx.x * (int64_t)PIXEL_TILE, column = blockIdx.y * (int64_t)COLUMNS;
    const int steps = (int)(p.positions * ((p.padded_c + mg_tile_depth<T>() - 1) / mg_tile_depth<T>()));
    struct tile_loader<T, COLUMNS> loader;
    struct mg_tile_mma<P, PIXEL_TILE, COLUMNS> accumulators;
    accumulators.clear();
    loader.init(p, o.x, o.weight, row, column);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    loader.fetch(p);
    loader.put(shared.tiles.a[0], shared.tiles.b[0]);
    for (int step = 0; step < steps; step++) {
        __syncthreads(); /* this step's tiles are there, and nobody reads those of the step before any more */
        if (step + 1 < steps)
            loader.fetch(p);
        accumulators.multiply(shared.tiles.a[step % 2], shared.tiles.b[step % 2]);
        if (step + 1 < steps)
            loader.put(shared.tiles.a[(step + 1) % 2], shared.tiles.b[(step + 1) % 2]);
    }
#else
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < steps)
            loader.copy(p, o.x, o.weight, shared.tiles.a[stage], shared.tiles.b[stage]);
        mg_commit_copies();
    }
    int present = 0, next = STAGES - 1;
    for (int step = 0; step < steps; step++) {
        mg_wait_copies<STAGES - 2>();
        __syncthreads(); /* this step's tiles are there, and nobody reads those of the step before any more */
        if (step + STAGES - 1 < steps)
            loader.copy(p, o.x, o.weight, shared.tiles.a[next], shared.tiles.b[next]);
        mg_commit_copies();
        accumulators.multiply(shared.tiles.a[present], shared.tiles.b[present]);
        present = present + 1 == STAGES ? 0 : present + 1;
        next = next + 1 == STAGES ? 0 : next + 1;
    }
#endif
    store_tile(p, o, accumulators, shared.epilogue[threadIdx.x / MG_CUDA_WARP], row, column);
}

static bool is_product(const struct mg_op_shape *op) {
    const struct mg_conv2d *q = &op->params.conv2d;
    const bool has_window =
        q->stride > 1 || q->pad_top || q->pad_left || q->pad_bottom || q->pad_right || q->upsampled_h || q->upsampled_w;
    return op->in[1].dim[2] * op->in[1].dim[3] == 1 && !has_window && !q->relu && !op->in[4].ndim;
}

static void multiply(struct mg_cuda_state *state, const struct mg_op_call *call, const struct convolution *p) {
    const struct mg_cuda_gemm m = {
        .y = call->out,
        .x = call->in[0],
        .weight = call->in[1],
        .residual = call->in[3],
        .bias = (const float *)call->in[2],
        .scratch = call->workspace,
        .rows = p->pixels,
        .columns = p->k,
        .depth = p->c,
        .dtype = call->op->in[0].dtype,
        .result = call->op->out.dtype,
        .activation = MG_ACT_NONE,
    };
    mg_cuda_run_gemm(state, &m);
}

template <class P, class T, class U>
static void convolve(struct mg_cuda_state *state, const struct convolution &p, const struct conv2d_tensors<T, U> &o) {
    constexpr bool fits = !std::is_same<P, float>::value;
    dim3 grid((unsigned)mg_cuda_divide_up(p.pixels, PIXEL_TILE), (unsigned)mg_cuda_divide_up(p.k, NARROW_TILE));
    /* Wide tiles read the image half as often; they need enough tiles for all multiprocessors. Without tensor cores,
     * whose fragments are distributed over a warp, they would not fit into the registers. */
    if (fits && state->capability >= MIN_FOR_ASYNC_COPIES && p.k > NARROW_TILE && !state->narrow_tiles &&
        (state->wide_tiles || grid.x * (size_t)grid.y >= MIN_WIDE_TILES)) {
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
            .y = (T *)call->out, .x = (const T *)call->in[0], .weight = (const T *)call->in[1],
            .residual = (const T *)call->in[3], .bias = (const float *)call->in[2],
            .vector = (const float *)call->in[4],
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
                .y = (U *)m->y, .x = (const T *)m->x, .weight = (const T *)m->weight,
                .residual = (const U *)m->residual, .bias = m->bias, .vector = NULL,
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
