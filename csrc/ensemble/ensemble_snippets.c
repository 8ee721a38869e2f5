/* ensemble_snippets.c: the maps of a video's snippets to one map of each frame: brought to one least value, aligned by a sample of
 * their pixels (align_snippets.c), averaged frame by frame, and stretched to [0, 1] over the whole video (RollingDepth, arXiv
 * 2411.19189). */
#include <math.h>

#include "../core/thread_pool.h"
#include "ensemble.h"
#include "snippets.h"

/* Of the pixels, rows and columns this far apart are compared, but none this near to the border. */
enum { SAMPLED = 10, BORDER = 2 };

void mg_ensemble_snippets_params_init(struct mg_ensemble_snippets_params *params) {
    *params = (struct mg_ensemble_snippets_params){.iterations = 2000, .rate = 1e-3};
}

static int64_t samples_along(int64_t side) { return (side - 2 * BORDER + SAMPLED - 1) / SAMPLED; }

/* In double, as the sides of differences that a rounding would turn decide where the alignment goes. */
static void sample(double *out, const float *map, int64_t h, int64_t w, double least) {
    for (int64_t y = BORDER; y < h - BORDER; y += SAMPLED)
        for (int64_t x = BORDER; x < w - BORDER; x += SAMPLED)
            *out++ = map[y * w + x] - least;
}

/* ---- merging ---- */
struct merge {
    float *out;
    const float *maps;
    const struct mg_snippets *snippets;
    const double *scale, *shift;
    int64_t pixels;
    double least;
};

static void merge_frames(const void *user, int64_t first, int64_t end, int thread) {
    (void)thread;
    const struct merge *m = user;
    struct mg_frame_map maps[MG_MAX_DILATIONS * MG_MAX_SNIPPET_LENGTH];
    for (int64_t frame = first; frame < end; frame++) {
        const int64_t count = mg_snippets_of_frame(maps, m->snippets, frame);
        for (int64_t i = 0; i < m->pixels; i++) {
            double sum = 0.0;
            for (int64_t c = 0; c < count; c++)
                sum += ((double)m->maps[maps[c].map * m->pixels + i] - m->least) * m->scale[maps[c].snippet] +
                       m->shift[maps[c].snippet];
            m->out[frame * m->pixels + i] = (float)(sum / (double)count);
        }
    }
}

static float least_of(const float *x, int64_t count) {
    float least = INFINITY;
    for (int64_t i = 0; i < count; i++)
        least = x[i] < least ? x[i] : least;
    return least;
}

/* A video of one value becomes 0. */
static void stretch(float *x, int64_t count) {
    const float least = least_of(x, count);
    float span = 0.0f;
    for (int64_t i = 0; i < count; i++)
        span = x[i] - least > span ? x[i] - least : span;
    for (int64_t i = 0; i < count; i++)
        x[i] = span > 0.0f ? (x[i] - least) / span : 0.0f;
}

mg_status mg_ensemble_snippets(float *out, double *scale, double *shift, const float *maps,
                               const struct mg_snippets *snippets, int64_t h, int64_t w,
                               const struct mg_ensemble_snippets_params *params, struct mg_err *err) {
    const int64_t pixels = h * w;
    double *samples = NULL;
    mg_status status;
    MG_TRY(mg_check_snippets(snippets, err));
    if (h <= 2 * BORDER || w <= 2 * BORDER)
        return mg_fail(err, MG_ERR_ARGUMENT, "maps of %lld x %lld pixels; snippets are aligned by %d x %d or more",
                       (long long)h, (long long)w, 2 * BORDER + 1, 2 * BORDER + 1);
    if (params->iterations < 0 || !(params->rate >= 0.0 && params->rate < INFINITY))
        return mg_fail(err, MG_ERR_ARGUMENT, "%d iterations at a rate of %g; both must be 0 or more",
                       params->iterations, params->rate);
    const int64_t count = mg_snippets_count(snippets) * snippets->length;
    MG_TRY(mg_check_finite(maps, count, pixels, "maps", err));
    const int64_t sampled = samples_along(h) * samples_along(w), stride = mg_samples_stride(sampled);
    const float least = least_of(maps, count * pixels);
    MG_TRY_GOTO(
        mg_alloc_zeroed((void **)&samples, (size_t)(count * stride) * sizeof *samples, "samples of the snippets", err));
    for (int64_t i = 0; i < count; i++)
        sample(samples + i * stride, maps + i * pixels, h, w, least);
    MG_TRY_GOTO(mg_align_snippets(scale, shift, samples, sampled, stride, snippets, params, err));
    const struct merge merge = {out, maps, snippets, scale, shift, pixels, least};
    mg_parallel_for(mg_threads_or_all(params->num_threads), snippets->frames, merge_frames, &merge);
    stretch(out, snippets->frames * pixels);
done:
    mg_free(samples);
    return status;
}
