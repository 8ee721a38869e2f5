/* align_median.c: one factor that brings the median of a prediction to that of the ground truth, as evaluations of
 * self-supervised depth do (Zhou et al., CVPR 2017). */
#include "evaluation.h"

mg_status mg_align_median(float *aligned, double *scale, const float *prediction, const float *target,
                          const uint8_t *mask, int64_t h, int64_t w, int64_t max_resolution, int num_threads,
                          struct mg_err *err) {
    struct mg_maps maps;
    double *x, *y;
    int64_t count;
    MG_TRY(mg_check_threads(num_threads, err));
    MG_TRY(mg_maps_of(&maps, prediction, target, mask, h, w, MG_SPACE_DEPTH, max_resolution, err));
    MG_TRY(mg_gather_samples(&x, &y, &count, &maps, err));
    const double predicted = mg_median_of(x, count), wanted = mg_median_of(y, count);
    mg_free(x);
    if (predicted == 0.0)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "the median of the prediction over %lld valid pixels is 0: no factor "
                       "brings it to %g",
                       (long long)count, wanted);
    *scale = wanted / predicted;
    mg_apply_fit(aligned, &maps, *scale, 0.0, num_threads);
    return MG_OK;
}
