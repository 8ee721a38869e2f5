/* pixel_errors.c: how a decoded map is compared with its truth in pixels, and the gradient of that: the losses of
 * end-to-end fine-tuning (arXiv 2409.11355), as its authors' code has them, one for intrinsic images, and two for depth in
 * the map's own range. Calls sink_loss.c and gradient_matching.c.
 *
 * All in double: an image has a million pixels, and sums over them decide scale and shift. */
#include <math.h>

#include "trainer.h"

/* ---- depth: the mean of the channels, clipped to [-1, 1] as a prediction is, brought to the truth by scale and shift ---- */
struct alignment {
    double count, p, g, pp, pg; /* sums over valid pixels, of predictions and truths less `reference` */
    double scale, shift;
    double by_scale, by_shift; /* of the errors' sum, taken through the inverse of the system */
    bool degenerate;
};

/* Variance below which a prediction is constant: rounding of float32 in [-1, 1]. */
static const double smallest_variance = 1e-12;

static double mean_depth(const float *decoded, int64_t pixels, int64_t i) {
    const double mean = ((double)decoded[i] + decoded[pixels + i] + decoded[2 * pixels + i]) / 3.0;
    return mean < -1.0 ? -1.0 : mean > 1.0 ? 1.0 : mean;
}

static bool passes(const float *decoded, int64_t pixels, int64_t i) {
    const double mean = ((double)decoded[i] + decoded[pixels + i] + decoded[2 * pixels + i]) / 3.0;
    return mean >= -1.0 && mean <= 1.0;
}

/* Least squares of scale * p + shift - g, by means and centred products; scale and shift are 0 for a constant prediction. */
static struct alignment align(const float *decoded, const float *target, const uint8_t *valid, int64_t pixels) {
    struct alignment a = {0};
    for (int64_t i = 0; i < pixels; i++)
        if (valid[i]) {
            a.count++;
            a.p += mean_depth(decoded, pixels, i);
            a.g += target[i];
        }
    a.p /= a.count;
    a.g /= a.count;
    for (int64_t i = 0; i < pixels; i++)
        if (valid[i]) {
            const double p = mean_depth(decoded, pixels, i) - a.p;
            a.pp += p * p;
            a.pg += p * (target[i] - a.g);
        }
    a.degenerate = a.pp <= smallest_variance * a.count;
    if (!a.degenerate) {
        a.scale = a.pg / a.pp;
        a.shift = a.g - a.scale * a.p;
    }
    return a;
}

/* Of the errors' signs: with A the system's matrix, A^-1 (sum of sign * p, sum of sign), by which the sum of errors changes
 * when the right-hand side of the system does. Returns the sum of errors. */
static double sum_errors(struct alignment *a, const float *decoded, const float *target, const uint8_t *valid,
                         int64_t pixels) {
    double sum = 0.0, signs = 0.0, moments = 0.0; /* moments: of p less its mean */
    for (int64_t i = 0; i < pixels; i++)
        if (valid[i]) {
            const double p = mean_depth(decoded, pixels, i), error = a->scale * p + a->shift - target[i];
            sum += fabs(error);
            signs += mg_sign(error);
            moments += mg_sign(error) * (p - a->p);
        }
    if (!a->degenerate) {
        a->by_scale = moments / a->pp;
        a->by_shift = signs / a->count - a->by_scale * a->p;
    }
    return sum;
}

/* d(scale, shift)/dp_i = A^-1 (g_i - 2 scale p_i - shift, -scale): the normal equations, differentiated. */
static double depth_errors(float *gradient, const float *decoded, const float *target, const uint8_t *valid, int64_t h,
                           int64_t w, double factor) {
    const int64_t pixels = h * w;
    struct alignment a = align(decoded, target, valid, pixels);
    const double sum = sum_errors(&a, decoded, target, valid, pixels);
    for (int64_t i = 0; i < pixels; i++) {
        double derivative = 0.0;
        if (valid[i] && passes(decoded, pixels, i)) {
            const double p = mean_depth(decoded, pixels, i), error = a.scale * p + a.shift - target[i];
            derivative = mg_sign(error) * a.scale - a.by_scale * (error + a.scale * p) - a.by_shift * a.scale;
        }
        for (int c = 0; c < 3; c++)
            gradient[c * pixels + i] = (float)(factor * derivative / 3.0);
    }
    return sum;
}

/* ---- depth by SinkLoss, without an alignment; the gradient's first channel has the depths, then their slopes ---- */
static double sink_errors(float *gradient, const float *decoded, const float *target, const uint8_t *valid, int64_t h,
                          int64_t w, double factor) {
    const int64_t pixels = h * w;
    float *depth = gradient, *slope = gradient + pixels;
    for (int64_t i = 0; i < pixels; i++)
        depth[i] = (float)mean_depth(decoded, pixels, i);
    const double sum = mg_sink_loss(slope, depth, target, valid, h, w, factor);
    for (int64_t i = 0; i < pixels; i++) {
        const float share = passes(decoded, pixels, i) ? slope[i] / 3.0f : 0.0f;
        gradient[i] = gradient[pixels + i] = gradient[2 * pixels + i] = share;
    }
    return sum;
}

