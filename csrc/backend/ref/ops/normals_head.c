/* normals_head.c: reference of the head of normals. */
#include "../ref.h"

/* A NaN stays a NaN. */
static double clip_to_unit(double x) { return x < -1 ? -1 : x > 1 ? 1 : x; }

void mg_ref_normals_head(const struct mg_op_call *call) {
    const int64_t pixels = mg_tensor_count(&call->op->out) / 3;
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t pixel = 0; pixel < pixels; pixel++) {
        double normal[3], squares = 0;
        for (int c = 0; c < 3; c++) {
            normal[c] = clip_to_unit(x[pixel * 3 + c]);
            if (c == 2 && !call->op->params.normals_head.full_z)
                normal[c] = (normal[c] + 1) / 2;
            squares += normal[c] * normal[c];
        }
        const double length = sqrt(squares), divisor = length < 1e-6 ? 1e-6 : length;
        for (int c = 0; c < 3; c++)
            out[pixel * 3 + c] = (float)(normal[c] / divisor);
    }
}
