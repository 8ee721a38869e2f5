/* groupnorm.c: reference of group normalisation. */
#include "../ref.h"

void mg_ref_groupnorm(const struct mg_op_call *call) {
    const struct mg_groupnorm *p = &call->op->params.groupnorm;
    const int64_t *dim = call->op->in[0].dim, pixels = dim[1] * dim[2], channels = dim[3];
    const struct mg_ref_block block = {.rows = pixels, .columns = channels / p->groups, .stride = channels};
    const float *x = call->in[0], *gamma = call->in[1], *beta = call->in[2];
    float *out = call->out;
    for (int64_t n = 0; n < dim[0]; n++)
        for (int64_t begin = 0; begin < channels; begin += block.columns) {
            int64_t at = n * pixels * channels + begin;
            mg_ref_normalise(out + at, x + at, gamma + begin, beta + begin, block, p->epsilon,
                             p->silu ? MG_ACT_SILU : MG_ACT_NONE);
        }
}
