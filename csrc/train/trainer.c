/* trainer.c: opens a checkpoint to train one of its networks, and adds up gradients over batches. Calls model.c,
 * stages.c (the planned graph of UNet and gradients), the objective. */
#include "trainer.h"

#include <math.h>

void mg_trainer_params_init(struct mg_trainer_params *params) {
    *params = (struct mg_trainer_params){.objective = "latent",
                                         .optimizer = "adam",
                                         .beta1 = 0.9,
                                         .beta2 = 0.999,
                                         .epsilon = 1e-8,
                                         .zero_terminal_snr = true,
                                         .keep_gradients = true,
                                         .ema_decay = 0.95,
                                         .num_ddim_timesteps = 5,
                                         .reconstruction = {1.0, 0.0, 1.0, 1e-4}};
    mg_pipeline_params_init(&params->pipeline);
    params->pipeline.any_scheduler = true;
    params->pipeline.widen_to_targets = -1;
}

static mg_status check_params(const struct mg_trainer_params *p, struct mg_err *err) {
    if (!(p->beta1 >= 0.0 && p->beta1 < 1.0) || !(p->beta2 >= 0.0 && p->beta2 < 1.0))
        return mg_fail(err, MG_ERR_ARGUMENT, "`betas` are %g and %g; they must lie in [0, 1)", p->beta1, p->beta2);
    if (!(p->epsilon >= 0.0) || !(p->weight_decay >= 0.0) || !(p->max_gradient_norm >= 0.0))
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "`epsilon`, `weight_decay` and `max_gradient_norm` are %g, %g and %g; they must be 0 or more",
                       p->epsilon, p->weight_decay, p->max_gradient_norm);
    if (!p->keep_gradients && p->max_gradient_norm > 0.0)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "`max_gradient_norm` is %g, but the norm of all gradients is known only where they are kept",
                       p->max_gradient_norm);
    return MG_OK;
}

static mg_status find_noise_levels(struct mg_trainer *t, struct mg_err *err) {
    const struct mg_scheduler *s = t->pipeline->scheduler;
    const float *trained = s->alphas_cumprod;
    if (t->params.zero_terminal_snr && !(trained[0] > trained[s->train_timesteps - 1]))
        return mg_fail(
            err, MG_ERR_CHECKPOINT,
            "%s: the schedule cannot be rescaled to end in pure noise: its betas add none after the first time "
            "step",
            t->pipeline->source.path);
    MG_TRY(mg_alloc_floats(&t->alphas_cumprod, s->train_timesteps, 1, "the noise levels", err));
    memcpy(t->alphas_cumprod, trained, (size_t)s->train_timesteps * sizeof *trained);
    if (t->params.zero_terminal_snr)
        mg_rescale_to_zero_terminal_snr(t->alphas_cumprod, s->train_timesteps);
    return MG_OK;
}

/* Weights in memory of their own, and their gradients. */
static mg_status bind_weights(struct mg_trainer *t, struct mg_err *err) {
    struct mg_weights *weights = t->weights;
    if (!t->params.keep_gradients && t->objective->trains_autoencoder)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "objective \"%s\" needs gradients that are kept", t->objective->name);
    weights->trained = true;
    weights->passes_gradients = !t->params.keep_gradients;
    MG_TRY(mg_stages_choose_layouts(t->pipeline, err));
    for (size_t i = 0; i < weights->count; i++)
        MG_TRY(mg_weights_bind(weights, (int)i, &t->pipeline->context, err));
    return MG_OK;
}

static mg_status open_pipeline(struct mg_trainer *t, const struct mg_trainer_params *params, struct mg_err *err) {
    /* A folder of any class is trained as Marigold is: image and noise in, out through the noise levels. */
    struct mg_pipeline_params opened = params->pipeline;
    opened.family = "marigold";
    opened.boosting = t->objective->trains_boosting;
    MG_TRY(mg_pipeline_open(&t->pipeline, &opened, err));
    const struct mg_pipeline *p = t->pipeline;
    if (!p->context.backend->trains)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "device \"%s\" does not train", p->context.backend->name);
    const mg_dtype type = p->precision->activations;
    if ((type != MG_F32 && type != MG_BF16) || p->precision->weights != type || p->source.is_packed)
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       "%s: only a folder opened with dtype \"float32\" or \"bfloat16\" can be trained",
                       p->source.path);
    return MG_OK;
}

