/* tile_mma.cuh: a block of 256 threads multiplies two tiles in shared memory: in float32 by the ordinary
 * units, in float16, bfloat16 and TF32 by tensor cores.
 *
 * A tile is rows of four chunks of 16 bytes (16 floats, or 32 halves), the dimension that is summed over, and a fifth
 * chunk of padding: rows lie 20 banks apart, so that what a warp reads at once lies in different banks. */
#ifndef MG_TILE_MMA_CUH
#define MG_TILE_MMA_CUH
#include "cuda.cuh"

#include <tensor_core.cuh>

constexpr int MG_TILE_CHUNKS = 4, MG_TILE_STRIDE = 5, MG_TILE_WORDS = 4 * MG_TILE_STRIDE;

template <class T> __host__ __device__ constexpr int mg_chunk_elements() { return (int)(MG_CUDA_CHUNK / sizeof(T)); }
template <class T> __host__ __device__ constexpr int mg_tile_depth() { return MG_TILE_CHUNKS * mg_chunk_elements<T>(); }

/* A chunk of a row of `channels` elements, from `channel` on; zeros beyond its end, and for row NULL. `aligned`: rows begin at a multiple of a chunk and
 * are made of whole chunks. U: the type in memory. */
template <class T, class U>
__device__ inline uint4 mg_load_chunk(const U *row, int64_t channel, int64_t channels, bool aligned) {
    uint4 chunk = make_uint4(0, 0, 0, 0);
    if (!row || channel >= channels)
        return chunk;
    if (aligned && sizeof(T) == sizeof(U))
        return *(const uint4 *)(row + channel);
    T part[mg_chunk_elements<T>()];
#pragma unroll
    for (int i = 0; i < mg_chunk_elements<T>(); i++)
        part[i] = mg_element<T>(channel + i < channels ? mg_float(row[channel + i]) : 0.0f);
    memcpy(&chunk, part, sizeof chunk);
    return chunk;
}

/* ROWS x COLUMNS accumulators of products of type T, distributed over the threads. multiply() adds the products of the
 * rows of tile a with the rows of tile b; for_each() calls f(row, column, accumulator) for those of this thread. */
template <class T, int ROWS, int COLUMNS> struct mg_tile_mma {
    /* Eight warps: four along the rows, two along the columns. */
    static constexpr int ROW_FRAGMENTS = ROWS / 64, COLUMN_FRAGMENTS = COLUMNS / 16;
    float accumulator[ROW_FRAGMENTS][COLUMN_FRAGMENTS][4];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < ROW_FRAGMENTS; i++)
#pragma unroll
            for (int j = 0; j < COLUMN_FRAGMENTS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    accumulator[i][j][e] = 0.0f;
    }

    __device__ int warp_row() const { return threadIdx.x / MG_CUDA_WARP % 4 * (ROWS / 4); }
    __device__ int warp_column() const { return threadIdx.x / MG_CUDA_WARP / 4 * (COLUMNS / 2); }

    __device__ void multiply(const uint4 *a, const uint4 *b) {
        const int lane = threadIdx.x % MG_CUDA_WARP;
        const uint32_t *rows = (const uint32_t *)a + (warp_row() + lane / 4) * MG_TILE_WORDS + lane % 4;
        const uint32_t *columns = (const uint32_t *)b + (warp_column() + lane / 4) * MG_TILE_WORDS + lane % 4;
#pragma unroll
        for (int word = 0; word < 4 * MG_TILE_CHUNKS; word += 8) {
            uint32_t a_fragment[ROW_FRAGMENTS][4];
#pragma unroll
            for (int i = 0; i < ROW_FRAGMENTS; i++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    a_fragment[i][e] = rows[(i * 16 + e % 2 * 8) * MG_TILE_WORDS + word + e / 2 * 4];
#pragma unroll
            for (int j = 0; j < COLUMN_FRAGMENTS; j++) {
                const uint32_t *column = columns + j * 8 * MG_TILE_WORDS + word;
                const uint32_t b_fragment[2] = {column[0], column[4]};
#pragma unroll
                for (int i = 0; i < ROW_FRAGMENTS; i++)
                    mg_mma(accumulator[i][j], a_fragment[i], b_fragment, T());
            }
        }
    }

    template <class F> __device__ void for_each(F f) {
        const int lane = threadIdx.x % MG_CUDA_WARP;
#pragma unroll
        for (int i = 0; i < ROW_FRAGMENTS; i++)
#pragma unroll
            for (int j = 0; j < COLUMN_FRAGMENTS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    f(warp_row() + i * 16 + lane / 4 + e / 2 * 8, warp_column() + j * 8 + lane % 4 * 2 + e % 2,
                      accumulator[i][j][e]);
    }
};

template <int ROWS, int COLUMNS> struct mg_tile_mma<float, ROWS, COLUMNS> {
    /* 16 x 16 threads, each with every sixteenth row and column. */
    static constexpr int ROW_FRAGMENTS = ROWS / 16, COLUMN_FRAGMENTS = COLUMNS / 16;
    float accumulator[ROW_FRAGMENTS][COLUMN_FRAGMENTS];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < ROW_FRAGMENTS; i++)
#pragma unroll
            for (int j = 0; j < COLUMN_FRAGMENTS; j++)
                accumulator[i][j] = 0.0f;
    }

    __device__ void multiply(const uint4 *a, const uint4 *b) {
        const float4 *rows = (const float4 *)a + threadIdx.x / 16 * MG_TILE_STRIDE;
        const float4 *columns = (const float4 *)b + threadIdx.x % 16 * MG_TILE_STRIDE;
#pragma unroll
        for (int chunk = 0; chunk < MG_TILE_CHUNKS; chunk++) {
            float4 a_fragment[ROW_FRAGMENTS];
#pragma unroll
            for (int i = 0; i < ROW_FRAGMENTS; i++)
                a_fragment[i] = rows[i * 16 * MG_TILE_STRIDE + chunk];
#pragma unroll
            for (int j = 0; j < COLUMN_FRAGMENTS; j++) {
                const float4 b_fragment = columns[j * 16 * MG_TILE_STRIDE + chunk];
#pragma unroll
                for (int i = 0; i < ROW_FRAGMENTS; i++) {
                    accumulator[i][j] = fmaf(a_fragment[i].x, b_fragment.x, accumulator[i][j]);
                    accumulator[i][j] = fmaf(a_fragment[i].y, b_fragment.y, accumulator[i][j]);
                    accumulator[i][j] = fmaf(a_fragment[i].z, b_fragment.z, accumulator[i][j]);
                    accumulator[i][j] = fmaf(a_fragment[i].w, b_fragment.w, accumulator[i][j]);
                }
            }
        }
    }

    template <class F> __device__ void for_each(F f) {
#pragma unroll
        for (int i = 0; i < ROW_FRAGMENTS; i++)
#pragma unroll
            for (int j = 0; j < COLUMN_FRAGMENTS; j++)
                f((int)threadIdx.x / 16 + i * 16, (int)threadIdx.x % 16 + j * 16, accumulator[i][j]);
    }
};
#endif
