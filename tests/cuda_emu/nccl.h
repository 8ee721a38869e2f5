/* nccl.h of the emulation: sums over processes of this machine, through a file that all of them map (nccl/nccl.cc). */
#ifndef MG_EMU_NCCL_H
#define MG_EMU_NCCL_H
#include <cuda_runtime.h>

enum ncclResult_t { ncclSuccess, ncclSystemError = 2, ncclInvalidArgument = 4 };
enum ncclDataType_t { ncclFloat32 = 7 };
enum ncclRedOp_t { ncclSum };
struct ncclUniqueId {
    char internal[128];
};
typedef struct mg_emu_communicator *ncclComm_t;

#pragma GCC visibility push(default)
extern "C" {
ncclResult_t ncclGetUniqueId(ncclUniqueId *out);
ncclResult_t ncclCommInitRank(ncclComm_t *out, int size, ncclUniqueId id, int rank);
ncclResult_t ncclAllReduce(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t communicator, cudaStream_t stream);
ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t *out);
ncclResult_t ncclCommAbort(ncclComm_t communicator);
const char *ncclGetErrorString(ncclResult_t result);
}
#pragma GCC visibility pop
#endif
