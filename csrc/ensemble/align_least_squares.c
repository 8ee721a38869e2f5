/* align_least_squares.c: scale and shift that bring a prediction closest to a ground truth, in depth, disparity or
 * logarithm, as evaluations of affine-invariant depth do (prs-eth/Marigold, src/util/alignment.py). Called through
 * marigold.h. Sums are in double and in a fixed order. */
#include <math.h>

#include "ensemble.h"

/* Every row, and every `step`-th column, at whole positions below them: torch's nearest resize by a factor. The paper's
 * code means both directions, but hands torch a map (1, h, w), of which it resizes the last axis only; the published
 * figures are made so. */
struct sampling {
    int64_t h, w, out_w;
    float step;
};

static struct sampling sampling_of(int64_t h, int64_t w, int64_t max_resolution) {
    struct sampling s = {h, w, w, 1.0f};
    const int64_t longest = h > w ? h : w;
    if (!max_resolution || longest <= max_resolution)
        return s;
    const double factor = (double)max_resolution / (double)longest;
    s.out_w = (int64_t)((double)w * factor);
    s.step = (float)(1.0 / factor);
    return s;
}

static int64_t source(int64_t index, float step, int64_t size) {
    int64_t at = (int64_t)floorf((float)index * step);
    return at < size ? at : size - 1;
}

struct maps {
    const float *prediction, *target;
    const uint8_t *mask;
};

/* The pair of values to fit at a pixel, or false if it has none. */
static bool pair_at(double *x, double *y, const struct maps *maps, int64_t at, mg_space space) {
    const float prediction = maps->prediction[at], target = maps->target[at];
    if ((maps->mask && !maps->mask[at]) || !isfinite(prediction) || !isfinite(target))
        return false;
    if ((space != MG_SPACE_DEPTH && !(target > 0.0f)) || (space == MG_SPACE_DISPARITY && !(prediction > 0.0f)))
        return false;
    *x = (double)prediction;
    *y = space == MG_SPACE_LOG         ? log((double)target)
         : space == MG_SPACE_DISPARITY ? 1.0 / (double)target
                                       : (double)target;
    return true;
}

/* Number, means and central moments of the pairs, updated one pair at a time (Welford). */
struct moments {
    int64_t count;
    double mean_x, mean_y, xx, xy;
};

static struct moments moments_of(const struct maps *maps, const struct sampling *s, mg_space space) {
    struct moments m = {0};
    for (int64_t row = 0; row < s->h; row++)
        for (int64_t column = 0; column < s->out_w; column++) {
            const int64_t at = row * s->w + source(column, s->step, s->w);
            double x, y;
            if (!pair_at(&x, &y, maps, at, space))
                continue;
            m.count++;
            const double from_mean = x - m.mean_x;
            m.mean_x += from_mean / (double)m.count;
            m.mean_y += (y - m.mean_y) / (double)m.count;
            m.xx += from_mean * (x - m.mean_x);
            m.xy += from_mean * (y - m.mean_y);
        }
    return m;
}

static float aligned_value(double fit, mg_space space) {
    switch (space) {
    case MG_SPACE_DISPARITY:
        return (float)(1.0 / fmax(fit, 1e-3));
    case MG_SPACE_LOG:
        return (float)exp(fit);
    default:
        return (float)fit;
    }
}

mg_status mg_align_least_squares(float *aligned, double *scale, double *shift, const float *prediction,
                                 const float *target, const uint8_t *mask, int64_t h, int64_t w, mg_space space,
                                 int64_t max_resolution, struct mg_err *err) {
    if (h < 1 || w < 1 || max_resolution < 0)
        return mg_fail(err, MG_ERR_ARGUMENT, "maps of %lld x %lld cannot be aligned at max_resolution %lld",
                       (long long)h, (long long)w, (long long)max_resolution);
    const struct sampling sampling = sampling_of(h, w, max_resolution);
    const struct maps maps = {prediction, target, mask};
    const struct moments m = moments_of(&maps, &sampling, space);
    if (!m.count)
        return mg_fail(err, MG_ERR_ARGUMENT, "no valid pixel to align among %lld x %lld", (long long)sampling.h,
                       (long long)sampling.out_w);
    *scale = m.xx > 0.0 ? m.xy / m.xx : 0.0;
    *shift = m.mean_y - *scale * m.mean_x;
    for (int64_t i = 0; i < h * w; i++)
        aligned[i] = aligned_value((double)prediction[i] * *scale + *shift, space);
    return MG_OK;
}
