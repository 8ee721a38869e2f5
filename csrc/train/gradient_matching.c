/* gradient_matching.c: errors of a map in its own range, of which neither scale nor shift is fitted: the absolute difference to
 * the truth, and the multi-scale gradient matching of MegaDepth and MiDaS (arXiv 1804.00607, eq. 4; 1907.01341, eq. 11), which makes
 * edges sharp and planes even. */
#include <math.h>

#include "trainer.h"

/* Of the matching: scales (every pixel, every second, fourth, eighth), and its weight beside the absolute difference. */
enum { SCALES = 4 };
static const double matching = 0.5;

struct map {
    const float *error; /* prediction less truth, (h, w) */
    const uint8_t *valid;
    int64_t h, w;
    float *slope; /* of the sum, by the error of each pixel: whole halves, so exact */
};

/* The difference of two errors, where both are known; it stands for `weight` pixels. */
static double match(const struct map *m, int64_t a, int64_t b, double weight) {
    if (!m->valid[a] || !m->valid[b])
        return 0.0;
    const double difference = (double)m->error[b] - m->error[a], slope = weight * mg_sign(difference);
    m->slope[b] += (float)slope;
    m->slope[a] -= (float)slope;
    return weight * fabs(difference);
}

static double match_scale(const struct map *m, int64_t step) {
    const double weight = matching * (double)(step * step); /* a coarse grid has fewer pixels */
    double sum = 0.0;
    for (int64_t y = 0; y < m->h; y += step)
        for (int64_t x = 0; x < m->w; x += step) {
            const int64_t at = y * m->w + x;
            if (x + step < m->w)
                sum += match(m, at, at + step, weight);
            if (y + step < m->h)
                sum += match(m, at, at + step * m->w, weight);
        }
    return sum;
}

double mg_matching_errors(float *slope, const float *error, const uint8_t *valid, int64_t h, int64_t w) {
    const struct map m = {.error = error, .valid = valid, .h = h, .w = w, .slope = slope};
    double sum = 0.0;
    for (int64_t i = 0; i < h * w; i++) {
        slope[i] = valid[i] ? (float)mg_sign(error[i]) : 0.0f;
        sum += valid[i] ? fabs((double)error[i]) : 0.0;
    }
    for (int k = 0; k < SCALES; k++)
        sum += match_scale(&m, (int64_t)1 << k);
    return sum;
}
