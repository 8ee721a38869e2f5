/* objective_end_to_end.c: end-to-end fine-tuning (arXiv 2409.11355): one step from the last time step and a latent of
 * zeros or of noise, the clean latent that it makes decoded by the frozen autoencoder, and errors in pixels, whose
 * gradient comes back through the decoder. Calls stages.c (the decoder and its gradient), pixel_errors.c.
 *
 * The network runs once more than it would have to: first without gradients; then each map is decoded and its gradient taken
 * back alone; then the network runs again, for its own gradients. So the activations of network and decoder are never in memory
 * together, nor those of two maps, for a few percent of the time, most of which the decoder takes. */
#include <math.h>

#include "trainer.h"

static mg_status open_decoder(struct mg_trainer *trainer, const struct mg_trainer_params *params, struct mg_err *err) {
    const struct mg_pipeline *p = trainer->pipeline;
    const int last = p->scheduler->train_timesteps - 1;
    struct mg_clean_estimate e;
    trainer->measure = mg_pixel_measure_of(p->task->name, params->pixel_loss ? params->pixel_loss : "task");
    if (!trainer->measure)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "objective \"e2e\" has no loss \"%.40s\" for %s; it has \"task\"%s",
                       params->pixel_loss ? params->pixel_loss : "task", p->task->name,
                       mg_pixel_measure_of(p->task->name, "sink") ? ", \"absolute\" and \"sink\"" : "");
    return mg_scheduler_clean_estimate(&e, p->scheduler->prediction, trainer->alphas_cumprod[last], last, err);
}

static mg_status check(const struct mg_trainer *trainer, const struct mg_training_batch *batch, struct mg_err *err) {
    const struct mg_pipeline *p = trainer->pipeline;
    const int64_t channels = (int64_t)p->task->prediction_channels * p->num_targets;
    if (!batch->pixel_target)
        return mg_fail(err, MG_ERR_ARGUMENT, "objective \"e2e\" needs `pixel_target`");
    if (batch->target_latent || batch->timesteps || batch->mask)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "objective \"e2e\" compares pixels; `target_latent`, `timesteps` and `mask` must be None");
    if (batch->pixel_channels != channels || batch->pixel_h != batch->h * p->vae.scale ||
        batch->pixel_w != batch->w * p->vae.scale)
        return mg_fail(
            err, MG_ERR_ARGUMENT,
            "`pixel_target` has %lld channels of %lld x %lld; for %s and latents of %lld x %lld expected are "
            "%lld of %lld x %lld",
            (long long)batch->pixel_channels, (long long)batch->pixel_h, (long long)batch->pixel_w, p->task->name,
            (long long)batch->h, (long long)batch->w, (long long)channels, (long long)(batch->h * p->vae.scale),
            (long long)(batch->w * p->vae.scale));
    return MG_OK;
}

/* What the maps of a batch share. */
struct decoding {
    struct mg_plan *plan;
    const struct mg_pixel_measure *measure;
    int64_t h, w, pixels, maps,
        channels;               /* of one map; pixels: h * w; maps: of a sample; channels: of a map's target */
    uint8_t *valid;             /* (maps of the batch, pixels) */
    int64_t valid_count, count; /* of pixels; of what a mean is taken over, which they are unless counted otherwise */
    float *image, *image_gradient; /* (3, pixels) */
    float *latent;                 /* of one map */
    double by_output, by_noise;    /* clean latent = by_output * what the network gives + by_noise * the noise */
};

/* Pixels that count: the mask's whose truth says something. */
static void find_valid(struct decoding *d, const struct mg_training_batch *batch) {
    for (int64_t map = 0; map < batch->n * d->maps; map++) {
        const uint8_t *mask = batch->pixel_mask ? batch->pixel_mask + map / d->maps * d->pixels : NULL;
        const float *target = batch->pixel_target + map * d->channels * d->pixels;
        for (int64_t i = 0; i < d->pixels; i++) {
            const bool counts =
                (!mask || mask[i]) && (!d->measure->is_known || d->measure->is_known(target + i, d->pixels));
            d->valid[map * d->pixels + i] = counts;
            d->valid_count += counts;
        }
        if (d->measure->count_errors)
            d->count += d->measure->count_errors(d->valid + map * d->pixels, d->h, d->w);
    }
    if (!d->measure->count_errors)
        d->count = d->valid_count;
}

static mg_status check_truth(const struct decoding *d, const struct mg_training_batch *batch, struct mg_err *err) {
    const double largest = d->measure->largest_truth;
    for (int64_t i = 0; largest > 0.0 && i < batch->n * d->maps * d->pixels; i++)
        if (d->valid[i] && !(fabs(batch->pixel_target[i]) <= largest))
            return mg_fail(
                err, MG_ERR_ARGUMENT,
                "`pixel_target` is %g at row %lld, column %lld of sample %lld; loss \"%s\" compares depth in "
                "the network's own range, and takes none beyond %g",
                (double)batch->pixel_target[i], (long long)(i % d->pixels / d->w), (long long)(i % d->w),
                (long long)(i / d->pixels), d->measure->loss, largest);
    return MG_OK;
}

