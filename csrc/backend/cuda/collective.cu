/* collective.cu: sums over the GPUs of several processes, by NCCL, a library that is loaded on request: a single process
 * needs none.  */
#include "device.cuh"

#ifdef MG_CUDA_NCCL
#include <dlfcn.h>
#include <nccl.h>
#include <unistd.h>

static_assert(sizeof(ncclUniqueId) == MG_GROUP_NAME, "the name of a group is NCCL's");
constexpr int NAP_MICROSECONDS = 50;

/* The functions of NCCL that are used, each under its name without "nccl". */
#define NCCL_FUNCTIONS(X)                                                                                              \
    X(GetUniqueId) X(CommInitRank) X(AllReduce) X(CommGetAsyncError) X(CommAbort) X(GetErrorString)

struct nccl {
#define X(name) decltype(&nccl##name) name;
    NCCL_FUNCTIONS(X)
#undef X
};

struct group {
    struct nccl nccl;
    ncclComm_t communicator;
};

static mg_status load(struct nccl *out, struct mg_err *err) {
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library)
        return mg_fail(err, MG_ERR_DEVICE, "sums over several GPUs need NCCL: %s; pip install 'marigold-c[nccl]'",
                       dlerror());
#define X(name) out->name = (decltype(&nccl##name))dlsym(library, "nccl" #name);
    NCCL_FUNCTIONS(X)
#undef X
#define X(name) &&out->name
    const bool whole = true NCCL_FUNCTIONS(X);
#undef X
    dlclose(library);
    return whole ? MG_OK : mg_fail(err, MG_ERR_DEVICE, "libnccl.so.2 is of a version without what is needed of it");
}

static mg_status check(const struct nccl *nccl, ncclResult_t result, const char *what, struct mg_err *err) {
    return result == ncclSuccess
               ? MG_OK
               : mg_fail(err, MG_ERR_DEVICE, "NCCL failed in %s: %s", what, nccl->GetErrorString(result));
}

mg_status mg_cuda_group_name(char name[MG_GROUP_NAME], struct mg_err *err) {
    struct nccl nccl;
    ncclUniqueId id;
    MG_TRY(load(&nccl, err));
    MG_TRY(check(&nccl, nccl.GetUniqueId(&id), "ncclGetUniqueId", err));
    memcpy(name, &id, sizeof id);
    return MG_OK;
}

mg_status mg_cuda_join(void **out, const struct mg_context *context, const char name[MG_GROUP_NAME], int rank, int size,
                       struct mg_err *err) {
    struct group *group;
    void *block;
    ncclUniqueId id;
    mg_status status;
    *out = NULL;
    memcpy(&id, name, sizeof id);
    MG_CUDA_USE_DEVICE(mg_cuda_state_of(context)->device, err);
    MG_TRY(mg_alloc_zeroed(&block, sizeof *group, "a group of processes", err));
    group = (struct group *)block;
    MG_TRY_GOTO(load(&group->nccl, err));
    MG_TRY_GOTO(
        check(&group->nccl, group->nccl.CommInitRank(&group->communicator, size, id, rank), "ncclCommInitRank", err));
    *out = group;
done:
    if (status != MG_OK)
        mg_free(group);
    return status;
}

/* Waits for the sum and looks at both ends meanwhile: at NCCL, for a process that is lost (which it notices over a network;
 * on one machine the launcher must end the others), and at the caller, who may want to stop. */
static mg_status wait(const struct mg_context *context, const struct group *group, struct mg_err *err) {
    for (;;) {
        const cudaError_t state = cudaStreamQuery(mg_cuda_state_of(context)->stream);
        ncclResult_t failure = ncclSuccess;
        if (state != cudaErrorNotReady)
            return mg_cuda_check(state, "ncclAllReduce", err);
        MG_TRY(check(&group->nccl, group->nccl.CommGetAsyncError(group->communicator, &failure),
                     "ncclCommGetAsyncError", err));
        MG_TRY(check(&group->nccl, failure, "ncclAllReduce", err));
        MG_TRY(mg_context_poll(context, err));
        usleep(NAP_MICROSECONDS);
    }
}

mg_status mg_cuda_sum(const struct mg_context *context, void *group, float *x, int64_t count, struct mg_err *err) {
    const struct group *g = (const struct group *)group;
    MG_CUDA_USE_DEVICE(mg_cuda_state_of(context)->device, err);
    MG_TRY(check(&g->nccl,
                 g->nccl.AllReduce(x, x, (size_t)count, ncclFloat32, ncclSum, g->communicator,
                                   mg_cuda_state_of(context)->stream),
                 "ncclAllReduce", err));
    return wait(context, g, err);
}

/* Without waiting for the others, who may be gone: nothing is under way where all is well. */
void mg_cuda_leave(const struct mg_context *context, void *group) {
    struct group *g = (struct group *)group;
    const struct mg_cuda_device_guard guard(mg_cuda_state_of(context)->device);
    if (guard.status != cudaSuccess)
        (void)cudaGetLastError();
    (void)g->nccl.CommAbort(g->communicator);
    mg_free(g);
}

#else
mg_status mg_cuda_group_name(char[MG_GROUP_NAME], struct mg_err *err) {
    return mg_fail(err, MG_ERR_DEVICE,
                   "the CUDA backend was built without NCCL, which sums over several GPUs: install "
                   "nvidia-nccl-cu13 and build it again");
}

mg_status mg_cuda_join(void **, const struct mg_context *, const char[MG_GROUP_NAME], int, int, struct mg_err *err) {
    return mg_cuda_group_name(NULL, err);
}

mg_status mg_cuda_sum(const struct mg_context *, void *, float *, int64_t, struct mg_err *err) {
    return mg_cuda_group_name(NULL, err);
}

void mg_cuda_leave(const struct mg_context *, void *) {}
#endif
