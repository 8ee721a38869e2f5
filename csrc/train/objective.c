/* objective.c: what a network is trained towards, a row for each way. */
#include "trainer.h"

static const struct mg_objective *const objectives[] = {&mg_objective_latent, &mg_objective_end_to_end,
                                                        &mg_objective_consistency, &mg_objective_refine,
                                                        &mg_objective_autoencoder};
enum { NUM_OBJECTIVES = sizeof objectives / sizeof objectives[0] };

mg_status mg_objective_from_name(const struct mg_objective **out, const char *name, struct mg_err *err) {
    for (int i = 0; i < NUM_OBJECTIVES; i++)
        if (!strcmp(objectives[i]->name, name)) {
            *out = objectives[i];
            return MG_OK;
        }
    return mg_fail(err, MG_ERR_UNSUPPORTED,
                   "objective \"%s\" is not supported; supported: \"latent\", \"e2e\", \"lcm\", \"refine\", "
                   "\"autoencoder\"",
                   name);
}
