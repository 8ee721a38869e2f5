/* tensor_core.cuh: the products of tensor cores, in PTX. Included as
 * <tensor_core.cuh> after cuda.cuh, so that tests/cuda_emu can put its own, plain definition in its place. */
#ifndef MG_TENSOR_CORE_CUH
#define MG_TENSOR_CORE_CUH
#include <stdint.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

/* accumulator (16 x 8) += a (16 x 16) b (16 x 8) by one warp. Lane l holds, in pairs of neighbours along the 16 that are
 * summed over: a[0] row l/4, a[1] row l/4+8, elements l%4*2 of it; a[2], a[3] the same eight elements on; b[0] column
 * l/4, elements l%4*2, b[1] eight on; accumulator[0], accumulator[1] row l/4, columns l%4*2 and the next; accumulator[2], accumulator[3] row l/4+8. */
__device__ inline void mg_mma(float accumulator[4], const uint32_t a[4], const uint32_t b[2], __half) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(accumulator[0]), "+f"(accumulator[1]), "+f"(accumulator[2]), "+f"(accumulator[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    for (int half = 0; half < 2; half++)
        asm volatile(
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(accumulator[0]), "+f"(accumulator[1]), "+f"(accumulator[2]), "+f"(accumulator[3])
            : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}

/* Compute capability 8.0 and later; cuda_backend.cu refuses bfloat16 on earlier ones. */
__device__ inline void mg_mma(float accumulator[4], const uint32_t a[4], const uint32_t b[2], __nv_bfloat16) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(accumulator[0]), "+f"(accumulator[1]), "+f"(accumulator[2]), "+f"(accumulator[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    __trap();
#endif
}

/* The same lanes and registers for words of one element each: accumulator (16 x 8) += a (16 x 8) b (8 x 8). a[0] row l/4, a[1]
 * row l/4+8, element l%4; a[2], a[3] four elements on; b[0] column l/4, element l%4, b[1] four on. Compute capability
 * 8.0 and later; cuda_backend.cu leaves TF32 off on earlier ones. */
__device__ inline uint32_t mg_round_to_tf32(uint32_t bits) {
#if __CUDA_ARCH__ >= 800
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(__uint_as_float(bits)));
#endif
    return bits;
}

__device__ inline void mg_mma(float accumulator[4], const uint32_t a[4], const uint32_t b[2], mg_tf32) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(accumulator[0]), "+f"(accumulator[1]), "+f"(accumulator[2]), "+f"(accumulator[3])
                 : "r"(mg_round_to_tf32(a[0])), "r"(mg_round_to_tf32(a[1])), "r"(mg_round_to_tf32(a[2])),
                   "r"(mg_round_to_tf32(a[3])), "r"(mg_round_to_tf32(b[0])), "r"(mg_round_to_tf32(b[1])));
#else
    __trap();
#endif
}
#endif
