/* device.cuh: the state of a context, its device made current for a while, and the entries of the backend's table that
 * live in files of their own. */
#ifndef MG_CUDA_DEVICE_CUH
#define MG_CUDA_DEVICE_CUH
#include "cuda.cuh"

constexpr int MG_CUDA_STAGING_BYTES = 8 << 20;

static inline struct mg_cuda_state *mg_cuda_state_of(const struct mg_context *context) {
    return (struct mg_cuda_state *)context->backend_state;
}

extern const struct mg_device_memory mg_cuda_memory;

/* Makes a device the current one of this thread, and the caller's device current again at the end of its scope: other
 * libraries of the process, such as PyTorch, allocate on the current device. */
struct mg_cuda_device_guard {
    int callers, device;
    cudaError_t status; /* of making the device current */

    explicit mg_cuda_device_guard(int device) : callers(device), device(device), status(cudaGetDevice(&callers)) {
        if (status == cudaSuccess && callers != device)
            status = cudaSetDevice(device);
    }
    /* What fails here cannot be told; the device of the caller is then lost, as its next call says. */
    ~mg_cuda_device_guard() {
        if (callers != device && cudaSetDevice(callers) != cudaSuccess)
            (void)cudaGetLastError();
    }
    mg_cuda_device_guard(const mg_cuda_device_guard &) = delete;
    mg_cuda_device_guard &operator=(const mg_cuda_device_guard &) = delete;
};
/* At the beginning of an entry that returns a status. */
#define MG_CUDA_USE_DEVICE(number, err)                                                                                \
    const struct mg_cuda_device_guard device_guard_(number);                                                           \
    MG_TRY(mg_cuda_check(device_guard_.status, "cudaSetDevice", err))

/* The first fault noted since the last call, if there was one. */
mg_status mg_cuda_tell(struct mg_cuda_state *state, struct mg_err *err);
/* MG_ERR_DEVICE naming `what` unless status is cudaSuccess. */
mg_status mg_cuda_check(cudaError_t status, const char *what, struct mg_err *err);

/* operation_times.cu. Opens the file and makes the events, if times are asked for. */
mg_status mg_cuda_open_times(struct mg_cuda_state *state, struct mg_err *err);
/* Whatever of them there is; false if something could not be given back. */
bool mg_cuda_close_times(struct mg_cuda_state *state);
/* Before and after an operation's launches. The second waits until the GPU has done them. */
void mg_cuda_begin_time(struct mg_cuda_state *state);
void mg_cuda_end_time(struct mg_cuda_state *state, const struct mg_op_shape *op);

/* recording.cu: as backend.h says */
mg_status mg_cuda_record(bool *begun, const struct mg_context *context, struct mg_err *err);
mg_status mg_cuda_recorded(void **recording, const struct mg_context *context, struct mg_err *err);
void mg_cuda_replay(const struct mg_context *context, void *recording);
void mg_cuda_forget(const struct mg_context *context, void *recording);

/* optimizer.cu: likewise */
void mg_cuda_adam(const struct mg_context *context, float *weight, float *gradient, float *m, float *v, int64_t count,
                  const struct mg_adam *params);
double mg_cuda_sum_of_squares(const struct mg_context *context, const float *x, int64_t count);
void mg_cuda_average(const struct mg_context *context, float *average, const float *x, int64_t count, float keep,
                     float take);
void mg_cuda_round_weight(const struct mg_context *context, void *out, struct mg_weight_layout layout,
                          const struct mg_tensor *shape, const float *master);

/* collective.cu: likewise */
mg_status mg_cuda_group_name(char name[MG_GROUP_NAME], struct mg_err *err);
mg_status mg_cuda_join(void **out, const struct mg_context *context, const char name[MG_GROUP_NAME], int rank, int size,
                       struct mg_err *err);
mg_status mg_cuda_sum(const struct mg_context *context, void *group, float *x, int64_t count, struct mg_err *err);
void mg_cuda_leave(const struct mg_context *context, void *group);
#endif
