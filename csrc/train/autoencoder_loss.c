/* autoencoder_loss.c: how a reconstruction is judged: absolute and square errors, errors of image gradients on several
 * scales, and the divergence of the posterior from the normal distribution (arXiv 1312.6114). */
#include "autoencoder_loss.h"

#include <math.h>
#include <string.h>

static const float lowest_log_variance = -30.0f, highest_log_variance = 20.0f; /* as in diffusers */

/* |d| with its corner rounded off, as far as an eighth of a level of an 8-bit image: gradients of a sum of kinks would hang on
 * rounding errors where a reconstruction is right. */
static double magnitude(double *derivative, double d) {
    const double corner = MG_RECONSTRUCTION_CORNER, length = sqrt(d * d + corner * corner);
    *derivative = d / length;
    return length - corner;
}

/* Adds weight * derivative to both ends of each difference along one axis; the sum of their magnitudes. */
static double edges(float *gradient, const float *values, int64_t planes, int64_t h, int64_t w, bool vertical,
                    double weight) {
    const int64_t step = vertical ? w : 1, rows = vertical ? h - 1 : h, columns = vertical ? w : w - 1;
    double sum = 0.0;
    for (int64_t p = 0; p < planes; p++)
        for (int64_t y = 0; y < rows; y++)
            for (int64_t x = 0; x < columns; x++) {
                const int64_t at = (p * h + y) * w + x;
                double derivative;
                sum += magnitude(&derivative, (double)values[at + step] - values[at]);
                gradient[at + step] += (float)(weight * derivative);
                gradient[at] -= (float)(weight * derivative);
            }
    return sum;
}

/* The mean over pairs of neighbours, down and right; its gradient times `weight` into `gradient`, which is added to. */
static double mean_edges(float *gradient, const float *values, int64_t planes, int64_t h, int64_t w, double weight) {
    double mean = 0.0;
    for (int vertical = 0; vertical < 2; vertical++) {
        const double count = (double)planes * (double)(vertical ? (h - 1) * w : h * (w - 1));
        if (count > 0.0)
            mean += edges(gradient, values, planes, h, w, vertical, weight / count) / count;
    }
    return mean;
}

/* The mean of 2x2 pixels, in place of the larger image: the smaller one never overtakes what it reads. */
static void halve(float *values, int64_t planes, int64_t h, int64_t w) {
    const int64_t rows = h / 2, columns = w / 2;
    for (int64_t p = 0; p < planes; p++)
        for (int64_t y = 0; y < rows; y++)
            for (int64_t x = 0; x < columns; x++) {
                const float *from = values + (p * h + 2 * y) * w + 2 * x;
                values[(p * rows + y) * columns + x] = 0.25f * (from[0] + from[1] + from[w] + from[w + 1]);
            }
}

/* Gives each pixel of the image its part of the gradient of a pixel that is the mean of size x size. */
static void average_pool_gradient(float *gradient, const float *small, int64_t planes, int64_t h, int64_t w,
                                  int level) {
    int64_t rows = h, columns = w;
    for (int i = 0; i < level; i++) {
        rows /= 2;
        columns /= 2;
    }
    const int64_t size = (int64_t)1 << level;
    const float share = 1.0f / (float)(size * size);
    for (int64_t p = 0; p < planes; p++)
        for (int64_t y = 0; y < rows * size; y++)
            for (int64_t x = 0; x < columns * size; x++)
                gradient[(p * h + y) * w + x] += share * small[(p * rows + y / size) * columns + x / size];
}

static double scales(float *gradient, float *difference, float *scratch, int64_t planes, int64_t h, int64_t w,
                     double weight) {
    const double each = weight / MG_RECONSTRUCTION_SCALES;
    double sum = mean_edges(gradient, difference, planes, h, w, each);
    int64_t rows = h, columns = w;
    for (int level = 1; level < MG_RECONSTRUCTION_SCALES; level++) {
        halve(difference, planes, rows, columns);
        rows /= 2;
        columns /= 2;
        memset(scratch, 0, (size_t)(planes * rows * columns) * sizeof *scratch);
        sum += mean_edges(scratch, difference, planes, rows, columns, each);
        average_pool_gradient(gradient, scratch, planes, h, w, level);
    }
    return sum / MG_RECONSTRUCTION_SCALES;
}

void mg_reconstruction_terms(struct mg_reconstruction_loss *loss, float *gradient, const float *image,
                             const float *wanted, int64_t planes, int64_t h, int64_t w,
                             const struct mg_reconstruction_weights *weights, float *difference, float *scratch) {
    const int64_t count = planes * h * w;
    double absolute = 0.0, square = 0.0;
    for (int64_t i = 0; i < count; i++) {
        const double d = (double)image[i] - wanted[i];
        double derivative;
        difference[i] = (float)d;
        absolute += magnitude(&derivative, d);
        square += d * d;
        gradient[i] = (float)((weights->absolute * derivative + 2.0 * weights->square * d) / (double)count);
    }
    loss->absolute = absolute / (double)count;
    loss->square = square / (double)count;
    loss->edges = scales(gradient, difference, scratch, planes, h, w, weights->edges);
}

static float log_variance_of(float stored) { return fminf(fmaxf(stored, lowest_log_variance), highest_log_variance); }

void mg_posterior_sample(float *z, const float *moments, const float *noise, int64_t n, int64_t count) {
    for (int64_t image = 0; image < n; image++)
        for (int64_t i = 0; i < count; i++) {
            const float *mean = moments + 2 * image * count + i;
            const int64_t at = image * count + i;
            z[at] = mean[0] + (noise ? expf(0.5f * log_variance_of(mean[count])) * noise[at] : 0.0f);
        }
}

double mg_posterior_gradient(float *moments, const float *z_gradient, const float *noise, int64_t n, int64_t count,
                             double weight) {
    const double numbers = (double)(n * count), each = weight / numbers;
    double divergence = 0.0;
    for (int64_t image = 0; image < n; image++)
        for (int64_t i = 0; i < count; i++) {
            float *mean = moments + 2 * image * count + i, *stored = mean + count;
            const int64_t at = image * count + i;
            const double mu = *mean, level = log_variance_of(*stored), deviation = exp(0.5 * level);
            const bool moves = *stored >= lowest_log_variance && *stored <= highest_log_variance;
            const double through_noise = noise ? 0.5 * deviation * noise[at] * z_gradient[at] : 0.0;
            divergence += 0.5 * (mu * mu + deviation * deviation - 1.0 - level);
            *mean = (float)(z_gradient[at] + each * mu);
            *stored = moves ? (float)(through_noise + 0.5 * each * (deviation * deviation - 1.0)) : 0.0f;
        }
    return divergence / numbers;
}
