/* conv2d_gradient.cu: gradients of convolutions, and of linear layers as 1x1 convolutions. dgrad, the gradient of the
 * input, is the forward operation on dy with the filter rotated by 180 degrees and transposed; wgrad, that of the filter, is
 * the matrix product of dy, transposed, with im2col of the input.
 *
 * Gradients of weights are float32 and lie as the weights do: filters, positions, channels, in float32 in whole chunks. */
#include "../convolution.cuh"
#include "../gradient.cuh"

constexpr int TILE_DIM = MG_CUDA_WARP, TILE_ROWS = MG_CUDA_THREADS / TILE_DIM;

/* A tile of a matrix that is transposed through shared memory; the padding avoids bank conflicts. */
struct im2col_tile {
    float at[TILE_DIM][TILE_DIM + 1];
    struct input_origin origins[TILE_DIM];
};

/* ---- dgrad ---- */
struct filters {
    int64_t k, c, positions, padded_k, padded_c;
};

/* (K, R*S, C) -> (C, R*S, K), positions in reverse order. Block: a tile of one position. */
template <class T> __global__ void rotate_filter_kernel(T *out, const T *weight, struct filters p) {
    MG_SHARED(struct im2col_tile, shared);
    const int64_t tiles = (p.padded_k + TILE_DIM - 1) / TILE_DIM, position = blockIdx.y;
    const int64_t k0 = blockIdx.x % tiles * TILE_DIM, c0 = blockIdx.x / tiles * TILE_DIM;
    const int lane = threadIdx.x % TILE_DIM, row = threadIdx.x / TILE_DIM;
    for (int i = row; i < TILE_DIM; i += TILE_ROWS) {
        const bool there = k0 + i < p.k && c0 + lane < p.c;
        shared.at[i][lane] =
            there ? mg_float(weight[((k0 + i) * p.positions + position) * p.padded_c + c0 + lane]) : 0.0f;
    }
    __syncthreads();
    for (int i = row; i < TILE_DIM; i += TILE_ROWS)
        if (c0 + i < p.c && k0 + lane < p.padded_k)
            out[((c0 + i) * p.positions + p.positions - 1 - position) * p.padded_k + k0 + lane] =
                mg_element<T>(shared.at[lane][i]);
}

static struct filters filters_of(const struct mg_op_shape *op) {
    const struct mg_tensor *weight = &op->in[1];
    const int64_t positions = weight->ndim == 4 ? weight->dim[2] * weight->dim[3] : 1;
    return {weight->dim[0], weight->dim[1], positions, mg_cuda_padded(weight->dim[0], op->in[0].dtype),
            mg_cuda_padded(weight->dim[1], op->in[0].dtype)};
}

static size_t rotated_bytes(const struct mg_op_shape *op) {
    const struct filters p = filters_of(op);
    return mg_aligned((size_t)(p.c * p.positions * p.padded_k) * mg_dtype_bytes(op->in[0].dtype));
}

template <class T> static void rotate_filter(struct mg_cuda_state *state, T *out, const struct mg_op_call *call) {
    const struct filters p = filters_of(call->op);
    const dim3 grid((unsigned)(mg_cuda_divide_up(p.padded_k, TILE_DIM) * mg_cuda_divide_up(p.c, TILE_DIM)),
                    (unsigned)p.positions);
    mg_cuda_launch(state, grid, MG_CUDA_THREADS, rotate_filter_kernel<T>, out, (const T *)call->in[1], p);
}

/* The forward operation, on dy and the rotated, transposed filter. */
static struct mg_op_shape forward_of(const struct mg_op_shape *op) {
    const int64_t *dy = op->in[0].dim, *weight = op->in[1].dim;
    const struct mg_conv2d *p = &op->params.conv2d;
    struct mg_op_shape forward = {};
    forward.kind = op->kind == MG_OP_LINEAR_INPUT_GRADIENT ? MG_OP_LINEAR : MG_OP_CONV2D;
    forward.in[0] = op->in[0];
    forward.in[1] = op->in[1];
    forward.in[1].dim[0] = weight[1];
    forward.in[1].dim[1] = weight[0];
    forward.in[3] = op->in[2];
    forward.out = op->out;
    if (forward.kind == MG_OP_LINEAR)
        return forward;
    /* dy is dilated by the stride. Padding is negative where the forward padding was larger than the filter. */
    forward.in[0].dim[1] = (dy[1] - 1) * p->stride + 1;
    forward.in[0].dim[2] = (dy[2] - 1) * p->stride + 1;
    forward.params.conv2d.stride = 1;
    forward.params.conv2d.pad_top = (int)weight[2] - 1 - p->pad_top;
    forward.params.conv2d.pad_left = (int)weight[3] - 1 - p->pad_left;
    forward.params.conv2d.pad_bottom =
        (int)(op->out.dim[1] + weight[2] - 1 - forward.in[0].dim[1]) - forward.params.conv2d.pad_top;
    forward.params.conv2d.pad_right =
        (int)(op->out.dim[2] + weight[3] - 1 - forward.in[0].dim[2]) - forward.params.conv2d.pad_left;
    return forward;
}

