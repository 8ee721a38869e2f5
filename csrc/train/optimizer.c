/* optimizer.c: Adam and AdamW over all weights that are trained, with the gradients clipped by their common norm. Calls
 * the backend, which works on a weight and its moments as they lie. */
#include <math.h>

#include "trainer.h"

mg_status mg_optimizer_from_name(mg_optimizer *out, const char *name, struct mg_err *err) {
    if (!strcmp(name, "adam"))
        *out = MG_OPTIMIZER_ADAM;
    else if (!strcmp(name, "adamw"))
        *out = MG_OPTIMIZER_ADAMW;
    else
        return mg_fail(err, MG_ERR_ARGUMENT, "`optimizer` is \"%s\"; known: \"adam\", \"adamw\"", name);
    return MG_OK;
}

/* Numbers of the master of weight i, padding included: that stays 0. */
static int64_t count_of(const struct mg_trainer *trainer, int i) {
    return (int64_t)(mg_weights_master_bytes(trainer->weights, i) / sizeof(float));
}

mg_status mg_optimizer_reserve(struct mg_trainer *trainer, struct mg_err *err) {
    struct mg_context *context = &trainer->pipeline->context;
    const struct mg_weights *weights = trainer->weights;
    const size_t bytes = (size_t)weights->block_count * sizeof(float);
    if (trainer->moments)
        return MG_OK;
    /* One block: blocks of their own begin and end with pages of which they use a part. */
    float *moments;
    MG_TRY(mg_context_alloc((void **)&moments, context, 2 * bytes, "the optimiser", err));
    const mg_status status = mg_context_clear(context, moments, 2 * bytes, err);
    if (status != MG_OK) {
        mg_context_free(context, moments);
        return status;
    }
    trainer->moments = moments;
    context->training += 2 * bytes;
    mg_context_note_peak(context);
    return MG_OK;
}

struct mg_moments mg_optimizer_moments(const struct mg_trainer *trainer, int index) {
    const struct mg_weights *weights = trainer->weights;
    float *m = trainer->moments + (weights->list[index].master - weights->masters);
    return (struct mg_moments){m, m + weights->block_count};
}

void mg_optimizer_free(struct mg_trainer *trainer) {
    if (trainer->moments)
        mg_context_free(&trainer->pipeline->context, trainer->moments);
}

mg_status mg_optimizer_finish(const struct mg_trainer *trainer, struct mg_err *err) {
    const struct mg_context *context = &trainer->pipeline->context;
    return context->backend->finish ? context->backend->finish(context, err) : MG_OK;
}

/* Of the whole block: what fills it up between gradients is 0. */
static mg_status find_norm(double *norm, const struct mg_trainer *trainer, struct mg_err *err) {
    const struct mg_pipeline *p = trainer->pipeline;
    const struct mg_weights *weights = trainer->weights;
    *norm = sqrt(p->context.backend->sum_of_squares(&p->context, weights->gradients, weights->block_count));
    return mg_optimizer_finish(trainer, err);
}

struct mg_adam mg_optimizer_adam(const struct mg_trainer *trainer, double learning_rate, int64_t step,
                                 double gradient_factor) {
    const struct mg_trainer_params *params = &trainer->params;
    return (struct mg_adam){.learning_rate = (float)learning_rate,
                            .beta1 = (float)params->beta1,
                            .beta2 = (float)params->beta2,
                            .epsilon = (float)params->epsilon,
                            .decay = (float)params->weight_decay,
                            .decoupled = trainer->optimizer == MG_OPTIMIZER_ADAMW,
                            .gradient_factor = (float)gradient_factor,
                            .correction1 = (float)(1.0 - pow(params->beta1, (double)step)),
                            .correction2 = (float)(1.0 - pow(params->beta2, (double)step))};
}

double mg_optimizer_squares(const struct mg_trainer *trainer, int index, const float *gradient) {
    const struct mg_context *context = &trainer->pipeline->context;
    return context->backend->sum_of_squares(context, gradient, count_of(trainer, index));
}

void mg_optimizer_update(const struct mg_trainer *trainer, int index, float *gradient, const struct mg_adam *adam) {
    const struct mg_context *context = &trainer->pipeline->context;
    const struct mg_moments moments = mg_optimizer_moments(trainer, index);
    context->backend->adam(context, trainer->weights->list[index].master, gradient, moments.m, moments.v,
                           count_of(trainer, index), adam);
    mg_weights_follow_master(trainer->weights, index);
}

mg_status mg_optimizer_after_step(struct mg_trainer *trainer, struct mg_err *err) {
    trainer->steps++;
    if (trainer->objective->after_step)
        trainer->objective->after_step(trainer);
    return mg_optimizer_finish(trainer, err);
}

static mg_status step(struct mg_trainer *trainer, double learning_rate, double norm, struct mg_err *err) {
    const double limit = trainer->params.max_gradient_norm, factor = limit > 0.0 ? limit / (norm + 1e-6) : 1.0;
    MG_TRY(mg_optimizer_reserve(trainer, err));
    const struct mg_adam adam = mg_optimizer_adam(trainer, learning_rate, trainer->steps + 1, fmin(factor, 1.0));
    for (size_t i = 0; i < trainer->weights->count; i++)
        mg_optimizer_update(trainer, (int)i, trainer->weights->list[i].gradient, &adam);
    return mg_optimizer_after_step(trainer, err);
}

mg_status mg_optimizer_check_rate(double learning_rate, struct mg_err *err) {
    if (learning_rate >= 0.0 && learning_rate < INFINITY)
        return MG_OK;
    return mg_fail(err, MG_ERR_ARGUMENT, "`learning_rate` is %g; it must be 0 or more", learning_rate);
}

mg_status mg_optimizer_step(double *norm, struct mg_trainer *trainer, double learning_rate, struct mg_err *err) {
    MG_TRY(find_norm(norm, trainer, err));
    if (!isfinite(*norm))
        return mg_fail(err, MG_ERR_NOT_FINITE, "the gradient is %s: no step was taken",
                       isnan(*norm) ? "no number" : "infinite");
    return step(trainer, learning_rate, *norm, err);
}

mg_status mg_trainer_step(double *norm, mg_trainer *trainer, double learning_rate, struct mg_err *err) {
    MG_TRY(mg_optimizer_check_rate(learning_rate, err));
    MG_TRY(mg_trainer_check_kept(trainer, err));
    MG_TRY(mg_pipeline_enter(trainer->pipeline, err));
    const mg_status status = mg_optimizer_step(norm, trainer, learning_rate, err);
    mg_pipeline_leave(trainer->pipeline);
    return status;
}

mg_status mg_trainer_clear_gradients(mg_trainer *trainer, struct mg_err *err) {
    const struct mg_weights *weights = trainer->weights;
    MG_TRY(mg_trainer_check_kept(trainer, err));
    MG_TRY(mg_pipeline_enter(trainer->pipeline, err));
    const mg_status status = mg_context_clear(&trainer->pipeline->context, weights->gradients,
                                              (size_t)weights->block_count * sizeof(float), err);
    mg_pipeline_leave(trainer->pipeline);
    return status;
}