mg_status mg_trainer_open(mg_trainer **out, const struct mg_trainer_params *params, struct mg_err *err) {
    struct mg_trainer *t;
    mg_status status;
    *out = NULL;
    MG_TRY(check_params(params, err));
    MG_TRY(mg_alloc_zeroed((void **)&t, sizeof *t, "a trainer", err));
    t->params = *params;
    MG_TRY_GOTO(mg_objective_from_name(&t->objective, params->objective, err));
    MG_TRY_GOTO(mg_optimizer_from_name(&t->optimizer, params->optimizer, err));
    MG_TRY_GOTO(open_pipeline(t, params, err));
    t->weights = t->objective->trains_autoencoder ? &t->pipeline->vae_weights
                 : t->objective->trains_boosting  ? &t->pipeline->boosting.weights
                                                  : &t->pipeline->unet_weights;
    MG_TRY_GOTO(find_noise_levels(t, err));
    MG_TRY_GOTO(bind_weights(t, err));
    if (t->objective->open)
        MG_TRY_GOTO(t->objective->open(t, params, err));
    *out = t;
done:
    if (status != MG_OK)
        mg_trainer_close(t);
    return status;
}

void mg_trainer_close(mg_trainer *trainer) {
    if (!trainer)
        return;
    if (trainer->pipeline)
        mg_trainer_leave_group(trainer);
    mg_optimizer_free(trainer);
    mg_free(trainer->progress.done);
    if (trainer->objective && trainer->objective->close)
        trainer->objective->close(trainer);
    mg_pipeline_close(trainer->pipeline);
    mg_free(trainer->alphas_cumprod);
    mg_free(trainer);
}

const mg_pipeline *mg_trainer_pipeline(const mg_trainer *trainer) { return trainer->pipeline; }

/* ---- gradients ---- */
static mg_status run_pass(struct mg_training_pass *pass, struct mg_trainer *t, const struct mg_training_batch *batch,
                          mg_status (*check)(double loss, struct mg_err *err), struct mg_err *err) {
    const struct mg_stage_key key = {.stage = MG_STAGE_TRAIN,
                                     .n = batch->n,
                                     .h = batch->h,
                                     .w = batch->w,
                                     .recompute = t->params.recompute,
                                     .weights = t->objective->trains_boosting ? t->weights : NULL};
    struct mg_plan *plan;
    MG_TRY(t->objective->prepare(pass, t, batch, err));
    MG_TRY(mg_stage_plan(&plan, t->pipeline, &key, err));
    const struct mg_binding inputs[] = {{"sample", pass->sample}, {"timesteps", pass->timesteps}};
    MG_TRY(mg_plan_run_forward(plan, inputs, 2, &(struct mg_binding){"output", pass->output}, 1, err));
    MG_TRY(t->objective->compute_loss(pass, t, batch, err));
    if (check)
        MG_TRY(check(pass->loss, err));
    return mg_plan_run_backward(plan, &(struct mg_binding){"gradient", pass->gradient}, 1, NULL, 0, err);
}

mg_status mg_trainer_pass(double *loss, struct mg_trainer *trainer, const struct mg_training_batch *batch,
                          mg_status (*check)(double loss, struct mg_err *err), struct mg_err *err) {
    const struct mg_pipeline *p = trainer->pipeline;
    const struct mg_unet_config *unet = trainer->objective->trains_boosting ? &p->boosting.unet : &p->unet;
    const int64_t cells = batch->n * batch->h * batch->w;
    struct mg_training_pass pass = {0};
    mg_status status;
    MG_TRY_GOTO(mg_alloc_floats(&pass.sample, cells, (size_t)unet->in_channels, "a batch", err));
    MG_TRY_GOTO(mg_alloc_floats(&pass.output, cells, (size_t)unet->out_channels, "a batch", err));
    MG_TRY_GOTO(mg_alloc_floats(&pass.gradient, cells, (size_t)unet->out_channels, "a batch", err));
    MG_TRY_GOTO(mg_alloc_floats(&pass.timesteps, batch->n, 1, "a batch", err));
    MG_TRY_GOTO(run_pass(&pass, trainer, batch, check, err));
    *loss = pass.loss;
done:
    mg_free(pass.sample);
    mg_free(pass.output);
    mg_free(pass.gradient);
    mg_free(pass.timesteps);
    return status;
}

mg_status mg_trainer_forward_backward(double *loss, mg_trainer *trainer, const struct mg_training_batch *batch,
                                      struct mg_err *err) {
    MG_TRY(trainer->objective->check(trainer, batch, err));
    MG_TRY(mg_trainer_check_kept(trainer, err));
    MG_TRY(mg_pipeline_enter(trainer->pipeline, err));
    const mg_status status = mg_trainer_pass(loss, trainer, batch, NULL, err);
    mg_pipeline_leave(trainer->pipeline);
    return status;
}

/* ---- parameters ---- */
int mg_trainer_num_parameters(const mg_trainer *trainer) { return (int)trainer->weights->count; }

const char *mg_trainer_parameter(const mg_trainer *trainer, int index, int64_t shape[4], int *ndim) {
    const struct mg_weight *weight = &trainer->weights->list[index];
    *ndim = weight->shape.ndim;
    memcpy(shape, weight->shape.dim, sizeof weight->shape.dim);
    return weight->key;
}

