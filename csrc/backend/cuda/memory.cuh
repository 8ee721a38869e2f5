/* memory.cuh: what cuda_backend.cu and memory.cu share. */
#ifndef MG_CUDA_MEMORY_CUH
#define MG_CUDA_MEMORY_CUH
#include "cuda.cuh"

enum { MG_CUDA_STAGING_BYTES = 8 << 20 };

extern const struct mg_device_memory mg_cuda_memory;
/* MG_ERR_DEVICE naming `what` unless status is cudaSuccess. */
mg_status mg_cuda_check(cudaError_t status, const char *what, struct mg_err *err);
#endif
