/* runtime.cc: the runtime's calls: memory with fences, streams whose work is done at once, devices that the tests make
 * up, and acquisitions that fail on request. Called through cuda_runtime.h. */
#include <cstdlib>
#include <map>

#include "emulator.h"

const char *mg_emu_launch_fault(); /* scheduler.cc */

/* Blocks are filled with NaN, but for very large ones, which would take longer than what uses them. */
enum { FENCE = 256, FENCE_BYTE = 0xff, MOST_FILLED = 16 << 20 };

static struct {
    std::map<const char *, size_t> blocks; /* of device memory */
    int left = -1, calls_left = -1, held = 0, faults = 0;
    int devices = 1, capability = 86;
} runtime;

extern "C" void mg_emu_fail_after(int acquisitions) { runtime.left = acquisitions; }
extern "C" void mg_emu_fail_call_after(int calls) { runtime.calls_left = calls; }
extern "C" int mg_emu_held(void) { return runtime.held; }
extern "C" int mg_emu_faults(void) { return runtime.faults; }
extern "C" void mg_emu_set_device(int count, int capability) {
    runtime.devices = count;
    runtime.capability = capability;
}

bool mg_emu_call_fails() {
    const bool fails = runtime.calls_left == 0;
    runtime.calls_left -= runtime.calls_left >= 0;
    return fails;
}

bool mg_emu_acquire() {
    if (runtime.left == 0)
        return false;
    runtime.left -= runtime.left > 0;
    runtime.held++;
    return true;
}

void mg_emu_give_back() { runtime.held--; }

const char *cudaGetErrorString(cudaError_t status) {
    switch (status) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorLaunchFailure:
        return mg_emu_launch_fault();
    default:
        return "invalid argument";
    }
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int *count) {
    *count = runtime.devices;
    return runtime.devices < 0 ? cudaErrorInsufficientDriver : runtime.devices ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    const bool major = attribute == cudaDevAttrComputeCapabilityMajor;
    *value = major ? runtime.capability / 10 : runtime.capability % 10;
    return device < runtime.devices ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaSetDevice(int device) {
    return !mg_emu_call_fails() && device >= 0 && device < runtime.devices ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *all) {
    *left = 1 << 20;
    *all = 1 << 30;
    return cudaSuccess;
}

/* The whole range must lie in one block. */
static bool is_device_range(const void *address, size_t bytes) {
    const char *begin = (const char *)address;
    auto after = runtime.blocks.upper_bound(begin);
    if (after == runtime.blocks.begin())
        return false;
    --after;
    return begin + bytes <= after->first + after->second;
}

bool mg_emu_is_device(const void *address) { return is_device_range(address, 1); }

cudaError_t cudaMalloc(void **out, size_t bytes) {
    if (!mg_emu_acquire())
        return cudaErrorMemoryAllocation;
    const size_t padded = (bytes + FENCE - 1) / FENCE * FENCE + 2 * FENCE;
    char *memory = (char *)aligned_alloc(FENCE, padded);
    if (padded <= MOST_FILLED)
        memset(memory, FENCE_BYTE, padded);
    memset(memory, FENCE_BYTE, FENCE);
    memset(memory + FENCE + bytes, FENCE_BYTE, FENCE);
    runtime.blocks[memory + FENCE] = bytes;
    *out = memory + FENCE;
    return cudaSuccess;
}

cudaError_t cudaFree(void *pointer) {
    const auto found = runtime.blocks.find((const char *)pointer);
    if (found == runtime.blocks.end())
        return cudaErrorInvalidValue;
    const unsigned char *memory = (const unsigned char *)pointer;
    bool whole = true;
    for (int i = 1; i <= FENCE; i++)
        whole = whole && memory[-i] == FENCE_BYTE && memory[found->second + (size_t)i - 1] == FENCE_BYTE;
    runtime.faults += !whole;
    runtime.blocks.erase(found);
    free((char *)pointer - FENCE);
    mg_emu_give_back();
    return cudaSuccess;
}

/* Anything that is only counted. */
template <class T> static cudaError_t acquire(T *out, size_t bytes = 1) {
    if (!mg_emu_acquire())
        return cudaErrorMemoryAllocation;
    *out = (T)malloc(bytes);
    return cudaSuccess;
}

static cudaError_t give_back(void *thing) {
    free(thing);
    mg_emu_give_back();
    return thing ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMallocHost(void **out, size_t bytes) { return acquire(out, bytes); }
cudaError_t cudaFreeHost(void *block) { return give_back(block); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned) { return acquire(out); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return give_back(stream); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) { return acquire(out); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return give_back(event); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return stream && !mg_emu_call_fails() ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
    return event && !mg_emu_call_fails() ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    return event && !mg_emu_call_fails() ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
    const bool up = kind == cudaMemcpyHostToDevice;
    if (mg_emu_call_fails() || !is_device_range(up ? to : from, bytes) || mg_emu_is_device(up ? from : to))
        return cudaErrorInvalidValue;
    memcpy(to, from, bytes);
    return cudaSuccess;
}