struct dilation {
    int64_t count, h, w, c; /* of the result */
    int64_t dy_h, dy_w, stride;
};

template <class T> __global__ void dilate_kernel(T *out, const T *dy, struct dilation p) {
    for (MG_CUDA_GRID_STRIDE(i, p.count)) {
        const int64_t x = i / p.c % p.w, y = i / p.c / p.w % p.h, image = i / p.c / p.w / p.h;
        const bool is_set = x % p.stride == 0 && y % p.stride == 0;
        const int64_t pixel = (image * p.dy_h + y / p.stride) * p.dy_w + x / p.stride;
        out[i] = is_set ? dy[pixel * p.c + i % p.c] : mg_element<T>(0.0f);
    }
}

static bool is_dilated(const struct mg_op_shape *op) {
    return op->kind == MG_OP_CONV2D_INPUT_GRADIENT && op->params.conv2d.stride > 1;
}

size_t mg_cuda_dgrad_bytes(const struct mg_op_shape *op) {
    const struct mg_op_shape forward = forward_of(op);
    const size_t weight = rotated_bytes(op);
    const size_t dy = is_dilated(op) ? mg_aligned(mg_tensor_bytes(&forward.in[0])) : 0;
    return weight > SIZE_MAX - dy ? SIZE_MAX : weight + dy;
}

void mg_cuda_dgrad(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct mg_op_shape forward = forward_of(call->op);
    const int64_t *dy = call->op->in[0].dim, *dim = forward.in[0].dim;
    void *dilated = (char *)call->workspace + rotated_bytes(call->op);
    struct mg_op_call product = {};
    product.op = &forward;
    product.in[0] = call->in[0];
    product.in[1] = call->workspace;
    product.in[3] = call->in[2];
    product.out = call->out;
    mg_cuda_dispatch_type(call->op->in[0].dtype, [&](auto zero) {
        using T = decltype(zero);
        rotate_filter(state, (T *)call->workspace, call);
        if (is_dilated(call->op)) {
            const struct dilation p = {mg_tensor_count(&forward.in[0]), dim[1], dim[2], dim[3], dy[1], dy[2],
                                       call->op->params.conv2d.stride};
            mg_cuda_launch(state, mg_cuda_grid(p.count), MG_CUDA_THREADS, dilate_kernel<T>, (T *)dilated,
                           (const T *)call->in[0], p);
            product.in[0] = dilated;
        }
    });
    (forward.kind == MG_OP_LINEAR ? mg_cuda_linear : mg_cuda_conv2d).run(state, &product);
}
const struct mg_cuda_driver mg_cuda_conv2d_input_gradient = {.run = mg_cuda_dgrad,
                                                             .workspace_bytes = mg_cuda_dgrad_bytes};

/* ---- wgrad ---- */
constexpr int MAX_PART_BYTES = 64 << 20, MIN_PART = 512;

/* im2col, transposed: (R*S, C) rows of `depth` output pixels from `first` on; zeros past the last pixel, in the padding and
 * in the channels that fill up a chunk. Block: a tile. */
template <class T>
__global__ void im2col_kernel(T *out, const T *x, struct convolution p, int64_t first, int64_t depth) {
    MG_SHARED(struct im2col_tile, shared);
    const int64_t tiles = (depth + TILE_DIM - 1) / TILE_DIM, rows = p.positions * p.padded_c;
    const int64_t pixel0 = blockIdx.x % tiles * TILE_DIM, row0 = blockIdx.x / tiles * TILE_DIM;
    const int lane = threadIdx.x % TILE_DIM, warp = threadIdx.x / TILE_DIM;
    if (warp == 0)
        shared.origins[lane] = input_origin_of(p, pixel0 + lane < depth ? first + pixel0 + lane : p.pixels);
    __syncthreads();
    const int64_t position = (row0 + lane) / p.padded_c, channel = (row0 + lane) % p.padded_c;
    for (int i = warp; i < TILE_DIM; i += TILE_ROWS) {
        const bool is_real = row0 + lane < rows && channel < p.c;
        const T *pixel = is_real ? pixel_at(p, x, shared.origins[i], position) : NULL;
        shared.at[i][lane] = pixel ? mg_float(pixel[channel]) : 0.0f;
    }
    __syncthreads();
    for (int i = warp; i < TILE_DIM; i += TILE_ROWS)
        if (row0 + i < rows && pixel0 + lane < depth)
            out[(row0 + i) * depth + pixel0 + lane] = mg_element<T>(shared.at[lane][i]);
}

