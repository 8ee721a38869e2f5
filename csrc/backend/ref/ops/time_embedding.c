/* time_embedding.c: reference of the embedding of time steps. */
#include "../ref.h"

void mg_ref_time_embedding(const struct mg_op_call *call) {
    const struct mg_time_embedding *p = &call->op->params.time_embedding;
    const int64_t half = p->channels / 2, images = call->op->in[0].dim[0];
    const float *timesteps = call->in[0];
    for (int64_t n = 0; n < images; n++) {
        float *sines = (float *)call->out + n * p->channels + (p->flip_sin_to_cos ? half : 0);
        float *cosines = (float *)call->out + n * p->channels + (p->flip_sin_to_cos ? 0 : half);
        for (int64_t i = 0; i < half; i++) {
            double frequency = exp(-log(p->max_period) * (double)i / ((double)half - p->frequency_shift));
            sines[i] = (float)sin(timesteps[n] * frequency);
            cosines[i] = (float)cos(timesteps[n] * frequency);
        }
    }
}
