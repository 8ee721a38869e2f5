/* kernels_neon.c: every kernel of the CPU backend compiled for NEON, which every aarch64 processor has: products by the
 * instructions that take an operand from a lane. Reached only through the table. */
#if defined(__aarch64__)
#define MG_LANES 4
#define MG_VECTOR_REGISTERS 32
#define MG_HAS_NEON 1
#define MG_ISA neon
#include "kernels.h"
#else
typedef int mg_no_kernels_here;
#endif
