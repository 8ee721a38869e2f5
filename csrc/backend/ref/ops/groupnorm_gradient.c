/* groupnorm_gradient.c: reference of the gradients of group normalisation.
 *
 * With y = gamma n + beta, n = (x - mean) / deviation, and g the gradient of y: the gradient of x is
 * (gamma g - mean(gamma g) - n mean(gamma g n)) / deviation, means over what is normalised together. */
#include "../ref.h"

/* The gradient before the SiLU, if there is one, of what is behind it. */
static double before_silu(const struct mg_op_shape *op, double normal, double gamma, double beta, double dy) {
    return op->params.groupnorm.silu ? dy * mg_ref_activation_derivative(normal * gamma + beta, MG_ACT_SILU) : dy;
}

void mg_ref_groupnorm_sums(const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op;
    const int64_t *dim = op->in[0].dim, pixels = dim[1] * dim[2], channels = dim[3];
    const struct mg_ref_block block = {
        .rows = pixels, .columns = channels / op->params.groupnorm.groups, .stride = channels};
    const float *gamma = call->in[1], *beta = call->in[2];
    for (int64_t n = 0; n < dim[0]; n++) {
        const float *x = (const float *)call->in[0] + n * pixels * channels;
        const float *dy = (const float *)call->in[3] + n * pixels * channels;
        float *out = (float *)call->out + n * 4 * channels;
        for (int64_t c = 0; c < channels; c++) {
            double mean, inverse, sum = 0, sum_of_products = 0;
            mg_ref_statistics(&mean, &inverse, x + c / block.columns * block.columns, block,
                              op->params.groupnorm.epsilon);
            for (int64_t pixel = 0; pixel < pixels; pixel++) {
                const double normal = (x[pixel * channels + c] - mean) * inverse;
                const double g = before_silu(op, normal, gamma[c], beta[c], dy[pixel * channels + c]);
                sum += g;
                sum_of_products += g * normal;
            }
            out[c] = (float)mean;
            out[channels + c] = (float)inverse;
            out[2 * channels + c] = (float)sum;
            out[3 * channels + c] = (float)sum_of_products;
        }
    }
}

void mg_ref_groupnorm_gradient(const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op;
    const int64_t *dim = op->in[0].dim, pixels = dim[1] * dim[2], channels = dim[3];
    const int64_t columns = channels / op->params.groupnorm.groups;
    const float *gamma = call->in[1], *beta = call->in[2];
    for (int64_t n = 0; n < dim[0]; n++) {
        const float *x = (const float *)call->in[0] + n * pixels * channels;
        const float *dy = (const float *)call->in[3] + n * pixels * channels;
        const float *sums = (const float *)call->in[4] + n * 4 * channels;
        float *out = (float *)call->out + n * pixels * channels;
        for (int64_t c = 0; c < channels; c++) {
            const double mean = sums[c], inverse = sums[channels + c], count = (double)(pixels * columns);
            const int64_t first = c / columns * columns;
            double average = 0, projection = 0;
            for (int64_t other = first; other < first + columns; other++) {
                average += (double)gamma[other] * sums[2 * channels + other] / count;
                projection += (double)gamma[other] * sums[3 * channels + other] / count;
            }
            for (int64_t at = c; at < pixels * channels; at += channels) {
                const double normal = (x[at] - mean) * inverse;
                const double g = before_silu(op, normal, gamma[c], beta[c], dy[at]);
                out[at] = (float)((gamma[c] * g - average - normal * projection) * inverse);
            }
        }
    }
}
