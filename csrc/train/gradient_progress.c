/* gradient_progress.c: which gradients are whole while the backward pass still runs, so that they can be summed over
 * processes meanwhile. Two threads use it: one runs the backward pass, the other asks. */
#include "trainer.h"

/* Where the gradient of a weight ends: the block begins with the last weight. */
static int64_t end_of(const struct mg_weights *weights, size_t index) {
    return index ? weights->list[index - 1].gradient - weights->gradients : weights->block_count;
}

static void on_gradient_done(void *user, int index, float *gradient) {
    (void)gradient;
    struct mg_trainer *trainer = user;
    const struct mg_weights *weights = trainer->weights;
    struct mg_gradient_progress *progress = &trainer->progress;
    progress->done[index] = true;
    while (progress->left && progress->done[progress->left - 1])
        progress->left--;
    if (progress->left < weights->count)
        atomic_store_explicit(&progress->numbers, end_of(weights, progress->left), memory_order_release);
}

mg_status mg_trainer_gradients(float **block, int64_t *count, const mg_trainer *trainer, struct mg_err *err) {
    const struct mg_pipeline *p = trainer->pipeline;
    MG_TRY(mg_trainer_check_kept(trainer, err));
    if (p->context.memory)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "gradients on device \"%s\" cannot be summed over processes",
                       p->context.backend->name);
    *block = trainer->weights->gradients;
    *count = trainer->weights->block_count;
    return MG_OK;
}

mg_status mg_trainer_follow_gradients(mg_trainer *trainer, struct mg_err *err) {
    struct mg_weights *weights = trainer->weights;
    struct mg_gradient_progress *progress = &trainer->progress;
    MG_TRY(mg_trainer_check_kept(trainer, err));
    MG_TRY(mg_pipeline_enter(trainer->pipeline, err));
    mg_status status = MG_OK;
    if (!progress->done)
        status = mg_alloc((void **)&progress->done, weights->count * sizeof *progress->done, "gradients", err);
    if (status == MG_OK) {
        memset(progress->done, 0, weights->count * sizeof *progress->done);
        progress->left = weights->count;
        atomic_store_explicit(&progress->numbers, 0, memory_order_release);
        weights->gradient_user = trainer;
        weights->gradient_done = on_gradient_done;
    }
    mg_pipeline_leave(trainer->pipeline);
    return status;
}

int64_t mg_trainer_gradients_done(const mg_trainer *trainer) {
    return atomic_load_explicit(&trainer->progress.numbers, memory_order_acquire);
}