template <class T>
static void im2col(struct mg_cuda_state *state, T *out, const void *x, const struct convolution &p, int64_t first,
                   int64_t depth) {
    const int64_t tiles = mg_cuda_divide_up(depth, TILE_DIM) * mg_cuda_divide_up(p.positions * p.padded_c, TILE_DIM);
    mg_cuda_launch(state, dim3((unsigned)tiles), MG_CUDA_THREADS, im2col_kernel<T>, out, (const T *)x, p, first, depth);
}

/* Pixels in a row, under a 1x1 filter. */
static struct convolution pixels_of(int64_t pixels, int64_t channels) {
    struct convolution p = {};
    p.pixels = p.w = p.upsampled_w = p.out_w = pixels;
    p.h = p.upsampled_h = p.out_h = 1;
    p.c = p.padded_c = channels;
    p.positions = p.filter_w = p.stride = 1;
    return p;
}

/* The sum over pixels is split into parts, one after the other. */
struct wgrad {
    struct convolution x, dy;
    int64_t part, columns;
    size_t x_bytes, dy_bytes;
};

static struct wgrad wgrad_of(const struct mg_op_shape *op) {
    const int64_t filters = op->in[1].dim[3], pixels = mg_tensor_count(&op->in[1]) / filters;
    const mg_dtype dtype = op->in[0].dtype;
    const int64_t bytes = (int64_t)mg_dtype_bytes(dtype);
    struct wgrad g = {};
    if (op->kind == MG_OP_CONV2D_WEIGHT_GRADIENT) {
        struct mg_op_shape forward = {};
        forward.params.conv2d = op->params.conv2d;
        forward.in[0] = op->in[0];
        forward.in[1] = op->out;
        forward.out = op->in[1];
        g.x = convolution_of(&forward);
    } else {
        g.x = pixels_of(pixels, op->in[0].dim[3]);
    }
    g.x.padded_c = dtype == MG_F32 ? mg_cuda_padded(g.x.c, dtype) : g.x.c;
    g.dy = pixels_of(pixels, filters);
    g.columns = g.x.positions * g.x.padded_c;
    const int64_t wanted = (int64_t)MAX_PART_BYTES / bytes / g.columns / TILE_DIM * TILE_DIM;
    const int64_t most = wanted < MIN_PART ? (int64_t)MIN_PART : wanted, all = mg_cuda_padded(pixels, dtype);
    g.part = all < most ? all : most;
    g.x_bytes = mg_aligned((size_t)(g.columns * g.part * bytes));
    g.dy_bytes = mg_aligned((size_t)(filters * g.part * bytes));
    return g;
}

size_t mg_cuda_wgrad_bytes(const struct mg_op_shape *op) {
    const struct wgrad g = wgrad_of(op);
    return g.x_bytes + g.dy_bytes;
}

void mg_cuda_wgrad(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct wgrad g = wgrad_of(call->op);
    const mg_dtype dtype = call->op->in[0].dtype;
    void *columns_of_x = call->workspace, *dy = (char *)columns_of_x + g.x_bytes;
    for (int64_t first = 0; first < g.x.pixels; first += g.part) {
        const int64_t left = g.x.pixels - first, depth = left < g.part ? mg_cuda_padded(left, dtype) : g.part;
        struct mg_cuda_gemm m = {};
        m.y = call->out;
        m.x = dy;
        m.weight = columns_of_x;
        m.residual = first ? call->out : call->in[2];
        m.rows = g.dy.c;
        m.columns = g.columns;
        m.depth = depth;
        m.dtype = dtype;
        m.result = MG_F32;
        mg_cuda_dispatch_type(dtype, [&](auto zero) {
            using T = decltype(zero);
            im2col(state, (T *)columns_of_x, call->in[0], g.x, first, depth);
            im2col(state, (T *)dy, call->in[1], g.dy, first, depth);
        });
        mg_cuda_run_gemm(state, &m);
    }
}
const struct mg_cuda_driver mg_cuda_conv2d_weight_gradient = {.run = mg_cuda_wgrad,
                                                              .workspace_bytes = mg_cuda_wgrad_bytes};
