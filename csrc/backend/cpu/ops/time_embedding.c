/* time_embedding.c: sinusoids of time steps, in float32 from the exponent on, as the models were trained with. A few
 * thousand values per run: one thread. */
#include <math.h>

#include "../cpu.h"

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    (void)context;
    const struct mg_time_embedding *p = &call->op->params.time_embedding;
    const float *timesteps = call->in[0];
    float *out = call->out;
    int64_t half = p->channels / 2;
    float log_period = (float)-log((double)p->max_period);
    float steps = (float)((double)half - (double)p->frequency_shift);
    for (int64_t n = 0; n < call->op->out.dim[0]; n++) {
        float *sines = out + n * p->channels + (p->flip_sin_to_cos ? half : 0);
        float *cosines = out + n * p->channels + (p->flip_sin_to_cos ? 0 : half);
        for (int64_t i = 0; i < half; i++) {
            float angle = timesteps[n] * expf(log_period * (float)i / steps);
            sines[i] = sinf(angle);
            cosines[i] = cosf(angle);
        }
    }
}

const struct mg_cpu_driver mg_cpu_time_embedding = {.run = run};
