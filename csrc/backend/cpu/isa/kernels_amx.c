/* kernels_amx.c: every kernel of the CPU backend compiled for AVX-512 F, VL, BW, DQ, VNNI and BF16, and AMX with BF16 and
 * INT8. Reached only through the table, after cpu_features.c has seen that the processor has these instructions, and been
 * granted the tiles by the operating system. */
#if defined(__x86_64__)
#define MG_LANES 16
#define MG_VECTOR_REGISTERS 32
#define MG_HAS_AVX512 1
#define MG_HAS_AVX512VNNI 1
#define MG_HAS_AVX512BF16 1
#define MG_HAS_AMX 1
#define MG_ISA amx
#include "kernels.h"
#else
typedef int mg_no_kernels_here;
#endif
