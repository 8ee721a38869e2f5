/* layernorm.cuh: what layer normalisation and its gradients share: a warp for each row of channels. */
#ifndef MG_CUDA_LAYERNORM_CUH
#define MG_CUDA_LAYERNORM_CUH
#include "cuda.cuh"

constexpr int MG_CUDA_ROWS = MG_CUDA_THREADS / MG_CUDA_WARP; /* of a block */

/* Mean and 1 / deviation of a row, in every lane. */
template <class T> __device__ inline float2 mg_cuda_row_statistics(const T *x, int64_t channels, float epsilon) {
    const int lane = threadIdx.x % MG_CUDA_WARP;
    const float shift = mg_float(x[0]);
    float sum = 0.0f, squares = 0.0f;
    for (int64_t c = lane; c < channels; c += MG_CUDA_WARP)
        sum += mg_float(x[c]) - shift;
    const float mean = shift + mg_warp_sum(sum) / (float)channels;
    for (int64_t c = lane; c < channels; c += MG_CUDA_WARP) {
        const float deviation = mg_float(x[c]) - mean;
        squares += deviation * deviation;
    }
    return make_float2(mean, 1.0f / sqrtf(mg_warp_sum(squares) / (float)channels + epsilon));
}
#endif
