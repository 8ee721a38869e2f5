/* kernels_neon_bf16.c: every kernel of the CPU backend compiled for NEON, dot products of bytes,
 * and bfloat16 (Armv8.6 and later). Reached only through the
 * table, after cpu_features.c has seen that the processor has these instructions. */
#if defined(__aarch64__)
#define MG_LANES 4
#define MG_VECTOR_REGISTERS 32
#define MG_HAS_NEON 1
#define MG_HAS_DOTPROD 1
#define MG_HAS_BF16 1
#define MG_ISA neon_bf16
#include "kernels.h"
#else
typedef int mg_no_kernels_here;
#endif
