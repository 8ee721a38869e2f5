/* doubles.h: vectors of doubles, in which the statistics of group normalisation are kept, and single elements. Included by
 * kernels.h before elements.h. */
#ifndef MG_DOUBLES_H
#define MG_DOUBLES_H
#include <math.h>

#include "vector.h"

/* Half a vector of floats, widened to a full vector of doubles. */
typedef float mg_vf_half __attribute__((vector_size(MG_LANES * 2)));
typedef double mg_vd __attribute__((vector_size(MG_LANES * 4)));

typedef uint16_t mg_vh_half __attribute__((vector_size(MG_LANES)));
typedef uint32_t mg_vu_half __attribute__((vector_size(MG_LANES * 2)));

static inline mg_vd mg_widened(const float *p) {
    mg_vf_half v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, mg_vd);
}

static inline mg_vd mg_widened_bf16(const mg_bf16 *p) {
    mg_vh_half v;
    memcpy(&v, p, sizeof v);
    const mg_vu_half bits = __builtin_convertvector(v, mg_vu_half) << 16;
    return __builtin_convertvector((mg_vf_half)bits, mg_vd);
}
#define mg_get_widened(p) _Generic((p), const float * : mg_widened, const mg_bf16 * : mg_widened_bf16)(p)

/* One element as a float. */
static inline float mg_float_of(const float *p) { return *p; }
static inline float mg_float_of_bf16(const mg_bf16 *p) {
    const uint32_t bits = (uint32_t)p->bits << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
#define mg_get_one(p) _Generic((p), const float * : mg_float_of, const mg_bf16 * : mg_float_of_bf16)(p)

static inline void mg_add_to(double *p, mg_vd addend) {
    mg_vd v;
    memcpy(&v, p, sizeof v);
    v += addend;
    memcpy(p, &v, sizeof v);
}
#endif
