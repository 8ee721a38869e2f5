/* ensemble.h: what the files of this room share. Ensembling merges E maps of one scene: aligned (depth only), reduced
 * pixel by pixel, with the spread as uncertainty.
 *
 * Work is cut into tiles and chunks whose borders depend on the sizes alone, and partial sums are added in their order:
 * no result depends on the number of threads. */
#ifndef MG_ENSEMBLE_H
#define MG_ENSEMBLE_H
#include "../core/core.h"

/* (E, elements) maps, each read as scale*value + shift. scale NULL: as it is. */
struct mg_members {
    const float *data;
    int64_t count, elements;
    const float *scale, *shift;
    const int *member; /* NULL, or which `count` of the maps these are; scale and shift follow this list */
};

enum {
    MG_ENSEMBLE_TILE = 256, /* elements of all members that a thread works on at once */
    MG_ENSEMBLE_CHUNKS = 32 /* at most so many partial sums */
};

/* Chunk `index` of `elements`: elements begin..end, whole tiles. */
struct mg_chunk {
    int64_t begin, end;
};
static inline struct mg_chunk mg_chunk_of(int64_t elements, int index) {
    int64_t tiles = (elements + MG_ENSEMBLE_TILE - 1) / MG_ENSEMBLE_TILE;
    struct mg_chunk chunk = {tiles * index / MG_ENSEMBLE_CHUNKS * MG_ENSEMBLE_TILE,
                             tiles * (index + 1) / MG_ENSEMBLE_CHUNKS * MG_ENSEMBLE_TILE};
    if (chunk.end > elements)
        chunk.end = elements;
    return chunk;
}

/* 1 to MG_MAX_MEMBERS members of at least one element. */
mg_status mg_check_members(int64_t members, int64_t elements, struct mg_err *err);
/* A number that is not finite, or beyond 1e18 (its square leaves float32), is an error that names member and place. */
mg_status mg_check_finite(const float *data, int64_t members, int64_t elements, const char *name, struct mg_err *err);

/* ---- reduce.c ---- */
/* rows: count rows of MG_ENSEMBLE_TILE floats; aligned[e][i] = scale[e]*data[e][begin+i] + shift[e], i < width <= tile. */
void mg_align_tile(float *rows, const struct mg_members *members, int64_t begin, int64_t width);
/* out[i] of the rows i < width: lower median (rows are sorted by column) or mean. */
void mg_reduce_tile(float *out, float *rows, int64_t count, int64_t width, mg_reduction reduction);
/* out (elements); uncertainty NULL or (elements): median absolute deviation from the median, or standard deviation. */
mg_status mg_reduce_members(float *out, float *uncertainty, const struct mg_members *members, mg_reduction reduction,
                            int num_threads, struct mg_err *err);

/* ---- alignment of depth: scale and shift of E members; shift is NULL unless shift_invariant ---- */
/* align_closed_form.c: a member that takes no part gets scale 0. */
mg_status mg_align_closed_form(float *scale, float *shift, const float *depth, int64_t members, int64_t elements,
                               const struct mg_ensemble_depth_params *params, struct mg_err *err);
/* align_reference.c */
mg_status mg_align_reference(float *scale, float *shift, const float *depth, int64_t members, int64_t elements,
                             const struct mg_ensemble_depth_params *params, struct mg_err *err);

/* ---- symmetric_eigen.c ---- */
/* Eigenvalues (ascending) and eigenvectors (columns of vectors, n x n) of a symmetric matrix, which is destroyed. */
void mg_symmetric_eigen(double *values, double *vectors, double *matrix, int n);

/* ---- bfgs.c ---- */
struct mg_cost_function {
    /* Value at x, and if gradient is not NULL its (approximate) derivative there. */
    mg_status (*evaluate)(double *value, double *gradient, const double *x, void *user, struct mg_err *err);
    void *user;
    int n;
};
/* Quasi-Newton minimisation (Broyden, Fletcher, Goldfarb, Shanno) from x, in place, with the line searches and stopping
 * rules of scipy.optimize.minimize(method="BFGS"): at most max_iter steps, until the largest component of the gradient
 * is at most tol, or until no step helps. */
mg_status mg_bfgs(double *x, const struct mg_cost_function *cost, int max_iter, double tol, struct mg_err *err);

/* ---- line_search.c: steps along a direction that satisfy the strong Wolfe conditions ---- */
struct mg_line {
    mg_status (*at)(double *value, double *slope, double step, void *user, struct mg_err *err); /* slope may be NULL */
    void *user;
    double value, slope; /* at step 0 */
};
/* *found tells whether *step satisfies the conditions; *value is the function there. */
mg_status mg_search_more_thuente(bool *found, double *step, double *value, const struct mg_line *line, double first,
                                 struct mg_err *err);
mg_status mg_search_bracket_and_zoom(bool *found, double *step, double *value, const struct mg_line *line, double first,
                                     struct mg_err *err);
#endif
