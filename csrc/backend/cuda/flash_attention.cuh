/* flash_attention.cuh: attention in halves as FlashAttention-2 is built (arXiv 2307.08691): each warp keeps 16 queries, their
 * scores and their output in registers; tiles of keys and values arrive by cp.async, one in flight while one is used.
 *
 * Scores leave mma.sync in the layout in which the next product takes its left operand, so probabilities never pass
 * through shared memory. Keys are read by ldmatrix as they lie, values transposed. Rows of a tile are padded to an odd
 * number of chunks: eight of them then begin in different banks. */
#ifndef MG_CUDA_FLASH_ATTENTION_CUH
#define MG_CUDA_FLASH_ATTENTION_CUH
#include "attention.cuh"

constexpr int FLASH_ROWS = 16; /* queries of a warp */
constexpr int MAX_FLASH_SIZE = 160;

/* SIZE: channels of a head, rounded up. */
template <int SIZE, int KEY_COUNT> struct flash_tiles {
    static constexpr int STRIDE = SIZE / 8 | 1;
    uint4 k[2][KEY_COUNT * STRIDE], v[2][KEY_COUNT * STRIDE];
};

template <class T> __device__ inline uint32_t mg_pack_pair(float low, float high) {
    const T pair[2] = {mg_element<T>(low), mg_element<T>(high)};
    uint32_t bits;
    memcpy(&bits, pair, sizeof bits);
    return bits;
}

template <class T, int SIZE, int WARPS, int KEY_COUNT>
__device__ inline void copy_keys(struct flash_tiles<SIZE, KEY_COUNT> &shared, int slot, const T *k, const T *v,
                                 int first, const struct heads &p) {
    constexpr int CHUNKS = SIZE / 8, THREADS = WARPS * MG_CUDA_WARP, COPIES = KEY_COUNT * CHUNKS / THREADS;
    static_assert(COPIES * THREADS == KEY_COUNT * CHUNKS, "each thread copies as much as any other");
#pragma unroll
    for (int n = 0; n < COPIES; n++) {
        const int i = threadIdx.x + n * THREADS, row = i / CHUNKS, chunk = i % CHUNKS, at = row * shared.STRIDE + chunk;
        const bool valid = first + row < (int)p.keys && chunk * 8 < (int)p.size;
        const int64_t from = valid ? (int64_t)(first + row) * p.channels + chunk * 8 : 0;
        mg_copy_async(&shared.k[slot][at], k + from, valid);
        mg_copy_async(&shared.v[slot][at], v + from, valid);
    }
    mg_commit_copies();
}

/* The queries of a warp as left operands of mg_mma; zeros past the last query and past the head. */
template <class T, int SIZE>
__device__ inline void load_queries(uint32_t fragment[SIZE / 16][4], const T *q, int64_t first, const struct heads &p) {
    const int lane = threadIdx.x % MG_CUDA_WARP;
#pragma unroll
    for (int k = 0; k < SIZE / 16; k++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int64_t query = first + lane / 4 + e % 2 * 8;
            const int channel = k * 16 + lane % 4 * 2 + e / 2 * 8;
            const bool valid = query < p.queries && channel < p.size;
            fragment[k][e] = valid ? *(const uint32_t *)(q + query * p.channels + channel) : 0;
        }
}

/* Scores of keys that a query does not see become -inf. `key`: the first of the tile; `query`: of the lane's first row. */
template <int KEY_COUNT>
__device__ inline void mask_scores(float score[KEY_COUNT / 8][4], int key, int query, const struct heads &p) {
    const int lane = threadIdx.x % MG_CUDA_WARP;
#pragma unroll
    for (int j = 0; j < KEY_COUNT / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int own = key + j * 8 + lane % 4 * 2 + e % 2;
            if (own >= (int)p.keys || (p.causal && own > query + e / 2 * 8))
                score[j][e] = -INFINITY;
        }
}

/* Scores become probabilities relative to the row's maximum so far, in units of log2; output and sum are corrected. The
 * sum is that of this lane's columns. */
template <int KEY_COUNT, int SIZE>
__device__ inline void online_softmax(float score[KEY_COUNT / 8][4], float row_max[2], float row_sum[2],
                                      float output[SIZE / 8][4], float scale) {
#pragma unroll
    for (int half = 0; half < 2; half++) { /* rows l/4 and l/4+8 */
        float maximum = row_max[half], sum = 0.0f;
#pragma unroll
        for (int j = 0; j < KEY_COUNT / 8; j++)
            maximum = fmaxf(maximum, fmaxf(score[j][2 * half], score[j][2 * half + 1]));
        for (int distance = 1; distance < 4; distance *= 2)
            maximum = fmaxf(maximum, __shfl_xor_sync(MG_CUDA_ALL_LANES, maximum, distance));
        const float correction = exp2f((row_max[half] - maximum) * scale), offset = maximum * scale;
#pragma unroll
        for (int j = 0; j < KEY_COUNT / 8; j++)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
                score[j][e] = exp2f(fmaf(score[j][e], scale, -offset));
                sum += score[j][e];
            }
        row_sum[half] = row_sum[half] * correction + sum;
        row_max[half] = maximum;
#pragma unroll
        for (int j = 0; j < SIZE / 8; j++) {
            output[j][2 * half] *= correction;
            output[j][2 * half + 1] *= correction;
        }
    }
}

