/* evaluation.h: what the files of this room share. An evaluation fits a prediction to a ground truth (depth is known up to
 * scale and shift) and compares both.
 *
 * Pixels are cut into chunks whose borders depend on their number alone, sums are double, and partial sums are added in
 * the order of the chunks: no result depends on the number of threads. */
#ifndef MG_EVALUATION_H
#define MG_EVALUATION_H
#include "../core/core.h"

enum { MG_SUM_CHUNKS = 64 };

/* The first element of chunk `index`; of the next chunk for index + 1. */
static inline int64_t mg_chunk_begin(int64_t count, int index) {
    const int64_t rest = count % MG_SUM_CHUNKS;
    return count / MG_SUM_CHUNKS * index + (index < rest ? index : rest);
}

/* ---- sums over eight numbers at a time, whose lanes are added in their order at the end ---- */
typedef double mg_lanes __attribute__((vector_size(64)));
enum { MG_LANE_COUNT = 8, MG_BLOCK = 256 /* pixels gathered at once, a whole number of lanes */ };

static inline double mg_add_lanes(const mg_lanes *v) {
    double sum = 0;
    for (int i = 0; i < MG_LANE_COUNT; i++)
        sum += (*v)[i];
    return sum;
}

/* ---- samples.c: the pixels that a fit sees ---- */
struct mg_maps {
    const float *prediction, *target;
    const uint8_t *mask; /* NULL: all pixels */
    int64_t h, w;
    int64_t columns; /* of each row, how many are seen: w, or fewer */
    float step;      /* from one of them to the next */
    mg_space space;
};

mg_status mg_maps_of(struct mg_maps *out, const float *prediction, const float *target, const uint8_t *mask, int64_t h,
                     int64_t w, mg_space space, int64_t max_resolution, struct mg_err *err);
/* Samples begin..end of h * columns, at most MG_BLOCK: the valid ones' predictions and targets, in the space of the fit, one
 * after the other; returns their number. */
int64_t mg_sample_block(double *x, double *y, const struct mg_maps *maps, int64_t begin, int64_t end);
/* All valid samples, in order; free x with mg_free. MG_ERR_ARGUMENT if there is none. */
mg_status mg_gather_samples(double **x, double **y, int64_t *count, const struct mg_maps *maps, struct mg_err *err);
/* MG_ERR_ARGUMENT: no valid pixel. */
mg_status mg_refuse_no_sample(const struct mg_maps *maps, struct mg_err *err);
/* aligned = scale * prediction + shift, brought from the space of the fit back to depth. */
void mg_apply_fit(float *aligned, const struct mg_maps *maps, double scale, double shift, int num_threads);

/* ---- select.c ---- */
/* The median (the mean of the middle two); the values are left in another order. count >= 1. NaN if any value is NaN. */
double mg_median_of(double *values, int64_t count);
float mg_median_of_floats(float *values, int64_t count);

#endif
