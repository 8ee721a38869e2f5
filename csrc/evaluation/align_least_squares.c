/* align_least_squares.c: scale and shift that bring a prediction closest to a ground truth, in depth, disparity or
 * logarithm, as evaluations of affine-invariant depth do (prs-eth/Marigold, src/util/alignment.py). */
#include <string.h>

#include "../core/thread_pool.h"
#include "evaluation.h"

/* Number, sums and products of x and y relative to an origin. */
struct moments {
    int64_t count;
    double x, y, xx, xy;
};

/* The first valid sample; false if there is none. */
static bool find_origin(double *x, double *y, const struct mg_maps *maps) {
    const int64_t samples = maps->h * maps->columns;
    double xs[MG_BLOCK], ys[MG_BLOCK];
    for (int64_t i = 0; i < samples; i += MG_BLOCK)
        if (mg_sample_block(xs, ys, maps, i, i + MG_BLOCK < samples ? i + MG_BLOCK : samples)) {
            *x = xs[0];
            *y = ys[0];
            return true;
        }
    return false;
}

struct lane_moments {
    mg_lanes x, y, xx, xy;
};

/* x, y: whole lanes; what fills them up lies at the origin. */
MG_VECTORISED static void add_block(struct lane_moments *m, const double *x, const double *y, int64_t count, double x0,
                                    double y0) {
    struct lane_moments sums = *m;
    for (int64_t i = 0; i < count; i += MG_LANE_COUNT) {
        mg_lanes dx, dy;
        memcpy(&dx, x + i, sizeof dx);
        memcpy(&dy, y + i, sizeof dy);
        dx -= x0;
        dy -= y0;
        sums.x += dx;
        sums.y += dy;
        sums.xx += dx * dx;
        sums.xy += dx * dy;
    }
    *m = sums;
}

static struct moments chunk_moments(const struct mg_maps *maps, double x0, double y0, int index) {
    const int64_t samples = maps->h * maps->columns, end = mg_chunk_begin(samples, index + 1);
    struct lane_moments lanes = {0};
    double x[MG_BLOCK], y[MG_BLOCK];
    int64_t all = 0;
    for (int64_t i = mg_chunk_begin(samples, index); i < end; i += MG_BLOCK) {
        const int64_t count = mg_sample_block(x, y, maps, i, i + MG_BLOCK < end ? i + MG_BLOCK : end);
        for (int64_t k = count; k % MG_LANE_COUNT; k++) {
            x[k] = x0;
            y[k] = y0;
        }
        add_block(&lanes, x, y, count, x0, y0);
        all += count;
    }
    return (struct moments){.count = all,
                            .x = mg_add_lanes(&lanes.x),
                            .y = mg_add_lanes(&lanes.y),
                            .xx = mg_add_lanes(&lanes.xx),
                            .xy = mg_add_lanes(&lanes.xy)};
}

struct moments_job {
    struct moments *parts;
    const struct mg_maps *maps;
    double x0, y0;
};

static void find_chunk_moments(const void *user, int64_t begin, int64_t end, int thread) {
    const struct moments_job *job = user;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        job->parts[i] = chunk_moments(job->maps, job->x0, job->y0, (int)i);
}

static struct moments moments_about(const struct mg_maps *maps, double x0, double y0, int num_threads) {
    struct moments parts[MG_SUM_CHUNKS], m = {0};
    const bool large = maps->h * maps->columns > 65536;
    mg_parallel_for(large ? mg_threads_or_all(num_threads) : 1, MG_SUM_CHUNKS, find_chunk_moments,
                    &(struct moments_job){.parts = parts, .maps = maps, .x0 = x0, .y0 = y0});
    for (int i = 0; i < MG_SUM_CHUNKS; i++) {
        m.count += parts[i].count;
        m.x += parts[i].x;
        m.y += parts[i].y;
        m.xx += parts[i].xx;
        m.xy += parts[i].xy;
    }
    return m;
}

/* Moments about the first sample give the means, those about the means the fit: a constant prediction has a variance of
 * exactly 0 then, and one that varies little far from 0 keeps its digits. */
mg_status mg_align_least_squares(float *aligned, double *scale, double *shift, const float *prediction,
                                 const float *target, const uint8_t *mask, int64_t h, int64_t w, mg_space space,
                                 int64_t max_resolution, int num_threads, struct mg_err *err) {
    struct mg_maps maps;
    double x0, y0;
    MG_TRY(mg_check_threads(num_threads, err));
    MG_TRY(mg_maps_of(&maps, prediction, target, mask, h, w, space, max_resolution, err));
    if (!find_origin(&x0, &y0, &maps))
        return mg_refuse_no_sample(&maps, err);
    const struct moments first = moments_about(&maps, x0, y0, num_threads);
    x0 += first.x / (double)first.count;
    y0 += first.y / (double)first.count;
    const struct moments m = moments_about(&maps, x0, y0, num_threads);
    const double n = (double)m.count, xx = m.xx - m.x * m.x / n, xy = m.xy - m.x * m.y / n;
    *scale = xx > 0.0 ? xy / xx : 0.0;
    *shift = y0 + m.y / n - *scale * (x0 + m.x / n);
    mg_apply_fit(aligned, &maps, *scale, *shift, num_threads);
    return MG_OK;
}
