/* kernels_avxvnni.c: every kernel of the CPU backend compiled for AVX2, FMA and AVX-VNNI. Reached only
 * through the table, after cpu_features.c has seen that the processor has these instructions. */
#if defined(__x86_64__)
#define MG_LANES 8
#define MG_VECTOR_REGISTERS 16
#define MG_HAS_AVX2 1
#define MG_HAS_AVXVNNI 1
#define MG_ISA avxvnni
#include "kernels.h"
#else
typedef int mg_no_kernels_here;
#endif
