/* depth_metrics.c: all numbers that depth maps are compared by, in one pass (definitions of prs-eth/Marigold,
 * src/util/metric.py).
 *
 * Valid pixels are gathered in blocks. Where a block holds positive finite numbers only, which is the rule, its sums run
 * over eight pixels at a time with a logarithm of our own; else pixel by pixel with the library's, which knows what the
 * logarithm of anything is. */
#include <math.h>
#include <string.h>

#include "../core/thread_pool.h"
#include "evaluation.h"

enum { RELATIVE, RELATIVE_SQUARES, SQUARES, LOGS, LOG_MAGNITUDES, LOG_SQUARES, INVERSE_SQUARES, SUMS };

struct sums {
    int64_t count, within[3];
    mg_lanes of[SUMS];
};

struct block {
    int64_t count;
    bool regular; /* all positive and finite */
    float prediction[MG_BLOCK], target[MG_BLOCK];
};

typedef int64_t mg_lane_bits __attribute__((vector_size(64)));

/* A macro, since passing vectors by value depends on the instruction set. */
#define MAGNITUDE(x) ((mg_lanes)((mg_lane_bits)(x)&INT64_MAX))

/* Of positive numbers that are not subnormal, to 1e-15: x = 2^e m with m within sqrt(2) of 1, and log m = 2 artanh s with
 * s = (m - 1) / (m + 1), |s| < 0.172. */
static inline __attribute__((always_inline)) void logarithm(mg_lanes *out, const mg_lanes *x) {
    const mg_lane_bits bits = (mg_lane_bits)*x;
    const int64_t fraction = (INT64_C(1) << 52) - 1;
    const mg_lanes one = {1, 1, 1, 1, 1, 1, 1, 1};
    mg_lanes m = (mg_lanes)((bits & fraction) | (mg_lane_bits)one);
    const mg_lane_bits large = m > 1.4142135623730951;
    m = (mg_lanes)((mg_lane_bits)m - (large & (INT64_C(1) << 52))); /* half of it */
    const mg_lane_bits exponent = (bits >> 52) - 1023 - large;      /* true is -1 */
    const mg_lanes s = (m - 1.0) / (m + 1.0), z = s * s;
    mg_lanes p = z * (1.0 / 17) + 1.0 / 15;
    p = p * z + 1.0 / 13;
    p = p * z + 1.0 / 11;
    p = p * z + 1.0 / 9;
    p = p * z + 1.0 / 7;
    p = p * z + 1.0 / 5;
    p = p * z + 1.0 / 3;
    p = p * z + 1.0;
    *out = __builtin_convertvector(exponent, mg_lanes) * 0.6931471805599453 + 2.0 * s * p;
}

/* prediction, target: whole lanes; what fills them up is a pair of ones, which adds 0 to every sum. */
MG_VECTORISED static void add_regular(mg_lanes sums[SUMS], const double *prediction, const double *target,
                                      int64_t count) {
    for (int64_t i = 0; i < count; i += MG_LANE_COUNT) {
        mg_lanes p, t, logs;
        memcpy(&p, prediction + i, sizeof p);
        memcpy(&t, target + i, sizeof t);
        const mg_lanes inverse_target = 1.0 / t, ratio = p / t, difference = p - t;
        const mg_lanes inverse = difference / p * inverse_target, relative = difference * inverse_target;
        logarithm(&logs, &ratio);
        sums[RELATIVE] += MAGNITUDE(relative);
        sums[RELATIVE_SQUARES] += difference * relative;
        sums[SQUARES] += difference * difference;
        sums[LOGS] += logs;
        sums[LOG_MAGNITUDES] += MAGNITUDE(logs);
        sums[LOG_SQUARES] += logs * logs;
        sums[INVERSE_SQUARES] += inverse * inverse;
    }
}

static void add_any(mg_lanes sums[SUMS], double p, double t) {
    const double difference = p - t, logs = log(p) - log(t), inverse = 1.0 / p - 1.0 / t;
    const double terms[SUMS] = {[RELATIVE] = fabs(difference) / t,    [RELATIVE_SQUARES] = difference * difference / t,
                                [SQUARES] = difference * difference,  [LOGS] = logs,
                                [LOG_MAGNITUDES] = fabs(logs),        [LOG_SQUARES] = logs * logs,
                                [INVERSE_SQUARES] = inverse * inverse};
    for (int k = 0; k < SUMS; k++)
        sums[k][0] += terms[k];
}

