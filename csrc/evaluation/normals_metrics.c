/* normals_metrics.c: angles between predicted and true surface normals, and the numbers made of them (definitions of
 * prs-eth/Marigold, src/util/metric.py). */
#include <math.h>
#include <string.h>

#include "../core/thread_pool.h"
#include "evaluation.h"

static const double DEGREES = 180.0 / 3.14159265358979323846, LEAST_LENGTH = 1e-8;

static double length_of(const float v[3]) {
    return sqrt((double)v[0] * (double)v[0] + (double)v[1] * (double)v[1] + (double)v[2] * (double)v[2]);
}

/* Degrees; a vector without a length is at 90 degrees to all, as torch's cosine_similarity has it. */
static float angle_between(const float a[3], const float b[3], double length_of_b) {
    const double dot = (double)a[0] * (double)b[0] + (double)a[1] * (double)b[1] + (double)a[2] * (double)b[2];
    const double product = fmax(length_of(a), LEAST_LENGTH) * fmax(length_of_b, LEAST_LENGTH), cosine = dot / product;
    return (float)(acos(cosine > 1.0 ? 1.0 : cosine < -1.0 ? -1.0 : cosine) * DEGREES);
}

/* The errors of pixels begin..end one after the other at out; returns their number. */
static int64_t chunk_errors(float *out, const float *prediction, const float *target, const uint8_t *mask,
                            int64_t begin, int64_t end) {
    int64_t count = 0;
    for (int64_t i = begin; i < end; i++) {
        const double length = length_of(target + 3 * i);
        if ((!mask || mask[i]) && length > 0.0)
            out[count++] = angle_between(prediction + 3 * i, target + 3 * i, length);
    }
    return count;
}

struct job {
    float *out;
    const float *prediction, *target;
    const uint8_t *mask;
    int64_t pixels, *counts;
};

static void find_chunk_errors(const void *user, int64_t first, int64_t end, int thread) {
    const struct job *job = user;
    (void)thread;
    for (int64_t chunk = first; chunk < end; chunk++) {
        const int64_t begin = mg_chunk_begin(job->pixels, (int)chunk);
        job->counts[chunk] = chunk_errors(job->out + begin, job->prediction, job->target, job->mask, begin,
                                          mg_chunk_begin(job->pixels, (int)chunk + 1));
    }
}

mg_status mg_angular_errors(float *out, int64_t *count, const float *prediction, const float *target,
                            const uint8_t *mask, int64_t pixels, int num_threads, struct mg_err *err) {
    int64_t counts[MG_SUM_CHUNKS], all = 0;
    MG_TRY(mg_check_threads(num_threads, err));
    const struct job job = {
        .out = out, .prediction = prediction, .target = target, .mask = mask, .pixels = pixels, .counts = counts};
    mg_parallel_for(pixels > 16384 ? mg_threads_or_all(num_threads) : 1, MG_SUM_CHUNKS, find_chunk_errors, &job);
    for (int chunk = 0; chunk < MG_SUM_CHUNKS; chunk++) {
        memmove(out + all, out + mg_chunk_begin(pixels, chunk), (size_t)counts[chunk] * sizeof *out);
        all += counts[chunk];
    }
    *count = all;
    return MG_OK;
}

mg_status mg_angle_statistics(struct mg_angle_statistics *out, float *errors, int64_t count, struct mg_err *err) {
    static const float bounds[5] = {5.0f, 7.5f, 11.25f, 22.5f, 30.0f};
    double sum = 0, squares = 0;
    int64_t below[5] = {0};
    if (count < 1)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "no valid pixel to compare: the truth has no vector of positive length "
                       "where the mask is set");
    for (int64_t i = 0; i < count; i++) {
        sum += (double)errors[i];
        squares += (double)errors[i] * (double)errors[i];
        for (int k = 0; k < 5; k++)
            below[k] += errors[i] < bounds[k];
    }
    const double n = (double)count;
    *out = (struct mg_angle_statistics){.pixels = count, .mean = sum / n, .rmse = sqrt(squares / n)};
    out->median = (double)mg_median_of_floats(errors, count);
    for (int k = 0; k < 5; k++)
        out->percent_below[k] = 100.0 * (double)below[k] / n;
    return MG_OK;
}
