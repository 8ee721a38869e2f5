/* attention_products.cu: attention of one wide head, such as the autoencoder's of 512 channels, by two matrix products with
 * a softmax between them. Chunks of rows of the score matrix pass through scratch; no score is computed twice. */
#include "attention_products.cuh"

constexpr int64_t MIN_SIZE = 161, MIN_KEYS = 128, MAX_SCORE_BYTES = 32 << 20, MIN_ROWS = 128;
constexpr int TILE_DIM = MG_CUDA_WARP, TILE_ROWS = MG_CUDA_THREADS / TILE_DIM, WARPS = MG_CUDA_THREADS / MG_CUDA_WARP;

struct attention_shape {
    int64_t queries, keys, padded_keys, size, rows; /* rows: of a chunk of scores */
    size_t value_bytes, score_bytes, probability_bytes;
};

static struct attention_shape shape_of(const struct mg_op_shape *op) {
    const mg_dtype dtype = op->in[0].dtype;
    const int64_t bytes = (int64_t)mg_dtype_bytes(dtype);
    struct attention_shape s = {};
    s.queries = op->in[0].dim[1] * op->in[0].dim[2];
    s.keys = op->in[1].dim[1] * op->in[1].dim[2];
    s.padded_keys = mg_cuda_padded(s.keys, dtype);
    s.size = op->in[0].dim[3];
    const int64_t wanted = MAX_SCORE_BYTES / (int64_t)sizeof(float) / s.keys;
    const int64_t most = wanted < MIN_ROWS ? MIN_ROWS : wanted;
    s.rows = s.queries < most ? s.queries : most;
    s.value_bytes = mg_aligned((size_t)(s.size * s.padded_keys * bytes));
    s.score_bytes = mg_aligned((size_t)(s.rows * s.keys) * sizeof(float));
    s.probability_bytes = mg_aligned((size_t)(s.rows * s.padded_keys * bytes));
    return s;
}

bool mg_cuda_attention_is_products(const struct mg_op_shape *op) {
    const struct mg_attention *a = &op->params.attention;
    const int64_t size = op->in[0].dim[3], keys = op->in[1].dim[1] * op->in[1].dim[2];
    return a->heads == 1 && !a->causal && size >= MIN_SIZE && keys >= MIN_KEYS &&
           size % mg_cuda_chunk_elements(op->in[0].dtype) == 0 && op->in[1].dtype == op->in[0].dtype;
}

/* Cannot overflow: at most three numbers for each of a chunk's scores and each element of v. */
size_t mg_cuda_attention_products_bytes(const struct mg_op_shape *op) {
    const struct attention_shape s = shape_of(op);
    return s.value_bytes + s.score_bytes + s.probability_bytes;
}

struct value_tile {
    float at[TILE_DIM][TILE_DIM + 1];
};

/* (keys, size) -> (size, padded keys), zeros past the last key. Block: a tile. */
template <class T>
__global__ void transpose_values_kernel(T *out, const T *v, int64_t keys, int64_t padded_keys, int64_t size) {
    MG_SHARED(struct value_tile, shared);
    const int64_t tiles = (padded_keys + TILE_DIM - 1) / TILE_DIM;
    const int64_t key0 = blockIdx.x % tiles * TILE_DIM, channel0 = blockIdx.x / tiles * TILE_DIM;
    const int lane = threadIdx.x % TILE_DIM, row = threadIdx.x / TILE_DIM;
    for (int i = row; i < TILE_DIM; i += TILE_ROWS) {
        const bool there = key0 + i < keys && channel0 + lane < size;
        shared.at[i][lane] = there ? mg_float(v[(key0 + i) * size + channel0 + lane]) : 0.0f;
    }
    __syncthreads();
    for (int i = row; i < TILE_DIM; i += TILE_ROWS)
        if (channel0 + i < size && key0 + lane < padded_keys)
            out[(channel0 + i) * padded_keys + key0 + lane] = mg_element<T>(shared.at[lane][i]);
}

struct row_reduction {
    float maximum[WARPS], sum[WARPS];
};