/* Where a part lies; NULL: the moments before the first step, an average that is not kept. */
static float *part_of(const mg_trainer *trainer, int index, mg_parameter_part part) {
    const struct mg_weight *weight = &trainer->weights->list[index];
    switch (part) {
    case MG_PART_VALUE:
        return weight->master;
    case MG_PART_GRADIENT:
        return weight->gradient;
    case MG_PART_M:
        return trainer->moments ? mg_optimizer_moments(trainer, index).m : NULL;
    case MG_PART_V:
        return trainer->moments ? mg_optimizer_moments(trainer, index).v : NULL;
    case MG_PART_AVERAGE:
        break;
    }
    const struct mg_weights *average = &trainer->distillation.average;
    return average->count ? average->list[index].master : NULL;
}

static mg_status read_part(float *out, const mg_trainer *trainer, int index, mg_parameter_part part,
                           struct mg_err *err) {
    const struct mg_context *context = &trainer->pipeline->context;
    const struct mg_weight *weight = &trainer->weights->list[index];
    const struct mg_weight_layout layout = mg_weights_master_layout(trainer->weights, index);
    const size_t bytes = mg_packed_bytes(layout, &weight->shape);
    const float *data = part_of(trainer, index, part);
    float *copy = NULL;
    MG_TRY(mg_trainer_check_whole(trainer, err));
    if (part == MG_PART_GRADIENT)
        MG_TRY(mg_trainer_check_kept(trainer, err));
    mg_status status = MG_OK;
    if (!data) {
        memset(out, 0, mg_tensor_bytes(&weight->shape));
        return MG_OK;
    }
    if (context->memory) {
        MG_TRY(mg_alloc((void **)&copy, bytes, weight->key, err));
        status = mg_context_download(context, copy, data, bytes, err);
    }
    if (status == MG_OK)
        mg_unpack_weight(out, &weight->shape, copy ? copy : data, layout, context->num_threads);
    mg_free(copy);
    return status;
}

mg_status mg_trainer_read(float *out, mg_trainer *trainer, int index, mg_parameter_part part, struct mg_err *err) {
    MG_TRY(mg_pipeline_enter(trainer->pipeline, err));
    const mg_status status = read_part(out, trainer, index, part, err);
    mg_pipeline_leave(trainer->pipeline);
    return status;
}

/* From the order of a checkpoint into a layout, where operations work. */
static mg_status pack_parameter(float *to, const struct mg_trainer *trainer, int index, const float *data,
                                struct mg_err *err) {
    const struct mg_context *context = &trainer->pipeline->context;
    const struct mg_weight *weight = &trainer->weights->list[index];
    const struct mg_weight_layout layout = mg_weights_master_layout(trainer->weights, index);
    const size_t bytes = mg_packed_bytes(layout, &weight->shape);
    float *copy = NULL;
    if (context->memory)
        MG_TRY(mg_alloc((void **)&copy, bytes, weight->key, err));
    mg_pack_weight(copy ? copy : to, layout, &weight->shape, data, MG_F32, context->num_threads);
    const mg_status status = copy ? mg_context_upload(context, to, copy, bytes, err) : MG_OK;
    mg_free(copy);
    return status;
}

static mg_status write_part(mg_trainer *trainer, int index, mg_parameter_part part, const float *data,
                            struct mg_err *err) {
    if (part == MG_PART_M || part == MG_PART_V)
        MG_TRY(mg_optimizer_reserve(trainer, err));
    if (part == MG_PART_GRADIENT)
        MG_TRY(mg_trainer_check_kept(trainer, err));
    if (!part_of(trainer, index, part))
        return mg_fail(err, MG_ERR_ARGUMENT, "objective \"%s\" keeps no average of its weights",
                       trainer->objective->name);
    MG_TRY(pack_parameter(part_of(trainer, index, part), trainer, index, data, err));
    if (part == MG_PART_VALUE || part == MG_PART_AVERAGE)
        mg_weights_follow_master(part == MG_PART_VALUE ? trainer->weights : &trainer->distillation.average, index);
    return mg_optimizer_finish(trainer, err);
}

mg_status mg_trainer_write(mg_trainer *trainer, int index, mg_parameter_part part, const float *data,
                           struct mg_err *err) {
    MG_TRY(mg_pipeline_enter(trainer->pipeline, err));
    const mg_status status = write_part(trainer, index, part, data, err);
    mg_pipeline_leave(trainer->pipeline);
    return status;
}

int64_t mg_trainer_steps(const mg_trainer *trainer) { return trainer->steps; }

mg_status mg_trainer_set_steps(mg_trainer *trainer, int64_t steps, struct mg_err *err) {
    if (steps < 0)
        return mg_fail(err, MG_ERR_ARGUMENT, "`steps` is %lld; it must be 0 or more", (long long)steps);
    MG_TRY(mg_pipeline_enter(trainer->pipeline, err));
    trainer->steps = steps;
    mg_pipeline_leave(trainer->pipeline);
    return MG_OK;
}
