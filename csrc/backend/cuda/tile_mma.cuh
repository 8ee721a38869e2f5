/* tile_mma.cuh: a block of 256 threads multiplies two tiles in shared memory: in float32 by the ordinary units, in
 * float16, bfloat16 and TF32 by tensor cores.
 *
 * A tile is rows of four chunks of 16 bytes (16 floats, or 32 halves), the dimension that is summed over. The chunks of a
 * row are swizzled: chunk c of row r lies at c ^ (r / 2 % 4). So one chunk of eight consecutive rows lies in all banks once,
 * and ldmatrix and 16-byte accesses have no bank conflicts. */
#ifndef MG_TILE_MMA_CUH
#define MG_TILE_MMA_CUH
#include "cuda.cuh"

#include <tensor_core.cuh>

constexpr int MG_TILE_CHUNKS = 4;

template <class T> __host__ __device__ constexpr int mg_chunk_elements() { return (int)(MG_CUDA_CHUNK / sizeof(T)); }
template <class T> __host__ __device__ constexpr int mg_tile_depth() { return MG_TILE_CHUNKS * mg_chunk_elements<T>(); }

/* Where a chunk of a tile lies, in chunks. */
__device__ inline int mg_tile_chunk(int row, int chunk) {
    return row * MG_TILE_CHUNKS + (chunk ^ (row / 2 % MG_TILE_CHUNKS));
}

template <class T> __device__ inline T *mg_tile_element(uint4 *tile, int row, int element) {
    constexpr int N = mg_chunk_elements<T>();
    return (T *)(tile + mg_tile_chunk(row, element / N)) + element % N;
}

/* A chunk of a row of `channels` elements, from `channel` on; zeros beyond its end, and for row NULL. `aligned`: rows
 * begin at a multiple of a chunk and are made of whole chunks. U: the type in memory. */
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
        const int lane = threadIdx.x % MG_CUDA_WARP, matrix = lane / 8, row = lane % 8;
        const int a_row = warp_row() + matrix % 2 * 8 + row, b_row = warp_column() + matrix / 2 * 8 + row;
#pragma unroll
        for (int chunk = 0; chunk < MG_TILE_CHUNKS; chunk += 2) {
            uint32_t b_fragment[COLUMN_FRAGMENTS][2];
#pragma unroll
            for (int j = 0; j < COLUMN_FRAGMENTS; j += 2) {
                uint32_t matrices[4];
                mg_load_matrices(matrices, b + mg_tile_chunk(b_row + j * 8, chunk + matrix % 2));
                b_fragment[j][0] = matrices[0];
                b_fragment[j][1] = matrices[1];
                b_fragment[j + 1][0] = matrices[2];
                b_fragment[j + 1][1] = matrices[3];
            }
#pragma unroll
            for (int i = 0; i < ROW_FRAGMENTS; i++) {
                uint32_t a_fragment[4];
                mg_load_matrices(a_fragment, a + mg_tile_chunk(a_row + i * 16, chunk + matrix / 2));
#pragma unroll
                for (int j = 0; j < COLUMN_FRAGMENTS; j++)
                    mg_mma(accumulator[i][j], a_fragment, b_fragment[j], T());
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
        const float4 *rows = (const float4 *)a, *columns = (const float4 *)b;
        const int row = threadIdx.x / 16, column = threadIdx.x % 16;
#pragma unroll
        for (int chunk = 0; chunk < MG_TILE_CHUNKS; chunk++) {
            float4 a_fragment[ROW_FRAGMENTS];
#pragma unroll
            for (int i = 0; i < ROW_FRAGMENTS; i++)
                a_fragment[i] = rows[mg_tile_chunk(row + i * 16, chunk)];
#pragma unroll
            for (int j = 0; j < COLUMN_FRAGMENTS; j++) {
                const float4 b_fragment = columns[mg_tile_chunk(column + j * 16, chunk)];
#pragma unroll
                for (int i = 0; i < ROW_FRAGMENTS; i++) {
                    float sum = accumulator[i][j];
                    sum = fmaf(a_fragment[i].x, b_fragment.x, sum);
                    sum = fmaf(a_fragment[i].y, b_fragment.y, sum);
                    sum = fmaf(a_fragment[i].z, b_fragment.z, sum);
                    accumulator[i][j] = fmaf(a_fragment[i].w, b_fragment.w, sum);
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
