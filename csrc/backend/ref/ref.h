/* ref.h: what the files of the reference backend share. Private to backend/ref.
 *
 * The reference backend is the specification of every operation: one function per line of ops.def, plain loops over
 * N H W C, sums in double, one rounding to float32 when an element of the output is written. It uses no scratch memory
 * and no threads, and is the oracle that the other backends are tested against. */
#ifndef MG_REF_H
#define MG_REF_H
#include <math.h>

#include "../backend.h"

#define MG_OP(ID, name, inputs, required, alias, meaning) void mg_ref_##name(const struct mg_op_call *call);
#include "../../graph/ops.def"
#undef MG_OP

static inline double mg_ref_silu(double x) { return x / (1.0 + exp(-x)); }

/* Exact GELU, x Phi(x). erfc keeps the relative accuracy of the left tail, where 1 + erf cancels. */
static inline double mg_ref_gelu(double x) { return 0.5 * x * erfc(-x * 0.70710678118654752440); }

static inline double mg_ref_activate(double x, mg_activation activation) {
    switch (activation) {
    case MG_ACT_SILU:
        return mg_ref_silu(x);
    case MG_ACT_GELU:
        return mg_ref_gelu(x);
    case MG_ACT_QUICK_GELU:
        return x / (1.0 + exp(-1.702 * x));
    case MG_ACT_RELU:
        return x < 0 ? 0 : x;
    case MG_ACT_TANH:
        return tanh(x);
    case MG_ACT_NONE:
        break;
    }
    return x;
}
#endif
