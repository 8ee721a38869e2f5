/* runtime.cc: the runtime's calls: memory with fences, streams whose work is done at once, devices that the tests make
 * up, and acquisitions that fail on request. */
#include <chrono>
#include <cstdlib>
#include <map>
#include <vector>

#include "emulator.h"

const char *mg_emu_launch_fault(); /* scheduler.cc */

/* Blocks are filled with NaN, but for very large ones, which would take longer than what uses them. */
constexpr int FENCE = 256, FENCE_BYTE = 0xff, MAX_FILLED = 16 << 20;

struct device_block {
    size_t bytes;
    int device;
};

static struct {
    std::map<const char *, struct device_block> blocks;
    int left = -1, calls_left = -1, held = 0, faults = 0, graph_launches = 0;
    int devices = 1, capability = 86, code = 1;
    size_t used = 0, most_used = 0, largest_block = 0; /* the last two: 0 for no limit */
    cudaStream_t captured = nullptr;
} runtime;

struct mg_emu_graph {
    std::vector<std::function<cudaError_t()>> work;
};
static thread_local int current_device = 0;

struct mg_emu_stream {
    int device = current_device;
    struct mg_emu_graph captured;
    bool was_asked; /* by cudaStreamQuery, in vain */
};

extern "C" void mg_emu_fail_after(int acquisitions) { runtime.left = acquisitions; }
extern "C" void mg_emu_fail_call_after(int calls) { runtime.calls_left = calls; }
extern "C" int mg_emu_is_failure_due(void) { return runtime.calls_left >= 0; }
extern "C" int mg_emu_held(void) { return runtime.held; }
extern "C" int mg_emu_faults(void) { return runtime.faults; }
extern "C" int mg_emu_graph_launches(void) { return runtime.graph_launches; }
extern "C" unsigned long long mg_emu_used_memory(void) { return runtime.used; }
extern "C" void mg_emu_set_memory(unsigned long long all, unsigned long long block) {
    runtime.most_used = all;
    runtime.largest_block = block;
}
extern "C" void mg_emu_set_device(int count, int capability) {
    current_device = 0;
    runtime.devices = count;
    runtime.capability = capability;
}

extern "C" void mg_emu_set_code(int there) { runtime.code = there; }
extern "C" void mg_emu_set_current_device(int device) { current_device = device; }
extern "C" int mg_emu_current_device(void) { return current_device; }

