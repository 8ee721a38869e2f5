/* cuda.cuh: what the drivers in cuda/ops share. Private to backend/cuda, which is built by nvcc into a shared object
 * of its own (see library.h).
 *
 * A driver (ops/NAME.cu) launches kernels on the stream of its context. It returns at once: what fails is noted in the
 * state and told by the backend's finish(). The same files compile as C++ against the headers of tests/cuda_emu, which
 * run kernels thread by thread; so a kernel uses of CUDA what those headers define, takes shared memory by MG_SHARED,
 * and tensor cores through ptx/tensor_core.cuh. */
#ifndef MG_CUDA_CUH
#define MG_CUDA_CUH
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <type_traits>

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

extern "C" {
#include "../backend.h"
}

/* Shared memory of a block: one structure, so that its size is checked when the kernel is compiled. */
#ifndef MG_SHARED
#define MG_SHARED(type, name) __shared__ type name
#endif

/* ---- the state of a context ---- */
constexpr int MG_CUDA_BLAS_WORKSPACE = 32 << 20, MG_CUDA_STAGING = 2, MG_CUDA_GEMM_PLANS = 512,
              MG_CUDA_FAULT_TEXT = 256;

/* A matrix product, and the algorithm that cuBLASLt has chosen for it. */
struct mg_cuda_gemm_plan {
    int64_t rows, columns, depth, stride; /* y (rows, columns), x (rows, depth), weight (columns, stride) */
    mg_dtype dtype, result;
    bool bias, residual, known;
    bool own_kernel; /* cuBLASLt has none: mg_cuda_gemm_own_kernel */
    cublasLtMatmulAlgo_t algorithm;
};

struct mg_cuda_state {
    int device;
    int capability; /* 86 for 8.6 */
    char isa[16];   /* "sm_86" */
    bool tf32;      /* float32 products may be rounded to TF32 */
    bool graphs;    /* operations that run again are recorded */
    /* Variants of kernels that the environment asks for, to compare them: see cuda_open. */
    bool narrow_tiles, wide_tiles, tiled_attention;
    cudaStream_t stream;
    cublasLtHandle_t blas;
    void *blas_workspace;
    void *staging[MG_CUDA_STAGING]; /* pinned: uploads are copied through them in turn */
    cudaEvent_t staged[MG_CUDA_STAGING];
    int next_staging;
    struct mg_cuda_gemm_plan gemm_plans[MG_CUDA_GEMM_PLANS];
    FILE *times; /* NULL: operations are not timed one by one */
    cudaEvent_t timed[2];
    const char *running; /* the operation */
    mg_status fault;     /* the first since the last finish() */
    char fault_text[MG_CUDA_FAULT_TEXT];
};

/* Notes the first fault, with what failed: a call, or the operation that is running. */
void mg_cuda_note(struct mg_cuda_state *state, cudaError_t status, const char *what);
void mg_cuda_note_blas(struct mg_cuda_state *state, cublasStatus_t status, const char *what);

struct mg_cuda_driver {
    void (*run)(struct mg_cuda_state *state, const struct mg_op_call *call);
    size_t (*workspace_bytes)(const struct mg_op_shape *op) = NULL; /* NULL: none. SIZE_MAX: too large */
};
#define MG_OP(ID, name, inputs, required, alias, meaning) extern const struct mg_cuda_driver mg_cuda_##name;
#include "../../op/ops.def"
#undef MG_OP

/* ---- launches ---- */
constexpr int MG_CUDA_THREADS = 256, MG_CUDA_WARP = 32;
#define MG_CUDA_ALL_LANES 0xffffffffu

template <class... Parameters, class... Arguments>
void mg_cuda_launch(struct mg_cuda_state *state, dim3 grid, int threads, void (*kernel)(Parameters...),
                    Arguments... arguments) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)threads);
    config.stream = state->stream;
    mg_cuda_note(state, cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), "launch");
}

static inline int64_t mg_cuda_divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Blocks for a grid-stride loop over `count` elements. */
static inline dim3 mg_cuda_grid(int64_t count) {
    const int64_t blocks = mg_cuda_divide_up(count, MG_CUDA_THREADS), most = 1 << 16;
    return dim3((unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most));
}
#define MG_CUDA_GRID_STRIDE(i, count)                                                                                  \
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;                                                        \
    i < (count);                                                                                                       \
    i += (int64_t)gridDim.x * blockDim.x

/* A float32 whose products tensor cores make: rounded to eleven bits, summed in float32. */
struct mg_tf32 {
    float value;
};

/* Calls f(T()) for the type of activations. */
template <class F> void mg_cuda_dispatch_type(mg_dtype dtype, F f) {
    if (dtype == MG_BF16)
        f(__nv_bfloat16());
    else if (dtype == MG_F16)
        f(__half());
    else
        f(float());
}

/* Calls f(T(), P()) for it and what its products are made in: the same type, or mg_tf32 where that is allowed. */
template <class F> void mg_cuda_dispatch_product(const struct mg_cuda_state *state, mg_dtype dtype, F f) {
    if (dtype == MG_F32 && state->tf32)
        f(float(), mg_tf32());
    else
        mg_cuda_dispatch_type(dtype, [&](auto zero) { f(zero, zero); });
}

/* ---- elements ---- */
__device__ inline float mg_float(float x) { return x; }
__device__ inline float mg_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float mg_float(__half x) { return __half2float(x); }