/* A row of scores to probabilities, zeros past the last key. Block: a row. */
template <class T>
__global__ void softmax_kernel(T *out, const float *scores, int64_t keys, int64_t padded_keys, float scale) {
    MG_SHARED(struct row_reduction, shared);
    const float *row = scores + blockIdx.x * keys;
    const int lane = threadIdx.x % MG_CUDA_WARP, warp = threadIdx.x / MG_CUDA_WARP;
    float maximum = -INFINITY, sum = 0.0f;
    for (int64_t i = threadIdx.x; i < keys; i += MG_CUDA_THREADS)
        maximum = fmaxf(maximum, row[i]);
    for (int distance = MG_CUDA_WARP / 2; distance; distance /= 2)
        maximum = fmaxf(maximum, __shfl_xor_sync(MG_CUDA_ALL_LANES, maximum, distance));
    if (lane == 0)
        shared.maximum[warp] = maximum;
    __syncthreads();
    for (int w = 0; w < WARPS; w++)
        maximum = fmaxf(maximum, shared.maximum[w]);
    for (int64_t i = threadIdx.x; i < keys; i += MG_CUDA_THREADS)
        sum += expf((row[i] - maximum) * scale);
    sum = mg_warp_sum(sum);
    if (lane == 0)
        shared.sum[warp] = sum;
    __syncthreads();
    sum = 0.0f;
    for (int w = 0; w < WARPS; w++)
        sum += shared.sum[w];
    const float factor = 1.0f / sum;
    for (int64_t i = threadIdx.x; i < padded_keys; i += MG_CUDA_THREADS)
        out[blockIdx.x * padded_keys + i] = mg_element<T>(i < keys ? expf((row[i] - maximum) * scale) * factor : 0.0f);
}

template <class T>
static void attend_image(struct mg_cuda_state *state, const struct attention_shape &s, mg_dtype dtype, float scale,
                         T *out, const T *q, const T *k, const T *v, char *scratch) {
    T *values = (T *)scratch, *probabilities = (T *)(scratch + s.value_bytes + s.score_bytes);
    float *scores = (float *)(scratch + s.value_bytes);
    const int64_t tiles = mg_cuda_divide_up(s.padded_keys, TILE_DIM) * mg_cuda_divide_up(s.size, TILE_DIM);
    mg_cuda_launch(state, dim3((unsigned)tiles), MG_CUDA_THREADS, transpose_values_kernel<T>, values, v, s.keys,
                   s.padded_keys, s.size);
    for (int64_t first = 0; first < s.queries; first += s.rows) {
        const int64_t rows = s.queries - first < s.rows ? s.queries - first : s.rows;
        struct mg_cuda_gemm m = {};
        m.y = scores;
        m.x = q + first * s.size;
        m.weight = k;
        m.rows = rows;
        m.columns = s.keys;
        m.depth = s.size;
        m.dtype = dtype;
        m.result = MG_F32;
        mg_cuda_run_gemm(state, &m);
        mg_cuda_launch(state, dim3((unsigned)rows), MG_CUDA_THREADS, softmax_kernel<T>, probabilities,
                       (const float *)scores, s.keys, s.padded_keys, scale);
        m.y = out + first * s.size;
        m.x = probabilities;
        m.weight = values;
        m.columns = s.size;
        m.depth = s.padded_keys;
        m.result = dtype;
        mg_cuda_run_gemm(state, &m);
    }
}

void mg_cuda_attention_products(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op;
    const struct attention_shape s = shape_of(op);
    const int64_t key_stride = op->in[1].dim[0] > 1 ? s.keys * s.size : 0;
    mg_cuda_dispatch_type(op->out.dtype, [&](auto zero) {
        using T = decltype(zero);
        for (int64_t image = 0; image < op->in[0].dim[0]; image++)
            attend_image<T>(
                state, s, op->out.dtype, op->params.attention.scale, (T *)call->out + image * s.queries * s.size,
                (const T *)call->in[0] + image * s.queries * s.size, (const T *)call->in[1] + image * key_stride,
                (const T *)call->in[2] + image * key_stride, (char *)call->workspace);
    });
}
