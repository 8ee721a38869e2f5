/* cuda_backend.cu: a GPU as a backend: opens a device, hands each operation to its driver in ops/, tells what failed.
 * In a shared object that
 * backend/library.c opens. */
#include <stdio.h>
#include <stdlib.h>

#include "device.cuh"

extern "C" {
#include "../library.h"
}

constexpr int MIN_CAPABILITY = 75, MIN_FOR_BFLOAT16 = 80;

static const struct mg_cuda_driver *const drivers[MG_OP_COUNT] = {
#define MG_OP(ID, name, inputs, required, alias, meaning) &mg_cuda_##name,
#include "../../op/ops.def"
#undef MG_OP
};

static const char *const operation_names[MG_OP_COUNT] = {
#define MG_OP(ID, name, inputs, required, alias, meaning) #name,
#include "../../op/ops.def"
#undef MG_OP
};

/* ---- faults ---- */
static void note(struct mg_cuda_state *state, mg_status fault, const char *what, const char *text) {
    if (state->fault != MG_OK)
        return;
    state->fault = fault;
    snprintf(state->fault_text, sizeof state->fault_text, "the GPU failed in %s (%s): %s", state->running, what, text);
}

void mg_cuda_note(struct mg_cuda_state *state, cudaError_t status, const char *what) {
    if (status != cudaSuccess)
        note(state, status == cudaErrorMemoryAllocation ? MG_ERR_MEMORY : MG_ERR_DEVICE, what,
             cudaGetErrorString(status));
}

void mg_cuda_note_blas(struct mg_cuda_state *state, cublasStatus_t status, const char *what) {
    if (status != CUBLAS_STATUS_SUCCESS)
        note(state, status == CUBLAS_STATUS_ALLOC_FAILED ? MG_ERR_MEMORY : MG_ERR_DEVICE, what,
             cublasLtGetStatusString(status));
}

mg_status mg_cuda_tell(struct mg_cuda_state *state, struct mg_err *err) {
    const mg_status fault = state->fault;
    state->fault = MG_OK;
    return fault == MG_OK ? MG_OK : mg_fail(err, fault, "%s", state->fault_text);
}

static mg_status cuda_finish(const struct mg_context *context, struct mg_err *err) {
    struct mg_cuda_state *state = mg_cuda_state_of(context);
    const struct mg_cuda_device_guard guard(state->device);
    mg_cuda_note(state, guard.status, "cudaSetDevice");
    mg_cuda_note(state, cudaStreamSynchronize(state->stream), "or before it");
    return mg_cuda_tell(state, err);
}

/* ---- opening ---- */
/* Is there code for a device? */
__global__ void probe_kernel() {}

static mg_status find_device(int device, struct mg_err *err) {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaErrorInsufficientDriver)
        return mg_fail(err, MG_ERR_DEVICE,
                       "device \"cuda\": no NVIDIA driver, or one too old for CUDA %d (libcuda.so.1): %s",
                       CUDART_VERSION / 1000, cudaGetErrorString(status));
    if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0))
        return mg_fail(err, MG_ERR_DEVICE, "device \"cuda\": the driver finds no NVIDIA GPU");
    MG_TRY(mg_cuda_check(status, "cudaGetDeviceCount", err));
    if (device >= count)
        return mg_fail(err, MG_ERR_DEVICE, "device \"cuda:%d\": there are %d GPUs, the last is \"cuda:%d\"", device,
                       count, count - 1);
    return MG_OK;
}

static mg_status check_code(const struct mg_cuda_state *state, struct mg_err *err) {
    struct cudaFuncAttributes attributes;
    const cudaError_t status = cudaFuncGetAttributes(&attributes, probe_kernel);
    /* All three mean it: which one, depends on the driver and on what code there is for other devices. */
    if (status != cudaErrorNoKernelImageForDevice && status != cudaErrorInvalidDeviceFunction &&
        status != cudaErrorUnsupportedPtxVersion)
        return mg_cuda_check(status, "cudaFuncGetAttributes", err);
    (void)cudaGetLastError();
    return mg_fail(
        err, MG_ERR_DEVICE,
        "device \"cuda:%d\" has compute capability %d.%d, for which the backend was not built (%s): build it "
        "with MARIGOLD_CUDA_ARCHITECTURES=%d",
        state->device, state->capability / 10, state->capability % 10, cudaGetErrorString(status), state->capability);
}

