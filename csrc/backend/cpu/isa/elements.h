/* elements.h: the kernels that read and write activations, for one element type. Included by kernels.h once per type
 * with MG_ELEMENT (the type) and MG_ELEMENT_NAME (f32, bf16) defined. */
#define MG_ELEMENT_KERNEL(name) MG_PASTE(MG_PASTE(name, MG_ELEMENT_NAME), MG_ISA) /* add -> add__f32__avx512 */

/* An activation whose result is stored as an element. */
static inline mg_vf MG_ELEMENT_KERNEL(activated)(mg_vf x, mg_activation activation) {
    if (sizeof(MG_ELEMENT) == 2 && activation == MG_ACT_SILU)
        return mg_coarse_silu(x);
    if (sizeof(MG_ELEMENT) == 2 && activation == MG_ACT_GELU)
        return mg_coarse_gelu(x);
    return mg_activate(x, activation);
}

#include "pointwise.h"
#include "norm.h"
#include "winograd.h"
#include "quantise.h"
#undef MG_ELEMENT_KERNEL
