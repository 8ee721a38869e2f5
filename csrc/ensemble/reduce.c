/* reduce.c: many maps to one, pixel by pixel: median or mean, and the spread.
 *
 * The median of a column is found by sorting: a tile of columns goes through one sorting network (merge exchange, Knuth
 * 5.2.2M), whose steps compare whole rows and so run on vectors. */
#include <math.h>

#include "../core/thread_pool.h"
#include "ensemble.h"

static inline __attribute__((always_inline)) void exchange(float *restrict a, float *restrict b) {
    for (int i = 0; i < MG_ENSEMBLE_TILE; i++) {
        float x = a[i], y = b[i];
        a[i] = x < y ? x : y;
        b[i] = x < y ? y : x;
    }
}

MG_VECTORISED static void sort_columns(float *rows, int64_t count) {
    int64_t top = 1;
    while (top < count)
        top *= 2;
    for (int64_t p = top / 2; p > 0; p /= 2) {
        int64_t q = top / 2, r = 0;
        for (int64_t d = p;; d = q - p, q /= 2, r = p) {
            for (int64_t i = 0; i + d < count; i++)
                if ((i & p) == r)
                    exchange(rows + i * MG_ENSEMBLE_TILE, rows + (i + d) * MG_ENSEMBLE_TILE);
            if (q == p)
                break;
        }
    }
}

MG_VECTORISED static void mean_of_columns(float *restrict out, const float *restrict rows, int64_t count,
                                          int64_t width) {
    for (int64_t i = 0; i < width; i++)
        out[i] = 0.0f;
    for (int64_t e = 0; e < count; e++)
        for (int64_t i = 0; i < width; i++)
            out[i] += rows[e * MG_ENSEMBLE_TILE + i];
    for (int64_t i = 0; i < width; i++)
        out[i] /= (float)count;
}

/* For the baseline only: the clones would fuse product and sum, and the reference solver lives on their two roundings. */
static void align_row(float *restrict out, const float *restrict in, int64_t width, float scale, float shift) {
    for (int64_t i = 0; i < width; i++)
        out[i] = in[i] * scale + shift;
}

void mg_align_tile(float *rows, const struct mg_members *m, int64_t begin, int64_t width) {
    for (int64_t e = 0; e < m->count; e++) {
        float *row = rows + e * MG_ENSEMBLE_TILE;
        align_row(row, m->data + (m->member ? m->member[e] : e) * m->elements + begin, width,
                  m->scale ? m->scale[e] : 1.0f, m->shift ? m->shift[e] : 0.0f);
        for (int64_t i = width; i < MG_ENSEMBLE_TILE; i++) /* the network runs over whole rows */
            row[i] = 0.0f;
    }
}

void mg_reduce_tile(float *out, float *rows, int64_t count, int64_t width, mg_reduction reduction) {
    if (reduction == MG_REDUCE_MEAN) {
        mean_of_columns(out, rows, count, width);
        return;
    }
    sort_columns(rows, count);
    const float *middle = rows + (count - 1) / 2 * MG_ENSEMBLE_TILE; /* the lower of two, as torch.median */
    for (int64_t i = 0; i < width; i++)
        out[i] = middle[i];
}

/* Spread of the rows about `centre`: median absolute deviation, or the standard deviation over count - 1. */
static void spread_of_tile(float *out, float *rows, const float *centre, int64_t count, int64_t width,
                           mg_reduction reduction) {
    if (reduction == MG_REDUCE_MEAN) {
        for (int64_t i = 0; i < width; i++) {
            double sum = 0.0;
            for (int64_t e = 0; e < count; e++) {
                double difference = (double)rows[e * MG_ENSEMBLE_TILE + i] - (double)centre[i];
                sum += difference * difference;
            }
            out[i] = count > 1 ? (float)sqrt(sum / (double)(count - 1)) : 0.0f;
        }
        return;
    }
    for (int64_t e = 0; e < count; e++)
        for (int64_t i = 0; i < width; i++)
            rows[e * MG_ENSEMBLE_TILE + i] = fabsf(rows[e * MG_ENSEMBLE_TILE + i] - centre[i]);
    mg_reduce_tile(out, rows, count, width, MG_REDUCE_MEDIAN);
}

struct job {
    float *out, *uncertainty, *rows; /* rows: of all threads */
    const struct mg_members *m;
    mg_reduction reduction;
};

static void reduce_tiles(const void *user, int64_t first, int64_t end, int thread) {
    const struct job *job = user;
    const struct mg_members *m = job->m;
    float *rows = job->rows + (int64_t)thread * m->count * MG_ENSEMBLE_TILE;
    for (int64_t tile = first; tile < end; tile++) {
        const int64_t begin = tile * MG_ENSEMBLE_TILE, left = m->elements - begin;
        const int64_t width = left < MG_ENSEMBLE_TILE ? left : MG_ENSEMBLE_TILE;
        mg_align_tile(rows, m, begin, width);
        mg_reduce_tile(job->out + begin, rows, m->count, width, job->reduction);
        if (job->uncertainty)
            spread_of_tile(job->uncertainty + begin, rows, job->out + begin, m->count, width, job->reduction);
    }
}

mg_status mg_reduce_members(float *out, float *uncertainty, const struct mg_members *m, mg_reduction reduction,
                            int num_threads, struct mg_err *err) {
    const int64_t tiles = (m->elements + MG_ENSEMBLE_TILE - 1) / MG_ENSEMBLE_TILE;
    const int wanted = mg_threads_or_all(num_threads), threads = wanted < tiles ? wanted : (int)tiles;
    struct job job = {.out = out, .uncertainty = uncertainty, .m = m, .reduction = reduction};
    MG_TRY(mg_alloc((void **)&job.rows, (size_t)(threads * m->count) * MG_ENSEMBLE_TILE * sizeof(float),
                    "a tile of an ensemble", err));
    mg_parallel_for(threads, tiles, reduce_tiles, &job);
    mg_free(job.rows);
    return MG_OK;
}

mg_status mg_check_members(int64_t members, int64_t elements, struct mg_err *err) {
    if (members < 1 || members > MG_MAX_MEMBERS || elements < 1)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "an ensemble of %lld members of %lld values; it must have 1 to %d members that are not empty",
                       (long long)members, (long long)elements, MG_MAX_MEMBERS);
    return MG_OK;
}

static bool in_range(float x) { return fabsf(x) <= 1e18f; }

mg_status mg_check_finite(const float *data, int64_t members, int64_t elements, const char *name, struct mg_err *err) {
    enum { BLOCK = 4096 };
    for (int64_t begin = 0; begin < members * elements; begin += BLOCK) {
        const int64_t left = members * elements - begin, count = left < BLOCK ? left : BLOCK;
        int outside = 0; /* without a branch in it, the loop runs on vectors */
        for (int64_t i = begin; i < begin + count; i++)
            outside |= !in_range(data[i]);
        for (int64_t i = begin; outside && i < begin + count; i++)
            if (!in_range(data[i]))
                return mg_fail(err, MG_ERR_ARGUMENT,
                               "`%s` must be finite and at most 1e18: element %lld of member %lld is %g", name,
                               (long long)(i % elements), (long long)(i / elements), (double)data[i]);
    }
    return MG_OK;
}
