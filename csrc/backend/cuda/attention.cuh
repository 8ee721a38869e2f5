/* attention.cuh: heads of tokens, and their tiles in shared memory. */
#ifndef MG_CUDA_ATTENTION_CUH
#define MG_CUDA_ATTENTION_CUH
#include "tile_mma.cuh"

constexpr int QUERY_TILE = 64, KEY_TILE = 64, MAX_HEAD_TILE = 128;

struct heads {
    int64_t queries, keys, channels, size; /* of a head */
    int64_t key_stride;                    /* from image to image of keys and values: 0 if they are shared */
    int64_t values;                        /* channels of the head that one block makes */
    float scale;
    bool causal, aligned; /* aligned: heads begin at a multiple of a chunk and are made of whole chunks */
};

/* Rows first .. first+64 of tokens (count, stride) as a tile of elements channel .. of each. */
template <class T, class U>
__device__ inline void load_tokens(uint4 *tile, const U *tokens, int64_t first, int64_t count, int64_t stride,
                                   int64_t channel, int64_t size, bool aligned) {
    const int row = threadIdx.x / MG_TILE_CHUNKS, chunk = threadIdx.x % MG_TILE_CHUNKS;
    const U *token = first + row < count ? tokens + (first + row) * stride : NULL;
    tile[mg_tile_chunk(row, chunk)] = mg_load_chunk<T>(token, channel + chunk * mg_chunk_elements<T>(), size, aligned);
}

/* Values of keys first .. as a tile with a row for each channel: what is summed over lies side by side. */
template <class T, class U, int VALUES>
__device__ inline void load_values(uint4 *tile, const U *values, int64_t first, int64_t keys, int64_t stride,
                                   int64_t count) {
    constexpr int DEPTH = mg_tile_depth<T>();

    for (int i = threadIdx.x; i < DEPTH * VALUES; i += MG_CUDA_THREADS) {
        const int channel = i % VALUES, key = i / VALUES;
        const bool there = first + key < keys && channel < count;
        *mg_tile_element<T>(tile, channel, key) =
            mg_element<T>(there ? mg_float(values[(first + key) * stride + channel]) : 0.0f);
    }
}

/* One step of the online softmax: a row of scores becomes probabilities relative to the row's maximum so far. Four
 * neighbouring lanes share a row. */
__device__ static inline void online_softmax_row(float *score, float *row_max, float *row_sum, float *correction) {
    const int part = threadIdx.x % 4;
    float maximum = *row_max, sum = 0.0f;
    const float previous = maximum;
    for (int i = part; i < KEY_TILE; i += 4)
        maximum = fmaxf(maximum, score[i]);
    for (int distance = 1; distance < 4; distance *= 2)
        maximum = fmaxf(maximum, __shfl_xor_sync(MG_CUDA_ALL_LANES, maximum, distance));
    for (int i = part; i < KEY_TILE; i += 4) {
        score[i] = expf(score[i] - maximum);
        sum += score[i];
    }
    for (int distance = 1; distance < 4; distance *= 2)
        sum += __shfl_xor_sync(MG_CUDA_ALL_LANES, sum, distance);
    if (part == 0) {
        *correction = expf(previous - maximum);
        *row_sum = *row_sum * *correction + sum;
        *row_max = maximum;
    }
}

static inline struct heads heads_of(const struct mg_op_shape *op) {
    const struct mg_attention *a = &op->params.attention;
    struct heads p = {};
    p.queries = op->in[0].dim[1] * op->in[0].dim[2];
    p.keys = op->in[1].dim[1] * op->in[1].dim[2];
    p.channels = op->in[0].dim[3];
    p.size = p.channels / a->heads;
    p.key_stride = op->in[1].dim[0] > 1 ? p.keys * p.channels : 0;
    p.values = mg_cuda_divide_up(p.size, mg_cuda_divide_up(p.size, MAX_HEAD_TILE));
    p.scale = a->scale;
    p.causal = a->causal;
    p.aligned = p.size % mg_cuda_chunk_elements(op->in[0].dtype) == 0;
    return p;
}
#endif
