/* kernels_neon_i8mm.c: every kernel of the CPU backend compiled for NEON, dot products of bytes,
 * bfloat16, and matrix products of bytes (Armv8.6 and later). Reached only through the
 * table, after cpu_features.c has seen that the processor has these instructions. */
#if defined(__aarch64__)
#define MG_LANES 4
#define MG_VECTOR_REGISTERS 32
#define MG_HAS_NEON 1
#define MG_HAS_DOTPROD 1
#define MG_HAS_BF16 1
#define MG_HAS_I8MM 1
#define MG_ISA neon_i8mm
#include "kernels.h"
#else
typedef int mg_no_kernels_here;
#endif
