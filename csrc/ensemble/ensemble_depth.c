/* ensemble_depth.c: depth maps of one scene, each known up to scale and shift (or scale, or not at all), to one. */
#include <math.h>
#include <string.h>

#include "ensemble.h"

static mg_status check(const float *depth, int64_t members, int64_t h, int64_t w,
                       const struct mg_ensemble_depth_params *p, struct mg_err *err) {
    MG_TRY(mg_check_members(members, h < 1 || w < 1 ? 0 : h * w, err));
    if (p->reduction != MG_REDUCE_MEDIAN && p->reduction != MG_REDUCE_MEAN)
        return mg_fail(err, MG_ERR_ARGUMENT, "`reduction` of depth must be median or mean");
    if (!p->scale_invariant && p->shift_invariant)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "shift_invariant without scale_invariant: members cannot be aligned by a shift alone");
    if (p->max_res < 0 || p->max_iter < 1 || !(p->tol >= 0) || !(p->regularizer_strength >= 0) ||
        !isfinite(p->regularizer_strength))
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "max_res (%lld), tol (%g) and regularizer_strength (%g, finite) must not be negative, max_iter "
                       "(%d) must be positive",
                       (long long)p->max_res, p->tol, p->regularizer_strength, p->max_iter);
    return mg_check_finite(depth, members, h * w, "depth", err);
}

/* The members at the resolution at which they are aligned: *small is NULL if that is their own. */
static mg_status shrink(float **small, int64_t *elements, const float *depth, int64_t members, int64_t h, int64_t w,
                        int64_t max_res, struct mg_err *err) {
    const int64_t longest = h > w ? h : w;
    *elements = h * w;
    if (!max_res || longest <= max_res)
        return MG_OK;
    const int64_t small_h = h * max_res / longest, small_w = w * max_res / longest;
    if (!small_h || !small_w)
        return mg_fail(err, MG_ERR_ARGUMENT, "maps of %lld x %lld cannot be aligned at max_res %lld", (long long)h,
                       (long long)w, (long long)max_res);
    *elements = small_h * small_w;
    MG_TRY(mg_alloc((void **)small, (size_t)(members * *elements) * sizeof(float), "the members at max_res", err));
    return mg_resize(*small, depth, 1, members, h, w, small_h, small_w, MG_RESAMPLE_NEAREST_EXACT, false, err);
}

static mg_status align(float *scale, float *shift, const float *depth, int64_t members, int64_t h, int64_t w,
                       const struct mg_ensemble_depth_params *params, struct mg_err *err) {
    float *small = NULL;
    int64_t elements;
    mg_status status;
    MG_TRY_GOTO(shrink(&small, &elements, depth, members, h, w, params->max_res, err));
    if (params->solver == MG_SOLVER_REFERENCE)
        status = mg_align_reference(scale, shift, small ? small : depth, members, elements, params, err);
    else
        status = mg_align_closed_form(scale, shift, small ? small : depth, members, elements, params, err);
done:
    mg_free(small);
    return status;
}

/* Members of scale 0 show nothing, or something else: they are left out. If all do, they are reduced as they are. */
static void keep_aligned(struct mg_members *m, float *scale, float *shift, int *member) {
    int64_t kept = 0;
    for (int64_t e = 0; e < m->count; e++)
        if (scale[e] != 0.0f) {
            scale[kept] = scale[e];
            if (shift)
                shift[kept] = shift[e];
            member[kept++] = (int)e;
        }
    if (!kept)
        return;
    m->count = kept;
    m->scale = scale;
    m->shift = shift;
    m->member = member;
}

/* To [0, 1]: affine-invariant depth by its minimum and maximum, scale-invariant depth by its maximum. */
static void normalise(float *out, float *uncertainty, int64_t elements, bool shift_invariant) {
    float low = out[0], high = out[0];
    for (int64_t i = 1; i < elements; i++) {
        low = out[i] < low ? out[i] : low;
        high = out[i] > high ? out[i] : high;
    }
    if (!shift_invariant)
        low = 0.0f;
    const float range = high - low < 1e-6f ? 1e-6f : high - low;
    for (int64_t i = 0; i < elements; i++)
        out[i] = (out[i] - low) / range;
    for (int64_t i = 0; uncertainty && i < elements; i++)
        uncertainty[i] /= range;
}

mg_status mg_ensemble_depth(float *out, float *uncertainty, const float *depth, int64_t members, int64_t h, int64_t w,
                            const struct mg_ensemble_depth_params *params, struct mg_err *err) {
    struct mg_members m = {.data = depth, .count = members, .elements = h * w};
    float scale[MG_MAX_MEMBERS], shift[MG_MAX_MEMBERS];
    int member[MG_MAX_MEMBERS];
    MG_TRY(check(depth, members, h, w, params, err));
    MG_TRY(mg_check_threads(params->num_threads, err));
    if (params->scale_invariant) {
        float *shifts = params->shift_invariant ? shift : NULL;
        MG_TRY(align(scale, shifts, depth, members, h, w, params, err));
        keep_aligned(&m, scale, shifts, member);
    }
    MG_TRY(mg_reduce_members(out, uncertainty, &m, params->reduction, params->num_threads, err));
    if (params->scale_invariant)
        normalise(out, uncertainty, m.elements, params->shift_invariant);
    return MG_OK;
}
