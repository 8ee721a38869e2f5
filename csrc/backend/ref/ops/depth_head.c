/* depth_head.c: reference of the head of depth. */
#include "../ref.h"

/* A NaN stays a NaN. */
static double clip_to_unit(double x) { return x < -1 ? -1 : x > 1 ? 1 : x; }

void mg_ref_depth_head(const struct mg_op_call *call) {
    const int64_t channels = call->op->in[0].dim[3], pixels = mg_tensor_count(&call->op->out);
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t pixel = 0; pixel < pixels; pixel++) {
        double mean = 0;
        for (int64_t c = 0; c < channels; c++)
            mean += x[pixel * channels + c];
        out[pixel] = (float)((clip_to_unit(mean / (double)channels) + 1) / 2);
    }
}
