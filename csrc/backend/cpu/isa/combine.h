/* combine.h: weighted sums of two or three rows. Reached through the table. */
#ifndef MG_COMBINE_H
#define MG_COMBINE_H
#include "vector.h"

static inline mg_vf mg_combine_one(mg_vf a, mg_vf b, const float factors[3]) { return factors[0] * a + factors[1] * b; }

static void MG_KERNEL(combine)(float *out, const float *a, const float *b, const float *noise, const float factors[3],
                               int64_t count) {
    const float f[3] = {factors[0], factors[1], noise ? factors[2] : 0.0f};
    int64_t i = 0;
    for (; i + MG_LANES <= count; i += MG_LANES) {
        mg_vf v = mg_combine_one(mg_load(a + i), mg_load(b + i), f);
        mg_store(out + i, noise ? v + f[2] * mg_load(noise + i) : v);
    }
    if (i < count) {
        int64_t rest = count - i;
        mg_vf v = mg_combine_one(mg_load_part(a + i, rest), mg_load_part(b + i, rest), f);
        mg_store_part(out + i, noise ? v + f[2] * mg_load_part(noise + i, rest) : v, rest);
    }
}
#endif