/* ---- depth by absolute errors, without an alignment: the mean of the channels, not clipped, so that all of it learns ---- */
static double matching_errors(float *gradient, const float *decoded, const float *target, const uint8_t *valid,
                              int64_t h, int64_t w, double factor) {
    const int64_t pixels = h * w;
    float *slope = gradient, *error = gradient + pixels;
    for (int64_t i = 0; i < pixels; i++)
        error[i] = (float)(((double)decoded[i] + decoded[pixels + i] + decoded[2 * pixels + i]) / 3.0 - target[i]);
    const double sum = mg_matching_errors(slope, error, valid, h, w);
    for (int64_t i = 0; i < pixels; i++)
        gradient[i] = gradient[pixels + i] = gradient[2 * pixels + i] = (float)(factor * slope[i] / 3.0);
    return sum;
}

/* ---- normals: the angle to the truth ---- */
static double length_of(const float *vector, int64_t stride) {
    return sqrt((double)vector[0] * vector[0] + (double)vector[stride] * vector[stride] +
                (double)vector[2 * stride] * vector[2 * stride]);
}

static bool is_direction(const float *target, int64_t pixels) { return length_of(target, pixels) > 0.0; }

/* With n the decoded vector and t the truth, both divided by their lengths (n's plus 1e-5, so that equal directions, where the
 * angle has no derivative, stay apart): arccos(n t), cut off at 1, where it is constant. */
static double angle_of(double derivative[3], const float *decoded, const float *target, int64_t pixels) {
    const double length = length_of(decoded, pixels), divisor = length + 1e-5, unit = length_of(target, pixels);
    double cosine = 0.0;
    for (int c = 0; c < 3; c++)
        cosine += (double)decoded[c * pixels] / divisor * target[c * pixels] / unit;
    if (!(cosine > -1.0 && cosine < 1.0)) {
        derivative[0] = derivative[1] = derivative[2] = 0.0;
        return isnan(cosine) ? cosine : cosine < 0.0 ? acos(-1.0) : 0.0;
    }
    const double outer = -1.0 / sqrt(1.0 - cosine * cosine);
    for (int c = 0; c < 3; c++) {
        const double along = length > 0.0 ? cosine * decoded[c * pixels] / length : 0.0;
        derivative[c] = outer * (target[c * pixels] / unit - along) / divisor;
    }
    return acos(cosine);
}

static double normal_errors(float *gradient, const float *decoded, const float *target, const uint8_t *valid, int64_t h,
                            int64_t w, double factor) {
    const int64_t pixels = h * w;
    double sum = 0.0;
    for (int64_t i = 0; i < pixels; i++) {
        double derivative[3] = {0.0, 0.0, 0.0};
        if (valid[i])
            sum += angle_of(derivative, decoded + i, target + i, pixels);
        for (int c = 0; c < 3; c++)
            gradient[c * pixels + i] = (float)(factor * derivative[c]);
    }
    return sum;
}

/* ---- intrinsic images: the absolute difference ---- */
static double intrinsic_errors(float *gradient, const float *decoded, const float *target, const uint8_t *valid,
                               int64_t h, int64_t w, double factor) {
    const int64_t pixels = h * w;
    double sum = 0.0;
    for (int64_t i = 0; i < 3 * pixels; i++) {
        const double difference = (double)decoded[i] - target[i];
        const bool counts = valid[i % pixels];
        sum += counts ? fabs(difference) : 0.0;
        gradient[i] = counts ? (float)(factor * mg_sign(difference)) : 0.0f;
    }
    return sum;
}

static const struct mg_pixel_measure measures[] = {
    {.task = "depth", .loss = "task", .errors = 1, .errors_of = depth_errors},
    {.task = "depth",
     .loss = "sink",
     .errors = 1,
     .largest_truth = 20.0,
     .count_errors = mg_sink_loss_blocks,
     .errors_of = sink_errors},
    {.task = "depth", .loss = "absolute", .errors = 1, .errors_of = matching_errors},
    {.task = "normals", .loss = "task", .errors = 1, .is_known = is_direction, .errors_of = normal_errors},
    {.task = "intrinsics", .loss = "task", .errors = 3, .errors_of = intrinsic_errors},
};

const struct mg_pixel_measure *mg_pixel_measure_of(const char *task, const char *loss) {
    for (size_t i = 0; i < sizeof measures / sizeof measures[0]; i++)
        if (!strcmp(measures[i].task, task) && !strcmp(measures[i].loss, loss))
            return &measures[i];
    return NULL;
}