extern "C" int mg_emu_device_block(int number, void **address, unsigned long long *bytes) {
    if (number < 0 || (size_t)number >= runtime.blocks.size())
        return 0;
    const auto found = std::next(runtime.blocks.begin(), number);
    *address = (void *)found->first;
    *bytes = found->second.bytes;
    return 1;
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
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorNoKernelImageForDevice:
        return "no kernel image is available for execution on the device";
    case cudaErrorInvalidDeviceFunction:
        return "invalid device function";
    case cudaErrorInvalidResourceHandle:
        return "invalid resource handle";
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

cudaError_t cudaGetDevice(int *device) {
    *device = current_device;
    return mg_emu_call_fails() ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    if (mg_emu_call_fails() || device < 0 || device >= runtime.devices)
        return cudaErrorInvalidValue;
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *, void (*)()) {
    return mg_emu_call_fails() ? cudaErrorInvalidValue
           : runtime.code > 0  ? cudaSuccess
           : runtime.code      ? cudaErrorInvalidDeviceFunction
                               : cudaErrorNoKernelImageForDevice;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *all) {
    *all = runtime.most_used ? runtime.most_used : (size_t)1 << 30;
    *left = *all > runtime.used ? *all - runtime.used : 0;
    return cudaSuccess;
}

/* The block in which the whole range lies; nullptr if there is none. */
static const struct device_block *find_block(const void *address, size_t bytes) {
    const char *begin = (const char *)address;
    auto after = runtime.blocks.upper_bound(begin);
    if (after == runtime.blocks.begin())
        return nullptr;
    --after;
    return begin + bytes <= after->first + after->second.bytes ? &after->second : nullptr;
}

static bool is_device_range(const void *address, size_t bytes) { return find_block(address, bytes) != nullptr; }

bool mg_emu_is_device(const void *address) { return is_device_range(address, 1); }

bool mg_emu_is_memory_of(cudaStream_t stream, const void *address) {
    const struct device_block *block = find_block(address, 1);
    return block && block->device == stream->device;
}

cudaError_t cudaMalloc(void **out, size_t bytes) {
    if (runtime.captured)
        return cudaErrorStreamCaptureUnsupported;
    if ((runtime.most_used && runtime.used + bytes > runtime.most_used) ||
        (runtime.largest_block && bytes > runtime.largest_block) || !mg_emu_acquire())
        return cudaErrorMemoryAllocation;
    runtime.used += bytes;
    const size_t padded = (bytes + FENCE - 1) / FENCE * FENCE + 2 * FENCE;
    char *memory = (char *)aligned_alloc(FENCE, padded);
    if (padded <= MAX_FILLED)
        memset(memory, FENCE_BYTE, padded);
    memset(memory, FENCE_BYTE, FENCE);
    memset(memory + FENCE + bytes, FENCE_BYTE, FENCE);
    runtime.blocks[memory + FENCE] = {bytes, current_device};
    *out = memory + FENCE;
    return cudaSuccess;
}

cudaError_t cudaFree(void *pointer) {
    const auto found = runtime.blocks.find((const char *)pointer);
    if (runtime.captured)
        return cudaErrorStreamCaptureUnsupported;
    if (found == runtime.blocks.end())
        return cudaErrorInvalidValue;
    const size_t bytes = found->second.bytes;
    runtime.used -= bytes;
    const unsigned char *memory = (const unsigned char *)pointer;
    bool whole = true;
    for (int i = 1; i <= FENCE; i++)
        whole = whole && memory[-i] == FENCE_BYTE && memory[bytes + (size_t)i - 1] == FENCE_BYTE;
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
/* ---- streams and graphs ---- */
template <class T> static cudaError_t make(T **out) {
    if (!mg_emu_acquire())
        return cudaErrorMemoryAllocation;
    *out = new T();
    return cudaSuccess;
}

template <class T> static cudaError_t unmake(T *thing) {
    delete thing;
    mg_emu_give_back();
    return thing ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned) { return make(out); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return unmake(stream); }

cudaError_t mg_emu_submit(cudaStream_t stream, std::function<cudaError_t()> work) {
    if (mg_emu_call_fails() || !stream)
        return cudaErrorInvalidValue;
    if (stream->device != current_device)
        return cudaErrorInvalidResourceHandle;
    if (runtime.captured != stream)
        return work();
    stream->captured.work.push_back(std::move(work));
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    if (mg_emu_call_fails() || !stream || runtime.captured)
        return cudaErrorInvalidValue;
    runtime.captured = stream;
    stream->captured.work.clear();
    return cudaSuccess;
}

/* A capture ends in any case, as with CUDA. */
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
    const bool captured = runtime.captured == stream;
    runtime.captured = nullptr;
    if (mg_emu_call_fails() || !captured)
        return cudaErrorInvalidValue;
    const cudaError_t status = make(out);
    if (status == cudaSuccess)
        **out = stream->captured;
    return status;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
    const cudaError_t status = mg_emu_call_fails() ? cudaErrorInvalidValue : make(out);
    if (status == cudaSuccess)
        **out = *graph;
    return status;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return unmake(graph); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return unmake(graph); }

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    if (mg_emu_call_fails() || !stream || runtime.captured)
        return cudaErrorInvalidValue;
    runtime.graph_launches++;
    for (const auto &work : graph->work) {
        const cudaError_t status = work();
        if (status != cudaSuccess)
            return status;
    }
    return cudaSuccess;
}

/* ---- events, waiting, copies: not in a graph ---- */
struct mg_emu_event {
    std::chrono::steady_clock::time_point recorded;
};

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) { return make(out); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return unmake(event); }

/* Every other question comes too early: whoever waits must ask again, and do meanwhile what it does while it waits. */
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    const cudaError_t state = cudaStreamSynchronize(stream);
    if (state != cudaSuccess)
        return state;
    stream->was_asked = !stream->was_asked;
    return stream->was_asked ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return runtime.captured                 ? cudaErrorStreamCaptureUnsupported
           : stream && !mg_emu_call_fails() ? cudaSuccess
                                            : cudaErrorInvalidValue;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
    if (!event || mg_emu_call_fails())
        return cudaErrorInvalidValue;
    event->recorded = std::chrono::steady_clock::now();
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    if (mg_emu_call_fails())
        return cudaErrorInvalidValue;
    *milliseconds = std::chrono::duration<float, std::milli>(end->recorded - begin->recorded).count();
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    return event && !mg_emu_call_fails() ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
    const bool up = kind == cudaMemcpyHostToDevice;
    if (runtime.captured)
        return cudaErrorStreamCaptureUnsupported;
    if (mg_emu_call_fails() || !is_device_range(up ? to : from, bytes) || mg_emu_is_device(up ? from : to))
        return cudaErrorInvalidValue;
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t) {
    if (mg_emu_call_fails() || runtime.captured || !is_device_range(to, bytes))
        return cudaErrorInvalidValue;
    memset(to, value, bytes);
    return cudaSuccess;
}
