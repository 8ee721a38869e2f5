/* align_reference.c: the alignment of diffusers and of the paper's code, for whoever must repeat old runs: the sum over
 * pairs of the root mean square difference, and a regulariser that pulls the reduction to [0, 1], minimised by BFGS with
 * finite differences.
 *
 * The references compute the cost in float32 and differentiate it with steps of 1.5e-8, which is below the resolution of
 * a float32: most differences vanish and the solver stalls near its start, which is what saves it from the useless minimum
 * of this cost where all scales are zero. So the parameters are rounded to float32 here as there, on purpose; a difference
 * is computed only where the rounded parameter changes, and then only its member's pairs are computed anew. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../core/thread_pool.h"
#include "ensemble.h"

enum { LANES = 16 };
typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

static const double difference_step = 1.4901161193847656e-08; /* the root of the double's epsilon */

struct alignment {
    const float *depth;
    int64_t members, elements;
    bool shifts;
    const struct mg_ensemble_depth_params *params;
    int threads;
    float *scale, *shift; /* of the parameters in use */
    double *squares;      /* chunks x members x members, lower half: sums of squared differences */
    float *rows;          /* threads x members x tile */
    float *largest;       /* members: largest absolute depth */
    /* At the last evaluation of all members: */
    float *distance;             /* members x members, lower half: root mean square differences */
    float *tile_low, *tile_high; /* of the reduction, by tile */
    float low, high;             /* over all tiles */
    /* Of the evaluation in progress, by chunk: */
    float *chunk_low, *chunk_high;
};

/* What is evaluated: all pairs, or (member >= 0) those of a member whose aligned map moved by at most `moved`. */
struct evaluation {
    int64_t member;
    float moved;
};

/* ---- one pass over the maps ---- */
MG_VECTORISED static double squared_difference(const float *a, const float *b) {
    lanes sum = {0};
    for (int k = 0; k < MG_ENSEMBLE_TILE; k += LANES) {
        lanes x, y;
        memcpy(&x, a + k, sizeof x);
        memcpy(&y, b + k, sizeof y);
        x -= y;
        sum += x * x;
    }
    float total = 0.0f;
    for (int k = 0; k < LANES; k++)
        total += sum[k];
    return (double)total;
}

static void add_squares(double *squares, const float *rows, int64_t n, int64_t member) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++)
            if (member < 0 || i == member || j == member)
                squares[i * n + j] += squared_difference(rows + i * MG_ENSEMBLE_TILE, rows + j * MG_ENSEMBLE_TILE);
}

/* Whether the tile can hold the minimum or maximum of the reduction, which moves no further than the member did. */
static bool may_bound(const struct alignment *a, int64_t tile, const struct evaluation *evaluation) {
    return evaluation->member < 0 || !(a->tile_low[tile] - a->low > 2.0f * evaluation->moved) ||
           !(a->high - a->tile_high[tile] > 2.0f * evaluation->moved);
}

static void bound_tile(const struct alignment *a, int64_t c, float *rows, int64_t tile, int64_t width,
                       const struct evaluation *evaluation) {
    float reduced[MG_ENSEMBLE_TILE];
    float low = INFINITY, high = -INFINITY;
    mg_reduce_tile(reduced, rows, a->members, width, a->params->reduction);
    for (int64_t i = 0; i < width; i++) {
        low = reduced[i] < low ? reduced[i] : low;
        high = reduced[i] > high ? reduced[i] : high;
    }
    a->chunk_low[c] = fminf(a->chunk_low[c], low);
    a->chunk_high[c] = fmaxf(a->chunk_high[c], high);
    if (evaluation->member < 0) {
        a->tile_low[tile] = low;
        a->tile_high[tile] = high;
    }
}

