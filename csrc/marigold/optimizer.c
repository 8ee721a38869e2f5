/* optimizer.c: Adam and AdamW over all weights that are trained, with the gradients clipped by their common norm. Called through
 * marigold.h; calls the backend, which works on a weight and its moments as they lie. */
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
static int64_t count_of(const struct mg_trainer *trainer, size_t i) {
    const struct mg_weights *weights = trainer->weights;
    const size_t bytes = mg_packed_bytes(mg_weights_master_layout(weights, (int)i), &weights->list[i].shape);
    return (int64_t)(bytes / sizeof(float));
}

mg_status mg_optimizer_reserve(struct mg_trainer *trainer, struct mg_err *err) {
    struct mg_context *context = &trainer->pipeline->context;
    const struct mg_weights *weights = trainer->weights;
    const size_t bytes = (size_t)weights->gradient_count * sizeof(float);
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
    float *m = trainer->moments + (weights->list[index].gradient - weights->gradients);
    return (struct mg_moments){m, m + weights->gradient_count};
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
    *norm = sqrt(p->context.backend->sum_of_squares(&p->context, weights->gradients, weights->gradient_count));
    return mg_optimizer_finish(trainer, err);
}

static mg_status step(struct mg_trainer *trainer, double learning_rate, double norm, struct mg_err *err) {
    struct mg_pipeline *p = trainer->pipeline;
    const struct mg_trainer_params *params = &trainer->params;
    const double limit = params->max_gradient_norm, factor = limit > 0.0 ? limit / (norm + 1e-6) : 1.0;
    MG_TRY(mg_optimizer_reserve(trainer, err));
    trainer->steps++;
    const struct mg_adam adam = {.learning_rate = (float)learning_rate,
                                 .beta1 = (float)params->beta1,
                                 .beta2 = (float)params->beta2,
                                 .epsilon = (float)params->epsilon,
                                 .decay = (float)params->weight_decay,
                                 .decoupled = trainer->optimizer == MG_OPTIMIZER_ADAMW,
                                 .gradient_factor = factor < 1.0 ? (float)factor : 1.0f,
                                 .correction1 = (float)(1.0 - pow(params->beta1, (double)trainer->steps)),
                                 .correction2 = (float)(1.0 - pow(params->beta2, (double)trainer->steps))};
    for (size_t i = 0; i < trainer->weights->count; i++) {
        const struct mg_weight *weight = &trainer->weights->list[i];
        const struct mg_moments moments = mg_optimizer_moments(trainer, (int)i);
        p->context.backend->adam(&p->context, weight->master, weight->gradient, moments.m, moments.v,
                                 count_of(trainer, i), &adam);
        mg_weights_follow_master(trainer->weights, (int)i);
    }
    if (trainer->objective->after_step)
        trainer->objective->after_step(trainer);
    return mg_optimizer_finish(trainer, err);
}

mg_status mg_trainer_step(double *norm, mg_trainer *trainer, double learning_rate, struct mg_err *err) {
    if (!(learning_rate >= 0.0 && learning_rate < INFINITY))
        return mg_fail(err, MG_ERR_ARGUMENT, "`learning_rate` is %g; it must be 0 or more", learning_rate);
    MG_TRY(mg_pipeline_enter(trainer->pipeline, err));
    mg_status status = find_norm(norm, trainer, err);
    if (status == MG_OK && !isfinite(*norm))
        status = mg_fail(err, MG_ERR_ARGUMENT, "the gradient is %s: no step was taken",
                         isnan(*norm) ? "no number" : "infinite");
    if (status == MG_OK)
        status = step(trainer, learning_rate, *norm, err);
    mg_pipeline_leave(trainer->pipeline);
    return status;
}

mg_status mg_trainer_clear_gradients(mg_trainer *trainer, struct mg_err *err) {
    const struct mg_weights *weights = trainer->weights;
    return mg_context_clear(&trainer->pipeline->context, weights->gradients,
                            (size_t)weights->gradient_count * sizeof(float), err);
}