static mg_status check_capability(struct mg_cuda_state *state, struct mg_err *err) {
    int major = 0, minor = 0;
    MG_TRY(mg_cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, state->device),
                         "cudaDeviceGetAttribute", err));
    MG_TRY(mg_cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, state->device),
                         "cudaDeviceGetAttribute", err));
    state->capability = 10 * major + minor;
    state->tf32 = state->tf32 && state->capability >= MIN_FOR_BFLOAT16; /* both came with the same tensor cores */
    snprintf(state->isa, sizeof state->isa, "sm_%d%s", state->capability, state->tf32 ? "+tf32" : "");
    if (state->capability < MIN_CAPABILITY)
        return mg_fail(err, MG_ERR_DEVICE,
                       "device \"cuda:%d\" has compute capability %d.%d; the backend is built for 7.5 and later",
                       state->device, major, minor);
    return check_code(state, err);
}

static mg_status create_handles(struct mg_cuda_state *state, struct mg_err *err) {
    MG_TRY(mg_cuda_check(cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking), "cudaStreamCreate", err));
    const cublasStatus_t status = cublasLtCreate(&state->blas);
    if (status != CUBLAS_STATUS_SUCCESS)
        return mg_fail(err, MG_ERR_DEVICE, "cuBLASLt cannot be started: %s", cublasLtGetStatusString(status));
    MG_TRY(mg_cuda_check(cudaMalloc(&state->blas_workspace, MG_CUDA_BLAS_WORKSPACE), "cudaMalloc", err));
    for (int i = 0; i < MG_CUDA_STAGING; i++) {
        MG_TRY(mg_cuda_check(cudaMallocHost(&state->staging[i], MG_CUDA_STAGING_BYTES), "cudaMallocHost", err));
        MG_TRY(
            mg_cuda_check(cudaEventCreateWithFlags(&state->staged[i], cudaEventDisableTiming), "cudaEventCreate", err));
    }
    return MG_OK;
}

/* Whatever of it there is; what cannot be given back belongs to a device that is lost. */
static void destroy(struct mg_cuda_state *state) {
    const struct mg_cuda_device_guard guard(state->device);
    bool failed = guard.status != cudaSuccess;
    if (state->stream)
        failed |= cudaStreamSynchronize(state->stream) != cudaSuccess;
    for (int i = 0; i < MG_CUDA_STAGING; i++) {
        if (state->staged[i])
            failed |= cudaEventDestroy(state->staged[i]) != cudaSuccess;
        if (state->staging[i])
            failed |= cudaFreeHost(state->staging[i]) != cudaSuccess;
    }
    failed |= !mg_cuda_close_times(state);
    if (state->blas_workspace)
        failed |= cudaFree(state->blas_workspace) != cudaSuccess;
    if (state->blas)
        failed |= cublasLtDestroy(state->blas) != CUBLAS_STATUS_SUCCESS;
    if (state->stream)
        failed |= cudaStreamDestroy(state->stream) != cudaSuccess;
    if (failed)
        (void)cudaGetLastError();
    mg_free(state);
}

static bool is_set(const char *variable, const char *value) {
    const char *found = getenv(variable);
    return found && !strcmp(found, value);
}

/* `isa` "tf32" lets float32 products be rounded to TF32; a processor's instruction sets mean nothing here.
 * MARIGOLD_CUDA_GRAPHS=0 launches kernels one by one, and so do times of operations. */
static mg_status cuda_open(struct mg_context *context, const char *isa, struct mg_err *err) {
    const char *graphs = getenv("MARIGOLD_CUDA_GRAPHS");
    struct mg_cuda_state *state;
    void *block;
    mg_status status;
    MG_TRY(find_device(context->device, err));
    MG_CUDA_USE_DEVICE(context->device, err);
    MG_TRY(mg_alloc_zeroed(&block, sizeof *state, "the state of a GPU", err));
    state = (struct mg_cuda_state *)block;
    state->device = context->device;
    state->running = "opening";
    state->tf32 = isa && !strcmp(isa, "tf32");
    state->graphs = !graphs || strcmp(graphs, "0") != 0;
    state->narrow_tiles = is_set("MARIGOLD_CUDA_CONV2D_TILE", "narrow");
    state->wide_tiles = is_set("MARIGOLD_CUDA_CONV2D_TILE", "wide");
    state->tiled_attention = is_set("MARIGOLD_CUDA_ATTENTION", "tiled");
    MG_TRY_GOTO(check_capability(state, err));
    MG_TRY_GOTO(create_handles(state, err));
    MG_TRY_GOTO(mg_cuda_open_times(state, err));
    state->graphs = state->graphs && !state->times;
    context->backend_state = state;
    context->memory = &mg_cuda_memory;
    context->isa = state->isa;
done:
    if (status != MG_OK)
        destroy(state);
    return status;
}

