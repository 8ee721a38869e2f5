/* vector.h: vectors of MG_LANES floats in the compilers' own vector notation, so that a kernel is written once and
 * compiled for each instruction set. The including file (isa/kernels_SET.c) defines MG_LANES and MG_ISA (a name
 * suffix).
 */
#ifndef MG_LANES
#error "include through isa/kernels_SET.c"
#endif
#include <stdint.h>
#include <string.h>

typedef float mg_vf __attribute__((vector_size(MG_LANES * 4)));
typedef int32_t mg_vi __attribute__((vector_size(MG_LANES * 4)));

#define MG_PASTE_(a, b) a##__##b
#define MG_PASTE(a, b) MG_PASTE_(a, b)
#define MG_KERNEL(name) MG_PASTE(name, MG_ISA) /* gemm_panel -> gemm_panel__avx512 */

static inline mg_vf mg_load(const float *p) {
    mg_vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void mg_store(float *p, mg_vf v) { memcpy(p, &v, sizeof v); }
/* x - 0 and not 0 + x, which a compiler may not fold: -0 + 0 is +0. */
static inline mg_vf mg_splat(float x) { return x - (mg_vf){0}; }
/* The first `count` lanes (others zero), 0 <= count <= MG_LANES; for the ends of rows. Pieces of constant size, because
 * a memcpy of variable size is a call into the C library. */
static inline mg_vf mg_load_part(const float *p, int64_t count) {
    float lane[MG_LANES] = {0};
    int64_t i = 0;
    if (count >= MG_LANES)
        return mg_load(p);
#if MG_LANES > 8
    if (count & 8) {
        memcpy(lane, p, 32);
        i = 8;
    }
#endif
#if MG_LANES > 4
    if (count & 4) {
        memcpy(lane + i, p + i, 16);
        i += 4;
    }
#endif
    if (count & 2) {
        memcpy(lane + i, p + i, 8);
        i += 2;
    }
    if (count & 1)
        lane[i] = p[i];
    return mg_load(lane);
}
static inline void mg_store_part(float *p, mg_vf v, int64_t count) {
    float lane[MG_LANES];
    int64_t i = 0;
    if (count >= MG_LANES) {
        mg_store(p, v);
        return;
    }
    mg_store(lane, v);
#if MG_LANES > 8
    if (count & 8) {
        memcpy(p, lane, 32);
        i = 8;
    }
#endif
#if MG_LANES > 4
    if (count & 4) {
        memcpy(p + i, lane + i, 16);
        i += 4;
    }
#endif
    if (count & 2) {
        memcpy(p + i, lane + i, 8);
        i += 2;
    }
    if (count & 1)
        p[i] = lane[i];
}
