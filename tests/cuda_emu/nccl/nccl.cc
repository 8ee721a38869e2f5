/* nccl.cc: the sums of nccl.h, a library of its own as NCCL is. Every process has a place in a mapped file; all write
 * theirs, wait for each other, add up in the order of their ranks, and wait again. */
#include <nccl.h>

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>

enum { PART = 1 << 16, PATIENCE = 60, BEGIN = 4096 }; /* numbers summed at a time; seconds; bytes before the places */

/* At the beginning of the file, whose zeros are the right ones to begin with. */
struct shared {
    std::atomic<unsigned> arrived, turn;
};

struct mg_emu_communicator {
    int rank, size;
    size_t bytes;
    struct shared *shared;
    float *places; /* (size, PART) */
    char path[sizeof(ncclUniqueId)];
};

const char *ncclGetErrorString(ncclResult_t result) {
    return result == ncclInvalidArgument ? "invalid argument" : "unhandled system error";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *out) {
    snprintf(out->internal, sizeof out->internal, "/tmp/mg_emu_nccl_XXXXXX");
    const int file = mkstemp(out->internal);
    if (file < 0)
        return ncclSystemError;
    close(file);
    return ncclSuccess;
}

/* False if a process does not come in time. */
static bool meet(struct mg_emu_communicator *c) {
    const unsigned turn = c->shared->turn;
    const time_t begin = time(nullptr);
    if (++c->shared->arrived == (unsigned)c->size) {
        c->shared->arrived = 0;
        c->shared->turn++;
        return true;
    }
    while (c->shared->turn == turn) {
        if (time(nullptr) - begin > PATIENCE)
            return false;
        sched_yield();
    }
    return true;
}

ncclResult_t ncclCommInitRank(ncclComm_t *out, int size, ncclUniqueId id, int rank) {
    const size_t bytes = BEGIN + (size_t)size * PART * sizeof(float);
    const int file = open(id.internal, O_RDWR);
    void *memory = MAP_FAILED;
    if (file < 0)
        return ncclInvalidArgument;
    if (rank >= 0 && rank < size && ftruncate(file, (off_t)bytes) == 0)
        memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED)
        return ncclInvalidArgument;
    struct mg_emu_communicator *c = new mg_emu_communicator();
    c->rank = rank;
    c->size = size;
    c->bytes = bytes;
    c->shared = (struct shared *)memory;
    c->places = (float *)((char *)memory + BEGIN);
    memcpy(c->path, id.internal, sizeof c->path);
    *out = c;
    return meet(c) ? ncclSuccess : ncclSystemError;
}

ncclResult_t ncclAllReduce(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t c, cudaStream_t stream) {
    if (type != ncclFloat32 || operation != ncclSum || !stream)
        return ncclInvalidArgument;
    for (size_t begin = 0; begin < count; begin += PART) {
        const size_t part = std::min(count - begin, (size_t)PART);
        memcpy(c->places + (size_t)c->rank * PART, (const float *)in + begin, part * sizeof(float));
        if (!meet(c))
            return ncclSystemError;
        for (size_t i = 0; i < part; i++) {
            float sum = 0.0f;
            for (int rank = 0; rank < c->size; rank++)
                sum += c->places[(size_t)rank * PART + i];
            ((float *)out)[begin + i] = sum;
        }
        if (!meet(c))
            return ncclSystemError;
    }
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t *out) {
    *out = ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t c) {
    munmap(c->shared, c->bytes);
    unlink(c->path);
    delete c;
    return ncclSuccess;
}
