/* norm.c: reference of group and layer normalisation. Called by ref_backend.c. */
#include "ref.h"

/* Mean first, then the mean square deviation: no cancellation when the mean is large. */
void mg_ref_statistics(double *mean, double *inverse_deviation, const float *x, struct mg_ref_block block,
                       double epsilon) {
    double sum = 0, square = 0, count = (double)(block.rows * block.columns);
    for (int64_t row = 0; row < block.rows; row++)
        for (int64_t column = 0; column < block.columns; column++)
            sum += x[row * block.stride + column];
    *mean = sum / count;
    for (int64_t row = 0; row < block.rows; row++)
        for (int64_t column = 0; column < block.columns; column++) {
            double deviation = x[row * block.stride + column] - *mean;
            square += deviation * deviation;
        }
    *inverse_deviation = 1.0 / sqrt(square / count + epsilon);
}

static void normalise(float *out, const float *x, const float *gamma, const float *beta, struct mg_ref_block block,
                      double epsilon, mg_activation activation) {
    double mean, inverse_deviation;
    mg_ref_statistics(&mean, &inverse_deviation, x, block, epsilon);
    for (int64_t row = 0; row < block.rows; row++)
        for (int64_t column = 0; column < block.columns; column++) {
            int64_t at = row * block.stride + column;
            double y = (x[at] - mean) * inverse_deviation * gamma[column] + beta[column];
            out[at] = (float)mg_ref_activate(y, activation);
        }
}

void mg_ref_groupnorm(const struct mg_op_call *call) {
    const struct mg_groupnorm *p = &call->op->params.groupnorm;
    const int64_t *dim = call->op->in[0].dim, pixels = dim[1] * dim[2], channels = dim[3];
    const struct mg_ref_block block = {.rows = pixels, .columns = channels / p->groups, .stride = channels};
    const float *x = call->in[0], *gamma = call->in[1], *beta = call->in[2];
    float *out = call->out;
    for (int64_t n = 0; n < dim[0]; n++)
        for (int64_t begin = 0; begin < channels; begin += block.columns) {
            int64_t at = n * pixels * channels + begin;
            normalise(out + at, x + at, gamma + begin, beta + begin, block, p->epsilon,
                      p->silu ? MG_ACT_SILU : MG_ACT_NONE);
        }
}

void mg_ref_layernorm(const struct mg_op_call *call) {
    const int64_t channels = call->op->in[0].dim[3], count = mg_tensor_count(&call->op->in[0]);
    const struct mg_ref_block block = {.rows = 1, .columns = channels, .stride = channels};
    const float *x = call->in[0];
    float *out = call->out;
    for (int64_t at = 0; at < count; at += channels)
        normalise(out + at, x + at, call->in[1], call->in[2], block, call->op->params.layernorm.epsilon, MG_ACT_NONE);
}