static void cuda_close(struct mg_context *context) {
    if (context->backend_state)
        destroy(mg_cuda_state_of(context));
    context->backend_state = NULL;
    context->memory = NULL;
}

static mg_status cuda_check_type(const struct mg_context *context, mg_dtype activations, struct mg_err *err) {
    const int capability = mg_cuda_state_of(context)->capability;
    if (activations == MG_BF16 && capability < MIN_FOR_BFLOAT16)
        return mg_fail(err, MG_ERR_DEVICE,
                       "dtype \"bfloat16\" needs a GPU of compute capability 8.0; \"cuda:%d\" has %d.%d: use "
                       "\"float16\" or \"float32\"",
                       context->device, capability / 10, capability % 10);
    return MG_OK;
}

/* ---- operations ---- */
static bool has_filter(mg_op_kind kind) {
    return kind == MG_OP_CONV2D || kind == MG_OP_LINEAR || kind == MG_OP_CONV2D_INPUT_GRADIENT ||
           kind == MG_OP_LINEAR_INPUT_GRADIENT;
}

/* Filters in whole chunks (see cuda.cuh). What is stored so is used as it is. */
static struct mg_weight_layout cuda_weight_layout(const struct mg_context *context, const struct mg_op_shape *op,
                                                  int slot) {
    (void)context;
    if (slot != 1 || !has_filter(op->kind))
        return {};
    const struct mg_tensor *weight = &op->in[1];
    const mg_dtype dtype = op->in[0].dtype;
    const bool window = weight->ndim == 4 && weight->dim[2] * weight->dim[3] > 1;
    if (dtype == MG_F32 && !window && mg_cuda_padded(weight->dim[1], dtype) == weight->dim[1])
        return {};
    return {1, mg_cuda_chunk_elements(dtype), dtype};
}

static size_t cuda_workspace_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    (void)context;
    const struct mg_cuda_driver *driver = drivers[op->kind];
    return driver->workspace_bytes ? driver->workspace_bytes(op) : 0;
}

/* After a fault the rest of a run is not worth launching. */
static void cuda_run(const struct mg_context *context, const struct mg_op_call *call) {
    struct mg_cuda_state *state = mg_cuda_state_of(context);
    if (state->fault != MG_OK)
        return;
    state->running = operation_names[call->op->kind];
    const struct mg_cuda_device_guard guard(state->device);
    mg_cuda_note(state, guard.status, "cudaSetDevice");
    if (state->times)
        mg_cuda_begin_time(state);
    drivers[call->op->kind]->run(state, call);
    if (state->times)
        mg_cuda_end_time(state, call->op);
}

static const struct mg_backend backend = {
    .name = "cuda",
    .trains = true,
    .fuses_attention_gradient = true,
    .open = cuda_open,
    .close = cuda_close,
    .check_type = cuda_check_type,
    .weight_layout = cuda_weight_layout,
    .workspace_bytes = cuda_workspace_bytes,
    .trailing_gap = NULL, /* blocks run in no order */
    .run = cuda_run,
    .finish = cuda_finish,
    .record = mg_cuda_record,
    .recorded = mg_cuda_recorded,
    .replay = mg_cuda_replay,
    .forget = mg_cuda_forget,
    .measure = NULL,
    .adam = mg_cuda_adam,
    .sum_of_squares = mg_cuda_sum_of_squares,
    .average = mg_cuda_average,
    .round_weight = mg_cuda_round_weight,
    .group_name = mg_cuda_group_name,
    .join = mg_cuda_join,
    .sum = mg_cuda_sum,
    .leave = mg_cuda_leave,
};

extern "C" __attribute__((visibility("default")))
const struct mg_backend_library mg_backend_library = {mg_operations, MG_BACKEND_LAYOUT, &backend};
