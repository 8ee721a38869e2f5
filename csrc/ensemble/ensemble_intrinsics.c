/* ensemble_intrinsics.c: intrinsic images of one scene to one, element by element: nothing has to be aligned. */
#include "ensemble.h"

mg_status mg_ensemble_intrinsics(float *out, float *uncertainty, const float *targets, int64_t members,
                                 int64_t elements, mg_reduction reduction, int num_threads, struct mg_err *err) {
    const struct mg_members m = {.data = targets, .count = members, .elements = elements};
    MG_TRY(mg_check_members(members, elements, err));
    MG_TRY(mg_check_threads(num_threads, err));
    if (reduction != MG_REDUCE_MEDIAN && reduction != MG_REDUCE_MEAN)
        return mg_fail(err, MG_ERR_ARGUMENT, "`reduction` of intrinsic images must be median or mean");
    MG_TRY(mg_check_finite(targets, members, elements, "targets", err));
    return mg_reduce_members(out, uncertainty, &m, reduction, num_threads, err);
}