static mg_status prepare_decoding(struct decoding *d, struct mg_trainer *trainer, const struct mg_training_batch *batch,
                                  struct mg_err *err) {
    struct mg_pipeline *p = trainer->pipeline;
    const int last = p->scheduler->train_timesteps - 1;
    const struct mg_stage_key key = {.stage = MG_STAGE_DECODER_GRADIENT,
                                     .n = 1,
                                     .h = batch->h,
                                     .w = batch->w,
                                     .recompute = trainer->params.recompute};
    struct mg_clean_estimate e;
    d->measure = trainer->measure;
    d->h = batch->pixel_h;
    d->w = batch->pixel_w;
    d->pixels = d->h * d->w;
    d->maps = p->num_targets;
    d->channels = p->task->prediction_channels;
    MG_TRY(mg_scheduler_clean_estimate(&e, p->scheduler->prediction, trainer->alphas_cumprod[last], last, err));
    d->by_output = e.origin_model;
    d->by_noise = e.origin_sample;
    MG_TRY(mg_alloc((void **)&d->valid, (size_t)(batch->n * d->maps * d->pixels), "a mask of pixels", err));
    find_valid(d, batch);
    if (!d->valid_count)
        return mg_fail(err, MG_ERR_ARGUMENT, "`pixel_mask` and `pixel_target` have no pixel that counts");
    MG_TRY(check_truth(d, batch, err));
    MG_TRY(mg_alloc_floats(&d->image, 3, (size_t)d->pixels, "a decoded map", err));
    MG_TRY(mg_alloc_floats(&d->image_gradient, 3, (size_t)d->pixels, "a decoded map", err));
    MG_TRY(mg_alloc_floats(&d->latent, p->vae.latent_channels, (size_t)(batch->h * batch->w), "a latent", err));
    return mg_stage_plan(&d->plan, p, &key, err);
}

/* Adds the errors of one map; what the network gave for it (`output`) -> the gradient of the mean error by that. */
static mg_status map_loss(double *sum, float *gradient, const float *output, const struct decoding *d,
                          const struct mg_training_batch *batch, int64_t map, int64_t count, struct mg_err *err) {
    const uint8_t *valid = d->valid + map * d->pixels;
    const double errors = (double)d->count * d->measure->errors;
    if (!memchr(valid, 1, (size_t)d->pixels)) {
        memset(gradient, 0, (size_t)count * sizeof *gradient);
        return MG_OK;
    }
    const float *noise = batch->noise ? batch->noise + map * count : NULL;
    for (int64_t i = 0; i < count; i++)
        d->latent[i] = (float)(d->by_output * output[i] + (noise ? d->by_noise * noise[i] : 0.0));
    MG_TRY(mg_plan_run_forward(d->plan, &(struct mg_binding){"latent", d->latent}, 1,
                               &(struct mg_binding){"image", d->image}, 1, err));
    *sum += d->measure->errors_of(d->image_gradient, d->image, batch->pixel_target + map * d->channels * d->pixels,
                                  valid, d->h, d->w, batch->weight / errors);
    MG_TRY(mg_plan_run_backward(d->plan, &(struct mg_binding){"gradient", d->image_gradient}, 1,
                                &(struct mg_binding){"latent_gradient", gradient}, 1, err));
    for (int64_t i = 0; i < count; i++)
        gradient[i] = (float)(d->by_output * gradient[i]);
    return MG_OK;
}

/* The image's latent and where the step begins, at the last time step. */
static void start(struct mg_training_pass *pass, const struct mg_trainer *trainer,
                  const struct mg_training_batch *batch) {
    const int64_t image = mg_image_latent_count(trainer, batch), latent = mg_target_latent_count(trainer, batch);
    for (int64_t n = 0; n < batch->n; n++) {
        float *to = pass->sample + n * (image + latent);
        memcpy(to, batch->image_latent + n * image, (size_t)image * sizeof *to);
        if (batch->noise)
            memcpy(to + image, batch->noise + n * latent, (size_t)latent * sizeof *to);
        else
            memset(to + image, 0, (size_t)latent * sizeof *to);
        pass->timesteps[n] = (float)(trainer->pipeline->scheduler->train_timesteps - 1);
    }
}

static mg_status prepare(struct mg_training_pass *pass, struct mg_trainer *trainer,
                         const struct mg_training_batch *batch, struct mg_err *err) {
    const int64_t count = mg_image_latent_count(trainer, batch); /* a map's latent is as large as the image's */
    struct decoding d = {0};
    double sum = 0.0;
    mg_status status;
    start(pass, trainer, batch);
    MG_TRY(mg_estimate(pass, trainer, batch, NULL, err));
    MG_TRY_GOTO(prepare_decoding(&d, trainer, batch, err));
    for (int64_t map = 0; map < batch->n * d.maps; map++)
        MG_TRY_GOTO(
            map_loss(&sum, pass->gradient + map * count, pass->output + map * count, &d, batch, map, count, err));
    pass->loss = sum / ((double)d.count * d.measure->errors);
done:
    mg_free(d.valid);
    mg_free(d.image);
    mg_free(d.image_gradient);
    mg_free(d.latent);
    return status;
}

/* The output is the one that was compared already. */
static mg_status compute_loss(struct mg_training_pass *pass, const struct mg_trainer *trainer,
                              const struct mg_training_batch *batch, struct mg_err *err) {
    (void)pass;
    (void)trainer;
    (void)batch;
    (void)err;
    return MG_OK;
}

const struct mg_objective mg_objective_end_to_end = {
    .name = "e2e", .open = open_decoder, .check = check, .prepare = prepare, .compute_loss = compute_loss};
