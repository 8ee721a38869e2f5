/* cuda_runtime.h of the emulation: as much of CUDA as csrc/backend/cuda uses, for a C++ compiler without CUDA. Kernels
 * are ordinary functions, run by emulator.cc thread by thread: one thread goes on until it waits for others
 * (__syncthreads, warp shuffles), in an order that the tests choose. Device memory is host memory, fenced and filled
 * with NaN. */
#ifndef MG_EMU_CUDA_RUNTIME_H
#define MG_EMU_CUDA_RUNTIME_H
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define CUDART_VERSION 13000

/* ---- vectors ---- */
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

/* To the nearest of eleven bits, ties away from zero. */
static inline float mg_emu_tf32(float x) {
    uint32_t bits;
    if (x != x)
        return x;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x1000) & ~(uint32_t)0x1fff;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ---- threads ---- */
extern dim3 threadIdx, blockIdx, blockDim, gridDim; /* of the thread that runs */

/* Waits for all threads of the block; all must be at the same line. */
void mg_emu_barrier(int line);
/* Every lane of `mask` gives 8 bytes; returns those of all 32 lanes, valid until the lane's next exchange but one. The
 * lane that comes last goes on first: *last tells it, if not NULL. */
const uint64_t *mg_emu_exchange(unsigned mask, uint64_t value, int line, bool *last = nullptr);
#define __syncthreads() mg_emu_barrier(__LINE__)
#define __syncwarp() ((void)mg_emu_exchange(0xffffffffu, 0, __LINE__))

/* cp.async: bytes that are NaN until the thread has waited for the group of copies they belong to; zeros for nullptr. */
void mg_emu_copy_async(void *to, const void *from, size_t bytes);
void mg_emu_commit_copies();
void mg_emu_wait_copies(int pending);

template <class T> T mg_emu_shuffle_xor(unsigned mask, T value, int lane_mask, int line) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles carry up to 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    const uint64_t *all = mg_emu_exchange(mask, bits, line);
    memcpy(&value, &all[(threadIdx.x % 32) ^ (unsigned)lane_mask], sizeof value);
    return value;
}
#define __shfl_xor_sync(mask, value, lane_mask) mg_emu_shuffle_xor(mask, value, lane_mask, __LINE__)

/* The block's shared memory, filled with NaN when the block begins. */
void *mg_emu_shared(size_t bytes);
constexpr int MG_EMU_SHARED_BYTES = 48 << 10;
#define MG_SHARED(type, name)                                                                                          \
    static_assert(sizeof(type) <= MG_EMU_SHARED_BYTES, "more shared memory than a block has");                         \
    type &name = *static_cast<type *>(mg_emu_shared(sizeof(type)))

/* ---- the runtime ---- */
enum cudaError_t {
    cudaSuccess,
    cudaErrorInvalidValue,
    cudaErrorMemoryAllocation,
    cudaErrorInsufficientDriver,
    cudaErrorNoDevice,
    cudaErrorLaunchFailure,
    cudaErrorStreamCaptureUnsupported,
    cudaErrorNoKernelImageForDevice,
    cudaErrorInvalidDeviceFunction,
    cudaErrorInvalidResourceHandle,
    cudaErrorUnsupportedPtxVersion,
    cudaErrorNotReady
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
typedef struct mg_emu_stream *cudaStream_t;
typedef struct mg_emu_graph *cudaGraph_t, *cudaGraphExec_t;
typedef struct mg_emu_event *cudaEvent_t;

const char *cudaGetErrorString(cudaError_t status);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDevice(int device);
struct cudaFuncAttributes {};
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *out, void (*kernel)());
cudaError_t cudaMemGetInfo(size_t *left, size_t *all);
cudaError_t cudaMalloc(void **out, size_t bytes);
cudaError_t cudaFree(void *block);
cudaError_t cudaMallocHost(void **out, size_t bytes);
cudaError_t cudaFreeHost(void *block);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end);
cudaError_t cudaEventDestroy(cudaEvent_t event);

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
};
bool mg_emu_is_device(const void *address);
/* True for memory of the device on which the stream works: no GPU reads that of another. */
bool mg_emu_is_memory_of(cudaStream_t stream, const void *address);
/* Does the work now, or notes it while the stream is captured. */
cudaError_t mg_emu_submit(cudaStream_t stream, std::function<cudaError_t()> work);
cudaError_t mg_emu_launch(const cudaLaunchConfig_t &config, const std::function<void()> &thread);
/* The same, for a kernel whose launches the tests may look at. */
cudaError_t mg_emu_launch_kernel(const cudaLaunchConfig_t &config, const void *kernel,
                                 const std::vector<unsigned char> &arguments, const std::function<void()> &thread);

/* Arguments as a GPU gets them: one after the other, each at a multiple of its alignment. */
template <class T> void mg_emu_append(std::vector<unsigned char> &to, const T &argument) {
    const size_t at = (to.size() + alignof(T) - 1) / alignof(T) * alignof(T);
    to.resize(at + sizeof argument);
    memcpy(to.data() + at, &argument, sizeof argument);
}

/* A pointer that is given to a kernel must be one to memory of its device, or none. */
template <class T> bool mg_emu_argument_fits(cudaStream_t stream, const T &argument) {
    if constexpr (std::is_pointer_v<T>)
        return !argument || mg_emu_is_memory_of(stream, argument);
    (void)stream;
    return true;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
    const cudaLaunchConfig_t copy = *config;
    std::vector<unsigned char> packed;
    (mg_emu_append(packed, static_cast<Parameters>(arguments)), ...);
    return mg_emu_submit(copy.stream, [=] {
        return (mg_emu_argument_fits(copy.stream, arguments) && ...)
                   ? mg_emu_launch_kernel(copy, (const void *)kernel, packed, [=] { kernel(arguments...); })
                   : cudaErrorInvalidValue;
    });
}
#endif
