/* ensemble_normals.c: normal maps of one scene to one: the direction of the mean, or the member closest to it; the mean
 * angle to it as uncertainty. */
#include <math.h>

#include "../core/thread_pool.h"
#include "ensemble.h"

/* Maps (E, 3, elements): component c of member e at pixel i is data[(3e + c) * elements + i]. */
struct normals {
    const float *data;
    int64_t members, elements;
};

static float component(const struct normals *n, int64_t member, int c, int64_t i) {
    return n->data[(member * 3 + c) * n->elements + i];
}

/* The mean vector at a pixel, of unit length (of a length below 1e-6 over 1e-6). */
static void mean_direction(float mean[3], const struct normals *n, int64_t i) {
    float squares = 0.0f;
    for (int c = 0; c < 3; c++) {
        mean[c] = 0.0f;
        for (int64_t e = 0; e < n->members; e++)
            mean[c] += component(n, e, c, i);
        mean[c] /= (float)n->members;
        squares += mean[c] * mean[c];
    }
    const float length = sqrtf(squares), divisor = length < 1e-6f ? 1e-6f : length;
    for (int c = 0; c < 3; c++)
        mean[c] /= divisor;
}

static void ensemble_pixel(float *out, float *uncertainty, const struct normals *n, int64_t i, mg_reduction reduction) {
    float mean[3], best = -2.0f;
    int64_t closest = 0;
    double angles = 0.0;
    mean_direction(mean, n, i);
    for (int64_t e = 0; e < n->members; e++) {
        float cosine = 0.0f;
        for (int c = 0; c < 3; c++)
            cosine += mean[c] * component(n, e, c, i);
        cosine = cosine < -1.0f ? -1.0f : cosine > 1.0f ? 1.0f : cosine;
        if (cosine > best) {
            best = cosine;
            closest = e;
        }
        if (uncertainty)
            angles += (double)acosf(cosine);
    }
    for (int c = 0; c < 3; c++)
        out[c * n->elements + i] = reduction == MG_REDUCE_MEAN ? mean[c] : component(n, closest, c, i);
    if (uncertainty)
        uncertainty[i] = (float)(angles / (double)n->members / 3.14159265358979323846);
}

struct job {
    const struct normals *n;
    float *out, *uncertainty;
    mg_reduction reduction;
};

static void ensemble_pixels(const void *user, int64_t begin, int64_t end, int thread) {
    const struct job *job = user;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        ensemble_pixel(job->out, job->uncertainty, job->n, i, job->reduction);
}

mg_status mg_ensemble_normals(float *out, float *uncertainty, const float *normals, int64_t members, int64_t h,
                              int64_t w, mg_reduction reduction, int num_threads, struct mg_err *err) {
    const struct normals n = {.data = normals, .members = members, .elements = h * w};
    MG_TRY(mg_check_threads(num_threads, err));
    MG_TRY(mg_check_members(members, h < 1 || w < 1 ? 0 : h * w, err));
    if (reduction != MG_REDUCE_CLOSEST && reduction != MG_REDUCE_MEAN)
        return mg_fail(err, MG_ERR_ARGUMENT, "`reduction` of normals must be closest or mean");
    MG_TRY(mg_check_finite(normals, members, 3 * n.elements, "normals", err));
    mg_parallel_for(n.elements > MG_ENSEMBLE_TILE ? mg_threads_or_all(num_threads) : 1, n.elements, ensemble_pixels,
                    &(struct job){.n = &n, .out = out, .uncertainty = uncertainty, .reduction = reduction});
    return MG_OK;
}
