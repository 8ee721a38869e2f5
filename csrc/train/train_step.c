/* train_step.c: a batch and the step that follows it in one call. Where gradients are not kept, each weight moves
 * during the backward pass, as soon as its gradient is whole and nothing reads the weight any more; then the memory of
 * that gradient serves the next ones. Calls trainer.c (the passes), optimizer.c (the updates). */
#include <math.h>

#include "trainer.h"

/* A step during a backward pass. */
struct fused_step {
    struct mg_trainer *trainer;
    struct mg_adam adam;
    double squares; /* of all gradients so far */
    int moved;      /* weights */
};

static void update_weight(void *user, int index, float *gradient) {
    struct fused_step *step = user;
    step->squares += mg_optimizer_squares(step->trainer, index, gradient);
    if (!isfinite(step->squares))
        return;
    mg_optimizer_update(step->trainer, index, gradient, &step->adam);
    step->moved++;
}

static mg_status check_loss(double loss, struct mg_err *err) {
    if (isfinite(loss))
        return MG_OK;
    return mg_fail(err, MG_ERR_NOT_FINITE, "the loss is %s: no step was taken", isnan(loss) ? "no number" : "infinite");
}

static mg_status step_during_backward(double *loss, double *norm, struct mg_trainer *trainer,
                                      const struct mg_training_batch *batch, double learning_rate, struct mg_err *err) {
    struct mg_weights *weights = trainer->weights;
    struct fused_step step = {.trainer = trainer};
    MG_TRY(mg_optimizer_reserve(trainer, err));
    step.adam = mg_optimizer_adam(trainer, learning_rate, trainer->steps + 1, 1.0);
    weights->gradient_user = &step;
    weights->gradient_done = update_weight;
    mg_status status = mg_trainer_pass(loss, trainer, batch, check_loss, err);
    weights->gradient_user = NULL;
    weights->gradient_done = NULL;
    *norm = sqrt(step.squares);
    if (status == MG_OK && !isfinite(*norm))
        status = mg_fail(err, MG_ERR_NOT_FINITE,
                         "the gradient is %s when %d of %zu weights have moved: go on from a saved state",
                         isnan(*norm) ? "no number" : "infinite", step.moved, weights->count);
    trainer->is_torn = status != MG_OK && step.moved;
    return status == MG_OK ? mg_optimizer_after_step(trainer, err) : status;
}

mg_status mg_trainer_train_step(double *loss, double *norm, mg_trainer *trainer, const struct mg_training_batch *batch,
                                double learning_rate, struct mg_err *err) {
    const bool during_backward = trainer->weights->passes_gradients;
    MG_TRY(mg_optimizer_check_rate(learning_rate, err));
    MG_TRY(mg_trainer_check_whole(trainer, err));
    MG_TRY(trainer->objective->check(trainer, batch, err));
    MG_TRY(mg_pipeline_enter(trainer->pipeline, err));
    mg_status status = during_backward ? step_during_backward(loss, norm, trainer, batch, learning_rate, err)
                                       : mg_trainer_pass(loss, trainer, batch, check_loss, err);
    if (status == MG_OK && !during_backward)
        status = mg_optimizer_step(norm, trainer, learning_rate, err);
    mg_pipeline_leave(trainer->pipeline);
    return status;
}