static void evaluate_chunk(const struct alignment *a, int64_t c, const struct evaluation *evaluation, int thread) {
    const struct mg_members m = {.data = a->depth,
                                 .count = a->members,
                                 .elements = a->elements,
                                 .scale = a->scale,
                                 .shift = a->shifts ? a->shift : NULL};
    const struct mg_chunk chunk = mg_chunk_of(a->elements, (int)c);
    double *squares = a->squares + c * a->members * a->members;
    float *rows = a->rows + thread * a->members * MG_ENSEMBLE_TILE;
    memset(squares, 0, (size_t)(a->members * a->members) * sizeof(double));
    a->chunk_low[c] = INFINITY;
    a->chunk_high[c] = -INFINITY;
    for (int64_t begin = chunk.begin; begin < chunk.end; begin += MG_ENSEMBLE_TILE) {
        const int64_t left = chunk.end - begin, width = left < MG_ENSEMBLE_TILE ? left : MG_ENSEMBLE_TILE;
        mg_align_tile(rows, &m, begin, width);
        add_squares(squares, rows, a->members, evaluation->member);
        if (a->params->regularizer_strength > 0 && may_bound(a, begin / MG_ENSEMBLE_TILE, evaluation))
            bound_tile(a, c, rows, begin / MG_ENSEMBLE_TILE, width, evaluation);
    }
}

static float distance_of(const struct alignment *a, int64_t i, int64_t j) {
    double sum = 0.0;
    for (int c = 0; c < MG_ENSEMBLE_CHUNKS; c++)
        sum += a->squares[(c * a->members + i) * a->members + j];
    return sqrtf((float)(sum / (double)a->elements));
}

static double sum_of_distances(struct alignment *a, int64_t member) {
    double sum = 0.0;
    for (int64_t j = 0; j < a->members; j++)
        for (int64_t i = j + 1; i < a->members; i++) {
            float distance = a->distance[i * a->members + j];
            if (member < 0 || i == member || j == member)
                distance = distance_of(a, i, j);
            if (member < 0)
                a->distance[i * a->members + j] = distance;
            sum += (double)distance;
        }
    return sum;
}

static double regulariser(struct alignment *a, int64_t member) {
    float low = INFINITY, high = -INFINITY;
    if (!(a->params->regularizer_strength > 0))
        return 0.0;
    for (int c = 0; c < MG_ENSEMBLE_CHUNKS; c++) {
        low = fminf(low, a->chunk_low[c]);
        high = fmaxf(high, a->chunk_high[c]);
    }
    if (member < 0) {
        a->low = low;
        a->high = high;
    }
    return ((double)fabsf(low) + (double)fabsf(1.0f - high)) * a->params->regularizer_strength;
}

struct evaluation_job {
    const struct alignment *a;
    const struct evaluation *evaluation;
};

static void evaluate_chunks(const void *user, int64_t begin, int64_t end, int thread) {
    const struct evaluation_job *job = user;
    for (int64_t c = begin; c < end; c++)
        evaluate_chunk(job->a, c, job->evaluation, thread);
}

/* Cost at the parameters in use. */
static mg_status cost_of(double *cost, struct alignment *a, struct evaluation evaluation, struct mg_err *err) {
    if (a->params->poll && a->params->poll(a->params->poll_user))
        return mg_fail(err, MG_ERR_CANCELLED, "stopped on request");
    mg_parallel_for(a->threads, MG_ENSEMBLE_CHUNKS, evaluate_chunks,
                    &(struct evaluation_job){.a = a, .evaluation = &evaluation});
    *cost = sum_of_distances(a, evaluation.member) + regulariser(a, evaluation.member);
    return MG_OK;
}

/* ---- the cost ---- */
static float *parameter(struct alignment *a, int64_t k) {
    return k < a->members ? a->scale + k : a->shift + (k - a->members);
}