/* score = q k^T of the tile in a slot. */
template <class T, int SIZE, int KEY_COUNT>
__device__ inline void multiply_keys(float score[KEY_COUNT / 8][4], const uint32_t query[SIZE / 16][4],
                                     const struct flash_tiles<SIZE, KEY_COUNT> &shared, int slot) {
    const int lane = threadIdx.x % MG_CUDA_WARP, matrix = lane / 8;
#pragma unroll
    for (int j = 0; j < KEY_COUNT / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            score[j][e] = 0.0f;
#pragma unroll
    for (int k = 0; k < SIZE / 16; k++)
#pragma unroll
        for (int j = 0; j < KEY_COUNT / 8; j += 2) {
            uint32_t keys[4];
            const int row = j * 8 + matrix / 2 * 8 + lane % 8;
            mg_load_matrices(keys, &shared.k[slot][row * shared.STRIDE + k * 2 + matrix % 2]);
            mg_mma(score[j], query[k], keys, T());
            mg_mma(score[j + 1], query[k], keys + 2, T());
        }
}

/* output += p v. */
template <class T, int SIZE, int KEY_COUNT>
__device__ inline void multiply_values(float output[SIZE / 8][4], const float p[KEY_COUNT / 8][4],
                                       const struct flash_tiles<SIZE, KEY_COUNT> &shared, int slot) {
    const int lane = threadIdx.x % MG_CUDA_WARP, matrix = lane / 8;
#pragma unroll
    for (int k = 0; k < KEY_COUNT / 16; k++) {
        const float *low = p[2 * k], *high = p[2 * k + 1];
        const uint32_t left[4] = {mg_pack_pair<T>(low[0], low[1]), mg_pack_pair<T>(low[2], low[3]),
                                  mg_pack_pair<T>(high[0], high[1]), mg_pack_pair<T>(high[2], high[3])};
#pragma unroll
        for (int j = 0; j < SIZE / 8; j += 2) {
            uint32_t values[4];
            const int row = k * 16 + matrix % 2 * 8 + lane % 8;
            mg_load_matrices_transposed(values, &shared.v[slot][row * shared.STRIDE + j + matrix / 2]);
            mg_mma(output[j], left, values, T());
            mg_mma(output[j + 1], left, values + 2, T());
        }
    }
}

/* Grid: tiles of queries; heads of all images. */
template <class T, int SIZE, int WARPS, int KEY_COUNT>
__global__ void __launch_bounds__(WARPS *MG_CUDA_WARP, 2)
    flash_attention_kernel(T *out, const T *q, const T *k, const T *v, struct heads p, int64_t head_count) {
    typedef struct flash_tiles<SIZE, KEY_COUNT> shared_tiles;
    MG_SHARED(shared_tiles, shared);
    const int lane = threadIdx.x % MG_CUDA_WARP;
    /* Tokens of an image are counted in 32 bits, which spares registers. */
    const int block = blockIdx.x * (WARPS * FLASH_ROWS), keys = (int)p.keys;
    const int first = block + threadIdx.x / MG_CUDA_WARP * FLASH_ROWS, own = first + lane / 4;
    const int64_t image = blockIdx.y / head_count, head = blockIdx.y % head_count;
    const int last = p.causal && block + WARPS * FLASH_ROWS < keys ? block + WARPS * FLASH_ROWS : keys;
    const float scale = p.scale * 1.44269504f; /* exp2 instead of exp */
    q += image * p.queries * p.channels + head * p.size;
    k += image * p.key_stride + head * p.size;
    v += image * p.key_stride + head * p.size;
    uint32_t query[SIZE / 16][4];
    float output[SIZE / 8][4], row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {0.0f, 0.0f};
    copy_keys<T, SIZE, WARPS, KEY_COUNT>(shared, 0, k, v, 0, p);
    load_queries<T, SIZE>(query, q, first, p);
#pragma unroll
    for (int j = 0; j < SIZE / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            output[j][e] = 0.0f;
    int slot = 0;
    for (int key = 0; key < last; key += KEY_COUNT, slot ^= 1) {
        float score[KEY_COUNT / 8][4];
        mg_wait_copies<0>();
        __syncthreads(); /* this tile is there, and nobody reads the one before any more */
        if (key + KEY_COUNT < last)
            copy_keys<T, SIZE, WARPS, KEY_COUNT>(shared, slot ^ 1, k, v, key + KEY_COUNT, p);
        multiply_keys<T, SIZE, KEY_COUNT>(score, query, shared, slot);
        if (key + KEY_COUNT > keys || (p.causal && key + KEY_COUNT > first))
            mask_scores<KEY_COUNT>(score, key, own, p);
        online_softmax<KEY_COUNT, SIZE>(score, row_max, row_sum, output, scale);
        multiply_values<T, SIZE, KEY_COUNT>(output, score, shared, slot);
    }
    out += image * p.queries * p.channels + head * p.size;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = row_sum[half];
        for (int distance = 1; distance < 4; distance *= 2)
            sum += __shfl_xor_sync(MG_CUDA_ALL_LANES, sum, distance);
        const float factor = 1.0f / sum;
        const int64_t row = own + half * 8;
#pragma unroll
        for (int j = 0; j < SIZE / 8; j++) {
            const int channel = j * 8 + lane % 4 * 2;
            if (row < p.queries && channel < p.size)
                *(uint32_t *)(out + row * p.channels + channel) =
                    mg_pack_pair<T>(output[j][2 * half] * factor, output[j][2 * half + 1] * factor);
        }
    }
}
#endif
