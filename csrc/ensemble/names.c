/* names.c: the options of ensembling by name, and their defaults. */
#include <string.h>

#include "ensemble.h"

mg_status mg_reduction_from_name(mg_reduction *out, const char *name, struct mg_err *err) {
    static const struct {
        const char *name;
        mg_reduction value;
    } known[] = {{"median", MG_REDUCE_MEDIAN}, {"mean", MG_REDUCE_MEAN}, {"closest", MG_REDUCE_CLOSEST}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(known[i].name, name)) {
            *out = known[i].value;
            return MG_OK;
        }
    return mg_fail(err, MG_ERR_ARGUMENT, "`reduction` must be \"median\", \"mean\" or \"closest\"; got \"%s\"", name);
}

mg_status mg_solver_from_name(mg_solver *out, const char *name, struct mg_err *err) {
    const bool reference = !strcmp(name, "reference");
    if (!reference && strcmp(name, "closed-form"))
        return mg_fail(err, MG_ERR_ARGUMENT, "`solver` must be \"closed-form\" or \"reference\"; got \"%s\"", name);
    *out = reference ? MG_SOLVER_REFERENCE : MG_SOLVER_CLOSED_FORM;
    return MG_OK;
}

void mg_ensemble_depth_params_init(struct mg_ensemble_depth_params *params) {
    *params = (struct mg_ensemble_depth_params){.scale_invariant = true,
                                                .shift_invariant = true,
                                                .reduction = MG_REDUCE_MEDIAN,
                                                .solver = MG_SOLVER_CLOSED_FORM,
                                                .regularizer_strength = 0.02,
                                                .max_iter = 2,
                                                .tol = 1e-3,
                                                .max_res = 1024};
}
