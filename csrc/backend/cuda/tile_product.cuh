/* tile_product.cuh: the product of two tiles in shared memory by a block of 256 threads: in float32 by the ordinary
 * units, in float16, bfloat16 and TF32 by tensor cores. Included by ops/conv2d.cu and ops/attention.cu.
 *
 * A tile is rows of four chunks of 16 bytes (16 floats, or 32 halves), the dimension that is summed over, and a fifth
 * chunk of padding: rows lie 20 banks apart, so that what a warp reads at once lies in different banks. */
#ifndef MG_TILE_PRODUCT_CUH
#define MG_TILE_PRODUCT_CUH
#include "cuda.cuh"

#include <tensor_core.cuh>

enum { MG_TILE_CHUNKS = 4, MG_TILE_STRIDE = 5, MG_TILE_WORDS = 4 * MG_TILE_STRIDE };

template <class T> __host__ __device__ constexpr int mg_chunk_elements() { return (int)(MG_CUDA_CHUNK / sizeof(T)); }
template <class T> __host__ __device__ constexpr int mg_tile_depth() { return MG_TILE_CHUNKS * mg_chunk_elements<T>(); }

/* A chunk of a row of `channels` elements, from `channel` on; zeros beyond its end, and for row NULL. `whole`: rows are
 * aligned and made of whole chunks. U: the type in memory. */
template <class T, class U>
__device__ inline uint4 mg_read_chunk(const U *row, int64_t channel, int64_t channels, bool whole) {
    uint4 chunk = make_uint4(0, 0, 0, 0);
    if (!row || channel >= channels)
        return chunk;
    if (whole && sizeof(T) == sizeof(U))
        return *(const uint4 *)(row + channel);
    T part[mg_chunk_elements<T>()];
#pragma unroll
    for (int i = 0; i < mg_chunk_elements<T>(); i++)
        part[i] = mg_element<T>(channel + i < channels ? mg_float(row[channel + i]) : 0.0f);
    memcpy(&chunk, part, sizeof chunk);
    return chunk;
}

/* ROWS x COLUMNS sums of products of type T, spread over the threads. multiply() adds the products of the rows of tile a
 * with those of tile b; each() calls f(row, column, sum) for the thread's own. */
template <class T, int ROWS, int COLUMNS> struct mg_tile_product {
    /* Eight warps: four of them share the rows out, two the columns. */
    enum { TALL = ROWS / 64, WIDE = COLUMNS / 16 };
    float sum[TALL][WIDE][4];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < TALL; i++)
#pragma unroll
            for (int j = 0; j < WIDE; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    sum[i][j][e] = 0.0f;
    }

    __device__ int first_row() const { return threadIdx.x / MG_CUDA_WARP % 4 * (ROWS / 4); }
    __device__ int first_column() const { return threadIdx.x / MG_CUDA_WARP / 4 * (COLUMNS / 2); }

    __device__ void multiply(const uint4 *a, const uint4 *b) {
        const int lane = threadIdx.x % MG_CUDA_WARP;
        const uint32_t *rows = (const uint32_t *)a + (first_row() + lane / 4) * MG_TILE_WORDS + lane % 4;
        const uint32_t *columns = (const uint32_t *)b + (first_column() + lane / 4) * MG_TILE_WORDS + lane % 4;
#pragma unroll
        for (int word = 0; word < 4 * MG_TILE_CHUNKS; word += 8) {
            uint32_t left[TALL][4];
#pragma unroll
            for (int i = 0; i < TALL; i++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    left[i][e] = rows[(i * 16 + e % 2 * 8) * MG_TILE_WORDS + word + e / 2 * 4];
#pragma unroll
            for (int j = 0; j < WIDE; j++) {
                const uint32_t *column = columns + j * 8 * MG_TILE_WORDS + word;
                const uint32_t right[2] = {column[0], column[4]};
#pragma unroll
                for (int i = 0; i < TALL; i++)
                    mg_multiply_add(sum[i][j], left[i], right, T());
            }
        }
    }

    template <class F> __device__ void each(F f) {
        const int lane = threadIdx.x % MG_CUDA_WARP;
#pragma unroll
        for (int i = 0; i < TALL; i++)
#pragma unroll
            for (int j = 0; j < WIDE; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    f(first_row() + i * 16 + lane / 4 + e / 2 * 8, first_column() + j * 8 + lane % 4 * 2 + e % 2,
                      sum[i][j][e]);
    }
};

template <int ROWS, int COLUMNS> struct mg_tile_product<float, ROWS, COLUMNS> {
    /* 16 x 16 threads, each with every sixteenth row and column. */
    enum { TALL = ROWS / 16, WIDE = COLUMNS / 16 };
    float sum[TALL][WIDE];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < TALL; i++)
#pragma unroll
            for (int j = 0; j < WIDE; j++)
                sum[i][j] = 0.0f;
    }

    __device__ void multiply(const uint4 *a, const uint4 *b) {
        const float4 *rows = (const float4 *)a + threadIdx.x / 16 * MG_TILE_STRIDE;
        const float4 *columns = (const float4 *)b + threadIdx.x % 16 * MG_TILE_STRIDE;
#pragma unroll
        for (int chunk = 0; chunk < MG_TILE_CHUNKS; chunk++) {
            float4 left[TALL];
#pragma unroll
            for (int i = 0; i < TALL; i++)
                left[i] = rows[i * 16 * MG_TILE_STRIDE + chunk];
#pragma unroll
            for (int j = 0; j < WIDE; j++) {
                const float4 right = columns[j * 16 * MG_TILE_STRIDE + chunk];
#pragma unroll
                for (int i = 0; i < TALL; i++) {
                    sum[i][j] = fmaf(left[i].x, right.x, sum[i][j]);
                    sum[i][j] = fmaf(left[i].y, right.y, sum[i][j]);
                    sum[i][j] = fmaf(left[i].z, right.z, sum[i][j]);
                    sum[i][j] = fmaf(left[i].w, right.w, sum[i][j]);
                }
            }
        }
    }

    template <class F> __device__ void each(F f) {
#pragma unroll
        for (int i = 0; i < TALL; i++)
#pragma unroll
            for (int j = 0; j < WIDE; j++)
                f((int)threadIdx.x / 16 + i * 16, (int)threadIdx.x % 16 + j * 16, sum[i][j]);
    }
};
#endif
