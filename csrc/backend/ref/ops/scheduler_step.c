/* scheduler_step.c: reference of a step of the schedule. */
#include "../ref.h"

void mg_ref_scheduler_step(const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    const float *sample = call->in[0], *model_output = call->in[1], *factors = call->in[2], *noise = call->in[3];
    float *out = call->out;
    for (int64_t i = 0; i < count; i++) {
        double sum = (double)factors[0] * sample[i] + (double)factors[1] * model_output[i];
        sum += noise ? (double)factors[2] * noise[i] : 0.0;
        out[i] = (float)sum;
    }
}
