/* intrinsics_head.c: reference of the head of intrinsic images. */
#include "../ref.h"

/* A NaN stays a NaN. */
static double clip_to_unit(double x) { return x < -1 ? -1 : x > 1 ? 1 : x; }

void mg_ref_intrinsics_head(const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)((clip_to_unit(x[i]) + 1) / 2);
}
