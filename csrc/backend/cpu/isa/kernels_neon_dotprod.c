/* kernels_neon_dotprod.c: every kernel of the CPU backend compiled for NEON and dot products of bytes
 * (Armv8.2 and later). Reached only through the
 * table, after cpu_features.c has seen that the processor has these instructions. */
#if defined(__aarch64__)
#define MG_LANES 4
#define MG_VECTOR_REGISTERS 32
#define MG_HAS_NEON 1
#define MG_HAS_DOTPROD 1
#define MG_ISA neon_dotprod
#include "kernels.h"
#else
typedef int mg_no_kernels_here;
#endif