/* The ratios are float32, as they are published: a sample on the threshold falls on the same side. */
MG_VECTORISED static void count_within(int64_t within[3], const float *prediction, const float *target, int64_t count) {
    static const float thresholds[3] = {1.25f, 1.25f * 1.25f, 1.25f * 1.25f * 1.25f};
    for (int k = 0; k < 3; k++) {
        int32_t number = 0;
        for (int64_t i = 0; i < count; i++)
            number += (prediction[i] / target[i] < thresholds[k]) & (target[i] / prediction[i] < thresholds[k]);
        within[k] += number;
    }
}

static void gather(struct block *b, const float *prediction, const float *target, const uint8_t *mask, int64_t begin,
                   int64_t end) {
    int64_t count = 0;
    int irregular = 0;
    for (int64_t i = begin; i < end; i++) {
        b->prediction[count] = prediction[i];
        b->target[count] = target[i];
        count += !mask || mask[i];
    }
    for (int64_t i = 0; i < count; i++)
        irregular |= !(b->prediction[i] > 0.0f) | !(b->prediction[i] < INFINITY) | !(b->target[i] > 0.0f) |
                     !(b->target[i] < INFINITY);
    b->count = count;
    b->regular = !irregular;
}

static void add_block(struct sums *s, const struct block *b) {
    double prediction[MG_BLOCK], target[MG_BLOCK];
    s->count += b->count;
    count_within(s->within, b->prediction, b->target, b->count);
    for (int64_t i = 0; !b->regular && i < b->count; i++)
        add_any(s->of, (double)b->prediction[i], (double)b->target[i]);
    if (!b->regular)
        return;
    for (int64_t i = 0; i < b->count; i++) {
        prediction[i] = (double)b->prediction[i];
        target[i] = (double)b->target[i];
    }
    for (int64_t i = b->count; i % MG_LANE_COUNT; i++)
        prediction[i] = target[i] = 1.0;
    add_regular(s->of, prediction, target, b->count);
}

struct job {
    struct sums *parts;
    const float *prediction, *target;
    const uint8_t *mask;
    int64_t pixels;
};

static void sum_chunks(const void *user, int64_t first, int64_t last, int thread) {
    const struct job *job = user;
    struct block block;
    (void)thread;
    for (int64_t chunk = first; chunk < last; chunk++) {
        const int64_t end = mg_chunk_begin(job->pixels, (int)chunk + 1);
        for (int64_t i = mg_chunk_begin(job->pixels, (int)chunk); i < end; i += MG_BLOCK) {
            gather(&block, job->prediction, job->target, job->mask, i, i + MG_BLOCK < end ? i + MG_BLOCK : end);
            add_block(&job->parts[chunk], &block);
        }
    }
}

mg_status mg_depth_metrics(struct mg_depth_metrics *out, const float *prediction, const float *target,
                           const uint8_t *mask, int64_t pixels, int num_threads, struct mg_err *err) {
    struct sums parts[MG_SUM_CHUNKS] = {0};
    double total[SUMS] = {0};
    int64_t count = 0, within[3] = {0};
    MG_TRY(mg_check_threads(num_threads, err));
    const struct job job = {.parts = parts, .prediction = prediction, .target = target, .mask = mask, .pixels = pixels};
    mg_parallel_for(pixels > 16384 ? mg_threads_or_all(num_threads) : 1, MG_SUM_CHUNKS, sum_chunks, &job);
    for (int chunk = 0; chunk < MG_SUM_CHUNKS; chunk++) {
        count += parts[chunk].count;
        for (int k = 0; k < 3; k++)
            within[k] += parts[chunk].within[k];
        for (int k = 0; k < SUMS; k++)
            total[k] += mg_add_lanes(&parts[chunk].of[k]);
    }
    if (!count)
        return mg_fail(err, MG_ERR_ARGUMENT, "no valid pixel to compare among %lld", (long long)pixels);
    const double n = (double)count, mean = total[LOGS] / n, variance = total[LOG_SQUARES] / n - mean * mean;
    *out = (struct mg_depth_metrics){.pixels = count,
                                     .abs_relative_difference = total[RELATIVE] / n,
                                     .squared_relative_difference = total[RELATIVE_SQUARES] / n,
                                     .rmse_linear = sqrt(total[SQUARES] / n),
                                     .rmse_log = sqrt(total[LOG_SQUARES] / n),
                                     .log10 = total[LOG_MAGNITUDES] / n / log(10.0),
                                     .delta1_acc = (double)within[0] / n,
                                     .delta2_acc = (double)within[1] / n,
                                     .delta3_acc = (double)within[2] / n,
                                     .i_rmse = sqrt(total[INVERSE_SQUARES] / n),
                                     .silog_rmse = 100.0 * sqrt(variance < 0.0 ? 0.0 : variance)};
    return MG_OK;
}
