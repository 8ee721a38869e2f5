/* points.c: the measured points of a sparse depth map: where each lies in a decoded image, and how far a depth map is from them. */
#include <math.h>
#include <string.h>

#include "completion.h"

/* Position i of `out` among `in` pixels: the left one of two, and the share of the right one. As torch has it, in float32. */
static double place(int64_t *left, int64_t *right, int64_t i, int64_t in, int64_t out) {
    const float scale = (float)in / (float)out, at = ((float)i + 0.5f) * scale - 0.5f;
    const float inside = at > 0.0f ? at : 0.0f;
    *left = (int64_t)inside < in ? (int64_t)inside : in - 1;
    *right = *left + 1 < in ? *left + 1 : *left;
    return inside - (float)*left;
}

static struct mg_point point_at(int64_t y, int64_t x, double metres, const struct mg_geometry *g, int64_t decoded_w) {
    int64_t top, bottom, left, right;
    const double below = place(&top, &bottom, y, g->output_h, g->h),
                 beside = place(&left, &right, x, g->output_w, g->w);
    return (struct mg_point){
        .at = {top * decoded_w + left, top * decoded_w + right, bottom * decoded_w + left, bottom * decoded_w + right},
        .share = {(1 - below) * (1 - beside), (1 - below) * beside, below * (1 - beside), below * beside},
        .metres = metres};
}

static mg_status count_points(int64_t *count, const float *sparse, int64_t h, int64_t w, struct mg_err *err) {
    *count = 0;
    for (int64_t i = 0; i < h * w; i++) {
        if (!(sparse[i] >= 0.0f) || isinf(sparse[i]))
            return mg_fail(err, MG_ERR_ARGUMENT,
                           "`sparse_depth` is %g at row %lld, column %lld; depths are finite, in metres, and 0 where "
                           "nothing was measured",
                           (double)sparse[i], (long long)(i / w), (long long)(i % w));
        *count += sparse[i] > 0.0f;
    }
    if (*count < 2)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "`sparse_depth` has %lld measured points (values greater than 0); scale and shift need two or "
                       "more, at different depths",
                       (long long)*count);
    return MG_OK;
}

mg_status mg_points_find(struct mg_points *out, const float *sparse_depth, const struct mg_geometry *g,
                         int64_t decoded_w, struct mg_err *err) {
    int64_t count;
    size_t bytes;
    *out = (struct mg_points){.nearest = INFINITY};
    MG_TRY(count_points(&count, sparse_depth, g->h, g->w, err));
    if (!mg_size_mul(&bytes, (size_t)count, sizeof *out->list))
        return mg_fail(err, MG_ERR_MEMORY, "%lld points cannot be addressed", (long long)count);
    MG_TRY(mg_alloc((void **)&out->list, bytes, "the measured points", err));
    for (int64_t i = 0; i < g->h * g->w; i++)
        if (sparse_depth[i] > 0.0f) {
            out->list[out->count++] = point_at(i / g->w, i % g->w, sparse_depth[i], g, decoded_w);
            out->nearest = fmin(out->nearest, sparse_depth[i]);
            out->farthest = fmax(out->farthest, sparse_depth[i]);
        }
    if (out->nearest < out->farthest)
        return MG_OK;
    mg_free(out->list);
    out->list = NULL;
    return mg_fail(err, MG_ERR_ARGUMENT,
                   "all %lld measured points of `sparse_depth` are at %g m; a scale needs two different depths",
                   (long long)count, out->nearest);
}

struct mg_affine mg_points_metres(const struct mg_points *points, const struct mg_affine *roots) {
    return (struct mg_affine){.scale = roots->scale * roots->scale * (points->farthest - points->nearest),
                              .shift = roots->shift * roots->shift * points->nearest};
}

/* The mean of the channels; outside [-1, 1] the map is clipped, and has no slope. */
static double mean_of_channels(const float *decoded, int64_t pixels, int64_t i) {
    return ((double)decoded[i] + decoded[pixels + i] + decoded[2 * pixels + i]) / 3.0;
}

static double depth_at(const float *decoded, int64_t pixels, const struct mg_point *point) {
    double depth = 0.0;
    for (int i = 0; i < 4; i++)
        depth += point->share[i] * (fmin(fmax(mean_of_channels(decoded, pixels, point->at[i]), -1.0), 1.0) + 1.0) / 2.0;
    return depth;
}

/* slope: of the loss by the depth in [0, 1] at a point. Four points may share a pixel, so that all is added. */
static void add_slope(float *gradient, const float *decoded, int64_t pixels, const struct mg_point *point,
                      double slope) {
    for (int i = 0; i < 4; i++)
        if (fabs(mean_of_channels(decoded, pixels, point->at[i])) <= 1.0)
            for (int c = 0; c < 3; c++)
                gradient[c * pixels + point->at[i]] += (float)(slope * point->share[i] / 6.0);
}

double mg_points_loss(float *gradient, struct mg_affine *by_roots, const float *decoded, int64_t pixels,
                      const struct mg_points *points, const struct mg_affine *roots) {
    const struct mg_affine metres = mg_points_metres(points, roots);
    const double count = (double)points->count;
    double loss = 0.0, by_scale = 0.0, by_shift = 0.0;
    memset(gradient, 0, (size_t)(3 * pixels) * sizeof *gradient);
    for (int64_t i = 0; i < points->count; i++) {
        const struct mg_point *point = &points->list[i];
        const double depth = depth_at(decoded, pixels, point);
        const double error = metres.scale * depth + metres.shift - point->metres;
        const double slope = ((error > 0.0) - (error < 0.0) + 2.0 * error) / count;
        loss += (fabs(error) + error * error) / count;
        by_scale += slope * depth;
        by_shift += slope;
        add_slope(gradient, decoded, pixels, point, slope * metres.scale);
    }
    by_roots->scale = by_scale * 2.0 * roots->scale * (points->farthest - points->nearest);
    by_roots->shift = by_shift * 2.0 * roots->shift * points->nearest;
    return loss;
}
