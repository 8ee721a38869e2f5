/* objective_consistency.c: distillation into a latent consistency model (arXiv 2310.04378, by the settings of
 * Marigold-LCM): the network learns to go from any of a few time steps straight to the clean latent. The teacher, which
 * stays as it was, goes one step of DDIM from x_t to an earlier x_s; from there the moving average of the trained
 * weights goes to the end, and that is what the trained ones should reach from x_t.
 *
 * Memory: the weights three times, no more activations than training them has; the other two run without gradients. */
#include <math.h>

#include "trainer.h"

static const double huber = 0.001;

static int64_t stride_of(const struct mg_trainer *trainer) {
    return trainer->pipeline->scheduler->train_timesteps / trainer->params.num_ddim_timesteps;
}

/* ---- the teacher, and the average ---- */
static mg_status check_options(const struct mg_trainer *trainer, const struct mg_trainer_params *params,
                               struct mg_err *err) {
    const struct mg_pipeline *p = trainer->pipeline;
    if (!(params->ema_decay >= 0.0 && params->ema_decay <= 1.0))
        return mg_fail(err, MG_ERR_ARGUMENT, "`ema_decay` is %g; it must lie in [0, 1]", params->ema_decay);
    if (params->num_ddim_timesteps < 1 || params->num_ddim_timesteps > p->scheduler->train_timesteps)
        return mg_fail(err, MG_ERR_ARGUMENT, "`num_ddim_timesteps` is %d; expected 1 to %d", params->num_ddim_timesteps,
                       p->scheduler->train_timesteps);
    if (p->scheduler->prediction == MG_PREDICT_EPSILON && params->zero_terminal_snr)
        return mg_fail(
            err, MG_ERR_UNSUPPORTED,
            "objective \"lcm\": at zero terminal signal a network that predicts epsilon says nothing; wanted: "
            "v_prediction or sample");
    return MG_OK;
}

static mg_status open_other(struct mg_weights *weights, const struct mg_source *source, const char *name, bool moving,
                            struct mg_trainer *trainer, struct mg_err *err) {
    if (source->is_packed)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: a teacher must be a folder", source->path);
    MG_TRY(mg_source_weights(weights, source, name, "unet", err));
    weights->moving = moving;
    weights->may_repeat = mg_unet_may_widen;
    return mg_stages_bind_other_unet(weights, trainer->pipeline, err);
}

static mg_status open_weights(struct mg_trainer *trainer, const struct mg_trainer_params *params, struct mg_err *err) {
    struct mg_distillation *d = &trainer->distillation;
    const struct mg_source *own = &trainer->pipeline->source;
    MG_TRY(check_options(trainer, params, err));
    MG_TRY(mg_source_open(&d->source, params->teacher ? params->teacher : own->path, own->variant, err));
    MG_TRY(open_other(&d->teacher, &d->source, "teacher", false, trainer, err));
    return open_other(&d->average, own, "average", true, trainer, err);
}

static void close_weights(struct mg_trainer *trainer) {
    mg_weights_close(&trainer->distillation.teacher);
    mg_weights_close(&trainer->distillation.average);
    mg_source_close(&trainer->distillation.source);
}

/* The same layers have the same layouts. */
static void after_step(struct mg_trainer *trainer) {
    const struct mg_weights *weights = &trainer->pipeline->unet_weights, *average = &trainer->distillation.average;
    const struct mg_context *context = &trainer->pipeline->context;
    const double keep = trainer->params.ema_decay;
    context->backend->average(context, average->masters, weights->masters, weights->block_count, (float)keep,
                              (float)(1.0 - keep));
    for (size_t i = 0; i < average->count; i++)
        mg_weights_follow_master(average, (int)i);
}

/* ---- a batch ---- */
static mg_status check(const struct mg_trainer *trainer, const struct mg_training_batch *batch, struct mg_err *err) {
    const int64_t stride = stride_of(trainer), last = stride * trainer->params.num_ddim_timesteps - 1;
    MG_TRY(mg_check_latents(trainer, batch, err));
    for (int64_t n = 0; n < batch->n; n++)
        if ((batch->timesteps[n] + 1) % stride || batch->timesteps[n] > last)
            return mg_fail(err, MG_ERR_ARGUMENT,
                           "`timesteps[%lld]` is %lld; a distillation in %d steps has %lld, %lld, ... up to %lld",
                           (long long)n, (long long)batch->timesteps[n], trainer->params.num_ddim_timesteps,
                           (long long)stride - 1, (long long)(2 * stride - 1), (long long)last);
    return MG_OK;
}

/* f(x, t) = c_skip(t) x + c_out(t) x0(x, t), which is linear in x and the network's output. */
struct consistency {
    double sample, output;
};

