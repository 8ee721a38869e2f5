/* kernels_avx512vnni.c: every kernel of the CPU backend compiled for AVX-512 F, VL, BW, DQ and VNNI. Reached only
 * through the table, after cpu_features.c has seen that the processor has these instructions. */
#if defined(__x86_64__)
#define MG_LANES 16
#define MG_VECTOR_REGISTERS 32
#define MG_HAS_AVX512 1
#define MG_HAS_AVX512VNNI 1
#define MG_ISA avx512vnni
#include "kernels.h"
#else
typedef int mg_no_kernels_here;
#endif