static mg_status evaluate(double *value, double *gradient, const double *x, void *user, struct mg_err *err) {
    struct alignment *a = user;
    const int64_t n = a->shifts ? 2 * a->members : a->members;
    for (int64_t k = 0; k < n; k++)
        *parameter(a, k) = (float)x[k];
    MG_TRY(cost_of(value, a, (struct evaluation){.member = -1}, err));
    for (int64_t k = 0; gradient && k < n; k++) {
        const double moved = x[k] + difference_step;
        const float now = *parameter(a, k);
        double cost = *value;
        if ((float)moved != now) {
            struct evaluation evaluation = {.member = k % a->members, .moved = fabsf((float)moved - now)};
            /* An offset moves a map by as much, a factor by as much times the depth; and both round. */
            evaluation.moved =
                (evaluation.moved + 1e-6f * fabsf(now)) * (k < a->members ? a->largest[k] : 1.0f) + 1e-6f;
            *parameter(a, k) = (float)moved;
            MG_TRY(cost_of(&cost, a, evaluation, err));
            *parameter(a, k) = now;
        }
        gradient[k] = cost == *value ? 0.0 : (cost - *value) / (moved - x[k]);
    }
    return MG_OK;
}

/* Each member from 0 to 1 (or, scale-invariant, to a maximum of 1). */
static void start_from_range(double *x, struct alignment *a) {
    for (int64_t e = 0; e < a->members; e++) {
        const float *d = a->depth + e * a->elements;
        float low = d[0], high = d[0];
        for (int64_t i = 1; i < a->elements; i++) {
            low = d[i] < low ? d[i] : low;
            high = d[i] > high ? d[i] : high;
        }
        const float range = a->shifts ? high - low : high, scale = 1.0f / (range < 1e-6f ? 1e-6f : range);
        a->largest[e] = fmaxf(fabsf(low), fabsf(high));
        x[e] = scale;
        if (a->shifts)
            x[a->members + e] = -scale * low;
    }
}

static mg_status alloc_alignment(struct alignment *a, struct mg_err *err) {
    const size_t n = (size_t)a->members, tiles = (size_t)(a->elements / MG_ENSEMBLE_TILE + 1);
    float *floats;
    MG_TRY(mg_alloc((void **)&a->squares, MG_ENSEMBLE_CHUNKS * n * n * sizeof(double), "sums over pairs", err));
    MG_TRY(
        mg_alloc((void **)&a->rows, (size_t)a->threads * n * MG_ENSEMBLE_TILE * sizeof(float), "aligned tiles", err));
    MG_TRY(mg_alloc_zeroed((void **)&floats, (n * n + n + 2 * tiles + 2 * MG_ENSEMBLE_CHUNKS) * sizeof(float),
                           "distances of pairs", err));
    a->distance = floats;
    a->largest = a->distance + n * n;
    a->tile_low = a->largest + n;
    a->tile_high = a->tile_low + tiles;
    a->chunk_low = a->tile_high + tiles;
    a->chunk_high = a->chunk_low + MG_ENSEMBLE_CHUNKS;
    return MG_OK;
}

mg_status mg_align_reference(float *scale, float *shift, const float *depth, int64_t members, int64_t elements,
                             const struct mg_ensemble_depth_params *params, struct mg_err *err) {
    struct alignment a = {.depth = depth,
                          .members = members,
                          .elements = elements,
                          .shifts = shift != NULL,
                          .params = params,
                          .threads = mg_threads_or_all(params->num_threads),
                          .scale = scale,
                          .shift = shift};
    const struct mg_cost_function cost = {.evaluate = evaluate, .user = &a, .n = (int)(shift ? 2 * members : members)};
    double *x = NULL;
    mg_status status;
    MG_TRY_GOTO(alloc_alignment(&a, err));
    MG_TRY_GOTO(mg_alloc((void **)&x, (size_t)cost.n * sizeof(double), "scales and shifts", err));
    start_from_range(x, &a);
    MG_TRY_GOTO(mg_bfgs(x, &cost, params->max_iter, params->tol, err));
    for (int k = 0; k < cost.n; k++)
        *parameter(&a, k) = (float)x[k];
done:
    mg_free(x);
    mg_free(a.squares);
    mg_free(a.rows);
    mg_free(a.distance);
    return status;
}
