/* checks.c: what a trainer refuses in the state that it is in. */
#include "trainer.h"

mg_status mg_trainer_check_kept(const struct mg_trainer *trainer, struct mg_err *err) {
    if (!trainer->weights->passes_gradients)
        return MG_OK;
    return mg_fail(err, MG_ERR_ARGUMENT, "gradients are not kept by this trainer: it learns by train_step alone");
}

mg_status mg_trainer_check_whole(const struct mg_trainer *trainer, struct mg_err *err) {
    if (!trainer->is_torn)
        return MG_OK;
    return mg_fail(err, MG_ERR_NOT_FINITE,
                   "the last step ended when some weights had moved and others not: go on from a saved state");
}
