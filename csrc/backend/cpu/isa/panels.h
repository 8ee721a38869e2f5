/* panels.h: rows of packed panels back to float32, for the transforms of Winograd's filters and for attention. Reached
 * through the table by ops/winograd.c. */
#ifndef MG_PANELS_H
#define MG_PANELS_H
#include "product.h"

/* [count/2][panel][2] bfloat16 -> [count][panel] */
static void MG_KERNEL(widen_pairs)(float *out, const mg_bf16 *pairs, int64_t count) {
    const int64_t panel = 2 * MG_LANES;
    const mg_vi upper = (mg_vi){0} - 0x10000;
    for (int64_t c = 0; c < count; c += 2)
        for (int64_t column = 0; column < panel; column += MG_LANES) {
            const mg_vi pair = mg_load_bits(pairs + c * panel + 2 * column);
            mg_store(out + c * panel + column, (mg_vf)(pair << 16));
            mg_store(out + (c + 1) * panel + column, (mg_vf)(pair & upper));
        }
}

/* [count/4][panel][4] int8 times scales[panel] -> [count][panel] */
static void MG_KERNEL(widen_quads)(float *out, const int8_t *quads, const float *scales, int64_t count) {
    const int64_t panel = 2 * MG_LANES;
    for (int64_t c = 0; c < count; c += 4)
        for (int64_t column = 0; column < panel; column += MG_LANES) {
            const mg_vi quad = mg_load_bits(quads + c * panel + 4 * column);
            const mg_vf scale = mg_load(scales + column);
            for (int i = 0; i < 4; i++) {
                const mg_vi value = quad << (24 - 8 * i) >> 24;
                mg_store(out + (c + i) * panel + column, __builtin_convertvector(value, mg_vf) * scale);
            }
        }
}
#endif
