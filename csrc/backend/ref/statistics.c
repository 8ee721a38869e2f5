/* statistics.c: mean and deviation, and what is normalised with them. */
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

void mg_ref_normalise(float *out, const float *x, const float *gamma, const float *beta, struct mg_ref_block block,
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