template <class T> __device__ inline T mg_element(float x);
template <> __device__ inline float mg_element<float>(float x) { return x; }
template <> __device__ inline __nv_bfloat16 mg_element<__nv_bfloat16>(float x) { return __float2bfloat16(x); }
template <> __device__ inline __half mg_element<__half>(float x) { return __float2half(x); }

/* N neighbouring elements for one vectorised access, at an address that is a multiple of their bytes. */
template <class T, int N> struct alignas(sizeof(T) * N) mg_vector { T at[N]; };

template <int N, class T> __device__ inline void mg_load(float to[N], const T *from) {
    const mg_vector<T, N> vector = *(const mg_vector<T, N> *)from;
#pragma unroll
    for (int i = 0; i < N; i++)
        to[i] = mg_float(vector.at[i]);
}

template <int N, class T> __device__ inline void mg_store(T *to, const float from[N]) {
    mg_vector<T, N> vector;
#pragma unroll
    for (int i = 0; i < N; i++)
        vector.at[i] = mg_element<T>(from[i]);
    *(mg_vector<T, N> *)to = vector;
}

/* Calls f with the width of vectorised accesses, as a type: 16 bytes of T where `length`, of which all rows are
 * multiples, allows it, else one element. */
template <class T, class F> void mg_cuda_dispatch_width(int64_t length, F f) {
    constexpr int most = 16 / (int)sizeof(T);
    if (length % most == 0)
        f(std::integral_constant<int, most>());
    else
        f(std::integral_constant<int, 1>());
}

__device__ inline float mg_silu(float x) { return x / (1.0f + expf(-x)); }
/* erfc keeps the relative accuracy of the left tail, where 1 + erf cancels. */
__device__ inline float mg_gelu(float x) { return 0.5f * x * erfcf(-x * 0.70710678f); }

__device__ inline float mg_activate(float x, mg_activation activation) {
    switch (activation) {
    case MG_ACT_SILU:
        return mg_silu(x);
    case MG_ACT_GELU:
        return mg_gelu(x);
    case MG_ACT_QUICK_GELU:
        return x / (1.0f + expf(-1.702f * x));
    case MG_ACT_RELU:
        return x < 0.0f ? 0.0f : x;
    case MG_ACT_TANH:
        return tanhf(x);
    case MG_ACT_NONE:
        break;
    }
    return x;
}

/* The source of row or column `index` of a map upsampled by 1 / ratio, as torch finds it. */
__device__ inline int64_t mg_nearest(int64_t index, float ratio, int64_t size) {
    const int64_t source = (int64_t)floorf((float)index * ratio);
    return source < size - 1 ? source : size - 1;
}

/* Sum over the lanes of a warp, in every lane. */
__device__ inline float mg_warp_sum(float x) {
    for (int distance = MG_CUDA_WARP / 2; distance; distance /= 2)
        x += __shfl_xor_sync(MG_CUDA_ALL_LANES, x, distance);
    return x;
}
__device__ inline double mg_warp_sum(double x) {
    for (int distance = MG_CUDA_WARP / 2; distance; distance /= 2)
        x += __shfl_xor_sync(MG_CUDA_ALL_LANES, x, distance);
    return x;
}

/* ---- matrix product (gemm.cu) ---- */
/* y (rows, columns) = act(x (rows, depth) weight^T + bias) + residual, weight in the layout of mg_cuda_weight_layout;
 * scratch: mg_cuda_gemm_bytes of it. bias, residual and scratch may be NULL; y may be the residual. */
struct mg_cuda_gemm {
    void *y;
    const void *x, *weight, *residual;
    const float *bias;
    void *scratch;
    int64_t rows, columns, depth;
    mg_dtype dtype;  /* of x and weight */
    mg_dtype result; /* of y and residual: the same, or MG_F32 */
    mg_activation activation;
};
void mg_cuda_run_gemm(struct mg_cuda_state *state, const struct mg_cuda_gemm *m);
size_t mg_cuda_gemm_bytes(const struct mg_op_shape *op);
/* The same, but for activation and scratch, by the kernel of ops/conv2d.cu. */
void mg_cuda_gemm_own_kernel(struct mg_cuda_state *state, const struct mg_cuda_gemm *m);

/* ---- weights ---- */
/* The filters of conv2d and linear layers: one after the other, positions (R*S) outermost, channels filled up with
 * zeros to whole chunks of 16 bytes. */
constexpr int MG_CUDA_CHUNK = 16;
static inline int mg_cuda_chunk_elements(mg_dtype dtype) { return MG_CUDA_CHUNK / (int)mg_dtype_bytes(dtype); }
static inline int64_t mg_cuda_padded(int64_t channels, mg_dtype dtype) {
    const int64_t chunk = mg_cuda_chunk_elements(dtype);
    return mg_cuda_divide_up(channels, chunk) * chunk;
}

/* ---- copy_channels.cu ---- */
/* Copies `count` channels of every pixel, from channel in_begin of in_channels to out_begin of out_channels; all in
 * elements of the kernel. */
struct mg_cuda_channels {
    int64_t pixels, count, out_begin, out_channels, in_begin, in_channels;
};
void mg_cuda_copy_channels(struct mg_cuda_state *state, const struct mg_op_call *call, int slot,
                           struct mg_cuda_channels p);
#endif
