/* samples.c: which pixels a fit sees, and in which quantity. */
#include <math.h>
#include <string.h>

#include "../core/thread_pool.h"
#include "evaluation.h"

mg_status mg_space_from_name(mg_space *out, const char *name, struct mg_err *err) {
    static const char *const names[] = {
        [MG_SPACE_DEPTH] = "depth", [MG_SPACE_DISPARITY] = "disparity", [MG_SPACE_LOG] = "log"};
    for (int i = 0; i <= MG_SPACE_LOG; i++)
        if (!strcmp(names[i], name)) {
            *out = (mg_space)i;
            return MG_OK;
        }
    return mg_fail(err, MG_ERR_ARGUMENT, "`space` must be \"depth\", \"disparity\" or \"log\"; got \"%s\"", name);
}

/* Every row, and every `step`-th column, at whole positions below them: torch's nearest resize by a factor. The paper's
 * code means both directions, but hands torch a map (1, h, w), of which it resizes the last axis only; the published
 * figures are made so. */
mg_status mg_maps_of(struct mg_maps *out, const float *prediction, const float *target, const uint8_t *mask, int64_t h,
                     int64_t w, mg_space space, int64_t max_resolution, struct mg_err *err) {
    if (h < 1 || w < 1 || max_resolution < 0)
        return mg_fail(err, MG_ERR_ARGUMENT, "maps of %lld x %lld cannot be aligned at max_resolution %lld",
                       (long long)h, (long long)w, (long long)max_resolution);
    *out = (struct mg_maps){.prediction = prediction,
                            .target = target,
                            .mask = mask,
                            .h = h,
                            .w = w,
                            .columns = w,
                            .step = 1.0f,
                            .space = space};
    const int64_t longest = h > w ? h : w;
    if (max_resolution && longest > max_resolution) {
        const double factor = (double)max_resolution / (double)longest;
        out->columns = (int64_t)((double)w * factor);
        out->step = (float)(1.0 / factor);
    }
    return MG_OK;
}

static int64_t position(const struct mg_maps *maps, int64_t index) {
    if (maps->columns == maps->w)
        return index;
    const int64_t row = index / maps->columns;
    const int64_t column = (int64_t)floorf((float)(index % maps->columns) * maps->step);
    return row * maps->w + (column < maps->w ? column : maps->w - 1);
}

static double in_space(float target, mg_space space) {
    switch (space) {
    case MG_SPACE_DISPARITY:
        return 1.0 / (double)target;
    case MG_SPACE_LOG:
        return log((double)target);
    default:
        return (double)target;
    }
}

/* Every pixel is written, and the next one over it if it is not valid: a branch would be mispredicted at every edge of the
 * mask. */
int64_t mg_sample_block(double *x, double *y, const struct mg_maps *maps, int64_t begin, int64_t end) {
    float targets[MG_BLOCK];
    int64_t count = 0;
    const bool positive_prediction = maps->space == MG_SPACE_DISPARITY, positive_target = maps->space != MG_SPACE_DEPTH;
    for (int64_t i = begin; i < end; i++) {
        const int64_t at = position(maps, i);
        const float prediction = maps->prediction[at], target = maps->target[at];
        x[count] = (double)prediction;
        targets[count] = target;
        count += (!maps->mask || maps->mask[at]) & (prediction - prediction == 0.0f) & (target - target == 0.0f) &
                 (!positive_prediction | (prediction > 0.0f)) & (!positive_target | (target > 0.0f));
    }
    for (int64_t i = 0; i < count; i++)
        y[i] = in_space(targets[i], maps->space);
    return count;
}

mg_status mg_refuse_no_sample(const struct mg_maps *maps, struct mg_err *err) {
    return mg_fail(err, MG_ERR_ARGUMENT, "no valid pixel to align among %lld x %lld", (long long)maps->h,
                   (long long)maps->columns);
}

mg_status mg_gather_samples(double **x, double **y, int64_t *count, const struct mg_maps *maps, struct mg_err *err) {
    const int64_t all = maps->h * maps->columns;
    size_t bytes;
    if (!mg_size_mul(&bytes, (size_t)all, 2 * sizeof(double)))
        bytes = SIZE_MAX; /* refused by mg_alloc */
    MG_TRY(mg_alloc((void **)x, bytes, "the samples of a fit", err));
    *y = *x + all;
    *count = 0;
    for (int64_t i = 0; i < all; i += MG_BLOCK) {
        double block[2][MG_BLOCK];
        const int64_t found = mg_sample_block(block[0], block[1], maps, i, i + MG_BLOCK < all ? i + MG_BLOCK : all);
        memcpy(*x + *count, block[0], (size_t)found * sizeof **x);
        memcpy(*y + *count, block[1], (size_t)found * sizeof **y);
        *count += found;
    }
    if (*count)
        return MG_OK;
    mg_free(*x);
    *x = NULL;
    return mg_refuse_no_sample(maps, err);
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

struct fit {
    float *aligned;
    const struct mg_maps *maps;
    double scale, shift;
};

static void apply_to_pixels(const void *user, int64_t begin, int64_t end, int thread) {
    const struct fit *fit = user;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        fit->aligned[i] = aligned_value((double)fit->maps->prediction[i] * fit->scale + fit->shift, fit->maps->space);
}

void mg_apply_fit(float *aligned, const struct mg_maps *maps, double scale, double shift, int num_threads) {
    const int64_t count = maps->h * maps->w;
    mg_parallel_for(count > 65536 ? mg_threads_or_all(num_threads) : 1, count, apply_to_pixels,
                    &(struct fit){.aligned = aligned, .maps = maps, .scale = scale, .shift = shift});
}