static mg_status consistency_of(struct consistency *out, const struct mg_trainer *trainer, int64_t timestep,
                                struct mg_err *err) {
    const struct mg_scheduler *s = trainer->pipeline->scheduler;
    const struct mg_boundary boundary = mg_lcm_boundary((double)timestep, s->timestep_scaling);
    struct mg_clean_estimate e;
    MG_TRY(mg_scheduler_clean_estimate(&e, s->prediction, trainer->alphas_cumprod[timestep], timestep, err));
    *out = (struct consistency){.sample = boundary.skip + boundary.out * (double)e.origin_sample,
                                .output = boundary.out * (double)e.origin_model};
    return MG_OK;
}

static int64_t earlier(const struct mg_trainer *trainer, int64_t timestep) {
    const int64_t stride = stride_of(trainer);
    return timestep > stride ? timestep - stride : 0;
}

/* x_t becomes x_s in pass->sample, by what the teacher gave. */
static mg_status teacher_step(struct mg_training_pass *pass, const struct mg_trainer *trainer,
                              const struct mg_training_batch *batch, int64_t n, struct mg_err *err) {
    const int64_t image = mg_image_latent_count(trainer, batch), latent = mg_target_latent_count(trainer, batch);
    const int64_t t = batch->timesteps[n], s = earlier(trainer, t);
    const double signal = sqrt((double)trainer->alphas_cumprod[s]), noise = sqrt(1.0 - trainer->alphas_cumprod[s]);
    struct mg_clean_estimate e;
    MG_TRY(
        mg_scheduler_clean_estimate(&e, trainer->pipeline->scheduler->prediction, trainer->alphas_cumprod[t], t, err));
    const float by_sample = (float)(signal * (double)e.origin_sample + noise * (double)e.noise_sample);
    const float by_output = (float)(signal * (double)e.origin_model + noise * (double)e.noise_model);
    float *x = pass->sample + n * (image + latent) + image;
    const float *output = pass->output + n * latent;
    for (int64_t i = 0; i < latent; i++)
        x[i] = by_sample * x[i] + by_output * output[i];
    pass->timesteps[n] = (float)s;
    return MG_OK;
}

/* Where the average ends from x_s, into pass->gradient. */
static mg_status keep_target(struct mg_training_pass *pass, const struct mg_trainer *trainer,
                             const struct mg_training_batch *batch, int64_t n, struct mg_err *err) {
    const int64_t image = mg_image_latent_count(trainer, batch), latent = mg_target_latent_count(trainer, batch);
    const float *x = pass->sample + n * (image + latent) + image, *output = pass->output + n * latent;
    struct consistency f;
    MG_TRY(consistency_of(&f, trainer, earlier(trainer, batch->timesteps[n]), err));
    for (int64_t i = 0; i < latent; i++)
        pass->gradient[n * latent + i] = (float)(f.sample * x[i] + f.output * output[i]);
    return MG_OK;
}

static mg_status prepare(struct mg_training_pass *pass, struct mg_trainer *trainer,
                         const struct mg_training_batch *batch, struct mg_err *err) {
    mg_noise_latents(pass, trainer, batch);
    MG_TRY(mg_estimate(pass, trainer, batch, &trainer->distillation.teacher, err));
    for (int64_t n = 0; n < batch->n; n++)
        MG_TRY(teacher_step(pass, trainer, batch, n, err));
    MG_TRY(mg_estimate(pass, trainer, batch, &trainer->distillation.average, err));
    for (int64_t n = 0; n < batch->n; n++)
        MG_TRY(keep_target(pass, trainer, batch, n, err));
    mg_noise_latents(pass, trainer, batch);
    return MG_OK;
}

static double pseudo_huber(double *derivative, double difference) {
    const double root = sqrt(difference * difference + huber * huber);
    *derivative = difference / root;
    return root - huber;
}

static mg_status compute_loss(struct mg_training_pass *pass, const struct mg_trainer *trainer,
                              const struct mg_training_batch *batch, struct mg_err *err) {
    const int64_t image = mg_image_latent_count(trainer, batch), latent = mg_target_latent_count(trainer, batch);
    struct consistency f;
    for (int64_t n = 0; n < batch->n; n++) {
        const float *x = pass->sample + n * (image + latent) + image, *output = pass->output + n * latent;
        float *target = pass->gradient + n * latent;
        MG_TRY(consistency_of(&f, trainer, batch->timesteps[n], err));
        for (int64_t i = 0; i < latent; i++)
            target[i] = (float)(f.sample * x[i] + f.output * output[i] - target[i]);
    }
    MG_TRY(mg_mean_over_mask(pass, trainer, batch, pseudo_huber, err));
    for (int64_t n = 0; n < batch->n; n++) {
        MG_TRY(consistency_of(&f, trainer, batch->timesteps[n], err));
        for (int64_t i = n * latent; i < (n + 1) * latent; i++)
            pass->gradient[i] *= (float)f.output;
    }
    return MG_OK;
}

const struct mg_objective mg_objective_consistency = {.name = "lcm",
                                                      .open = open_weights,
                                                      .check = check,
                                                      .prepare = prepare,
                                                      .compute_loss = compute_loss,
                                                      .after_step = after_step,
                                                      .close = close_weights};
