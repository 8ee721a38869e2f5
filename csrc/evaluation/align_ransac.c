/* align_ransac.c: scale and shift by random sample consensus (Fischler and Bolles 1981): lines through two random samples,
 * the one that most samples lie near, and least squares over those. Gross errors of the truth or the prediction take no
 * part. */
#include <math.h>

#include "../core/rng.h"
#include "evaluation.h"

enum { TRIALS = 1000, JUDGES = 5000 /* samples that a line is judged by: every so many-th */ };

struct line {
    double scale, shift;
};

struct samples {
    double *x, *y;
    int64_t count;
    double tolerance; /* largest distance in y of a sample that agrees with a line */
};

/* Of y: half of the truths lie nearer to their median. */
static mg_status median_absolute_deviation(double *out, const double *y, int64_t count, struct mg_err *err) {
    double *values;
    MG_TRY(mg_alloc((void **)&values, (size_t)count * sizeof *values, "the samples of a fit", err));
    for (int64_t i = 0; i < count; i++)
        values[i] = y[i];
    const double middle = mg_median_of(values, count);
    for (int64_t i = 0; i < count; i++)
        values[i] = fabs(y[i] - middle);
    *out = mg_median_of(values, count);
    mg_free(values);
    return MG_OK;
}

static bool agrees(const struct samples *s, struct line line, int64_t i) {
    return fabs(line.scale * s->x[i] + line.shift - s->y[i]) <= s->tolerance;
}

static int64_t agreeing(const struct samples *s, struct line line) {
    const int64_t step = s->count > JUDGES ? s->count / JUDGES : 1;
    int64_t number = 0;
    for (int64_t i = 0; i < s->count; i += step)
        number += agrees(s, line, i);
    return number;
}

static bool line_through(struct line *out, const struct samples *s, const int64_t pair[2]) {
    const double run = s->x[pair[1]] - s->x[pair[0]];
    if (run == 0.0)
        return false;
    out->scale = (s->y[pair[1]] - s->y[pair[0]]) / run;
    out->shift = s->y[pair[0]] - out->scale * s->x[pair[0]];
    return isfinite(out->scale) && isfinite(out->shift);
}

/* Least squares over the samples that agree with a line; over all of them if it is NULL. */
static struct line refine(const struct samples *s, const struct line *about) {
    double n = 0, x = 0, y = 0, xx = 0, xy = 0;
    for (int64_t i = 0; i < s->count; i++)
        if (!about || agrees(s, *about, i)) {
            n++;
            x += s->x[i];
            y += s->y[i];
        }
    x /= n;
    y /= n;
    for (int64_t i = 0; i < s->count; i++)
        if (!about || agrees(s, *about, i)) {
            xx += (s->x[i] - x) * (s->x[i] - x);
            xy += (s->x[i] - x) * (s->y[i] - y);
        }
    const double scale = xx > 0.0 ? xy / xx : 0.0;
    return (struct line){scale, y - scale * x};
}

/* The line with most agreement, the earlier one of equals; false if no pair of samples has two values of x. */
static bool find_consensus(struct line *best, const struct samples *s, mg_generator *generator) {
    int64_t most = -1;
    for (int trial = 0; trial < TRIALS; trial++) {
        int64_t pair[2];
        struct line line;
        mg_rng_randint(generator, pair, 2, (uint32_t)(s->count < 1 << 28 ? s->count : 1 << 28));
        if (!line_through(&line, s, pair))
            continue;
        const int64_t number = agreeing(s, line);
        if (number > most) {
            most = number;
            *best = line;
        }
    }
    return most > 0;
}

mg_status mg_align_ransac(float *aligned, double *scale, double *shift, const float *prediction, const float *target,
                          const uint8_t *mask, int64_t h, int64_t w, mg_space space, int64_t max_resolution,
                          uint64_t seed, int num_threads, struct mg_err *err) {
    struct mg_maps maps;
    struct samples s = {0};
    struct line line;
    mg_generator *generator = NULL;
    mg_status status = MG_OK;
    MG_TRY(mg_check_threads(num_threads, err));
    MG_TRY(mg_maps_of(&maps, prediction, target, mask, h, w, space, max_resolution, err));
    MG_TRY(mg_gather_samples(&s.x, &s.y, &s.count, &maps, err));
    MG_TRY_GOTO(median_absolute_deviation(&s.tolerance, s.y, s.count, err));
    MG_TRY_GOTO(mg_generator_create(&generator, seed, err));
    const bool found = find_consensus(&line, &s, generator);
    line = refine(&s, found ? &line : NULL);
    *scale = line.scale;
    *shift = line.shift;
    mg_apply_fit(aligned, &maps, *scale, *shift, num_threads);
done:
    mg_generator_destroy(generator);
    mg_free(s.x);
    return status;
}
