/* kernels_scalar.c: every kernel of the CPU backend compiled for the baseline of the platform (SSE2, NEON or plain C),
 * which every processor of it has. Reached only through the table. */
#define MG_LANES 4
#define MG_VECTOR_REGISTERS 16
#define MG_ISA scalar
#include "kernels.h"
