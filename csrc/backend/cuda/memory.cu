/* memory.cu: memory of the device and copies to and from it.
 *
 * Uploads go through pinned memory, in pieces, so that one piece is copied while the next is read from the file. */
#include "device.cuh"

mg_status mg_cuda_check(cudaError_t status, const char *what, struct mg_err *err) {
    if (status == cudaSuccess)
        return MG_OK;
    return mg_fail(err, MG_ERR_DEVICE, "the GPU failed in %s: %s", what, cudaGetErrorString(status));
}

static mg_status device_alloc(void **out, const struct mg_context *context, size_t bytes, const char *what,
                              struct mg_err *err) {
    size_t left = 0, all = 0;
    *out = NULL;
    MG_CUDA_USE_DEVICE(mg_cuda_state_of(context)->device, err);
    const cudaError_t status = cudaMalloc(out, bytes ? bytes : 1);
    if (status != cudaErrorMemoryAllocation)
        return mg_cuda_check(status, "cudaMalloc", err);
    (void)cudaGetLastError(); /* the error is not to be found again by a later launch */
    MG_TRY(mg_cuda_check(cudaMemGetInfo(&left, &all), "cudaMemGetInfo", err));
    return mg_fail(err, MG_ERR_MEMORY, "no memory on the GPU for %s: %zu bytes; %zu of %zu are free", what, bytes, left,
                   all);
}

/* Waits first: a run that was stopped has left kernels under way. A block that cannot be freed belongs to a context that
 * is lost. */
static void device_free(const struct mg_context *context, void *block) {
    const struct mg_cuda_state *state = mg_cuda_state_of(context);
    const struct mg_cuda_device_guard guard(state->device);
    bool failed = guard.status != cudaSuccess;
    failed |= cudaStreamSynchronize(state->stream) != cudaSuccess;
    failed |= cudaFree(block) != cudaSuccess;
    if (failed)
        (void)cudaGetLastError();
}

static mg_status upload_piece(struct mg_cuda_state *state, char *device, const char *host, size_t bytes,
                              struct mg_err *err) {
    const int slot = state->next_staging;
    MG_TRY(mg_cuda_check(cudaEventSynchronize(state->staged[slot]), "cudaEventSynchronize", err));
    memcpy(state->staging[slot], host, bytes);
    MG_TRY(mg_cuda_check(cudaMemcpyAsync(device, state->staging[slot], bytes, cudaMemcpyHostToDevice, state->stream),
                         "an upload", err));
    MG_TRY(mg_cuda_check(cudaEventRecord(state->staged[slot], state->stream), "cudaEventRecord", err));
    state->next_staging = (slot + 1) % MG_CUDA_STAGING;
    return MG_OK;
}

static mg_status upload(const struct mg_context *context, void *device, const void *host, size_t bytes,
                        struct mg_err *err) {
    struct mg_cuda_state *state = mg_cuda_state_of(context);
    MG_CUDA_USE_DEVICE(state->device, err);
    for (size_t done = 0; done < bytes; done += MG_CUDA_STAGING_BYTES) {
        const size_t left = bytes - done, most = MG_CUDA_STAGING_BYTES, piece = left < most ? left : most;
        MG_TRY(upload_piece(state, (char *)device + done, (const char *)host + done, piece, err));
    }
    return MG_OK;
}

static mg_status download(const struct mg_context *context, void *host, const void *device, size_t bytes,
                          struct mg_err *err) {
    struct mg_cuda_state *state = mg_cuda_state_of(context);
    MG_CUDA_USE_DEVICE(state->device, err);
    MG_TRY(
        mg_cuda_check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, state->stream), "a download", err));
    return mg_cuda_check(cudaStreamSynchronize(state->stream), "a download", err);
}

static mg_status clear(const struct mg_context *context, void *device, size_t bytes, struct mg_err *err) {
    struct mg_cuda_state *state = mg_cuda_state_of(context);
    MG_CUDA_USE_DEVICE(state->device, err);
    return mg_cuda_check(cudaMemsetAsync(device, 0, bytes, state->stream), "cudaMemset", err);
}

static mg_status available(size_t *bytes, const struct mg_context *context, struct mg_err *err) {
    size_t all = 0;
    MG_CUDA_USE_DEVICE(mg_cuda_state_of(context)->device, err);
    return mg_cuda_check(cudaMemGetInfo(bytes, &all), "cudaMemGetInfo", err);
}

const struct mg_device_memory mg_cuda_memory = {
    .alloc = device_alloc,
    .free = device_free,
    .upload = upload,
    .download = download,
    .clear = clear,
    .available = available,
};
