/* tensor_core.cuh: what needs PTX: tensor cores, loads of their operands from shared memory, asynchronous copies into it.
 * Included as <tensor_core.cuh> after cuda.cuh, so that tests/cuda_emu can put its own, plain definition in its place. */
#ifndef MG_TENSOR_CORE_CUH
#define MG_TENSOR_CORE_CUH
#include <stdint.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

/* ---- mma.sync ---- */
/* accumulator (16 x 8) += a (16 x 16) b (16 x 8) by one warp. Lane l holds, in pairs of neighbours along the 16 that are
 * summed over: a[0] row l/4, a[1] row l/4+8, elements l%4*2 of it; a[2], a[3] the same eight elements on; b[0] column
 * l/4, elements l%4*2, b[1] eight on; accumulator[0], [1] row l/4, columns l%4*2 and the next; [2], [3] row l/4+8. */
__device__ inline void mg_mma(float accumulator[4], const uint32_t a[4], const uint32_t b[2], __half) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(accumulator[0]), "+f"(accumulator[1]), "+f"(accumulator[2]), "+f"(accumulator[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
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

/* The same lanes and registers for words of one element each: accumulator (16 x 8) += a (16 x 8) b (8 x 8). a[0] row l/4,
 * a[1] row l/4+8, element l%4; a[2], a[3] four elements on; b[0] column l/4, element l%4, b[1] four on. Compute capability
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

/* ---- ldmatrix ---- */
/* Four 8 x 8 matrices of halves from shared memory (8 x 4 of words). Lanes 8i .. 8i+7 give the rows of matrix i, 16 bytes
 * each; lane l gets of each matrix row l/4, elements l%4*2 and the next: what mg_mma wants of rows of a and columns of b.
 * Transposed: elements l%4*2 and the next of column l/4. */
__device__ inline void mg_load_matrices(uint32_t out[4], const uint4 *row) {
    const uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}

__device__ inline void mg_load_matrices_transposed(uint32_t out[4], const uint4 *row) {
    const uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}

/* ---- cp.async ---- */
/* 16 bytes from global to shared memory, zeros unless `valid`; there when the thread has waited for its group of copies.
 * Before compute capability 8.0 at once. */
__device__ inline void mg_copy_async(uint4 *to, const void *from, bool valid) {
#if __CUDA_ARCH__ >= 800
    const uint32_t address = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(address), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
#else
    *to = valid ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
#endif
}

/* Ends a group of copies. */
__device__ inline void mg_commit_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Waits for all groups of this thread but the last PENDING. */
template <int PENDING> __device__ inline void mg_wait_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}
#endif
