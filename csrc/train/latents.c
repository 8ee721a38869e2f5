/* latents.c: what the objectives on latents share: noise (DDPM, arXiv 2006.11239), means over a mask, and the network without
 * gradients. */
#include <math.h>

#include "trainer.h"

int64_t mg_image_latent_count(const struct mg_trainer *trainer, const struct mg_training_batch *batch) {
    return trainer->pipeline->vae.latent_channels * batch->h * batch->w;
}

int64_t mg_target_latent_count(const struct mg_trainer *trainer, const struct mg_training_batch *batch) {
    return trainer->pipeline->unet.out_channels * batch->h * batch->w;
}

mg_status mg_check_latents(const struct mg_trainer *trainer, const struct mg_training_batch *batch,
                           struct mg_err *err) {
    const char *name = trainer->objective->name;
    const int levels = trainer->pipeline->scheduler->train_timesteps;
    if (!batch->target_latent || !batch->noise || !batch->timesteps)
        return mg_fail(err, MG_ERR_ARGUMENT, "objective \"%s\" needs `target_latent`, `noise` and `timesteps`", name);
    if (!trainer->objective->trains_boosting && batch->coarse_latent)
        return mg_fail(err, MG_ERR_ARGUMENT, "`coarse_latent` is for objective \"refine\", not for \"%s\"", name);
    if (batch->pixel_target || batch->pixel_mask)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "objective \"%s\" compares latents; `pixel_target` and `pixel_mask` are for \"e2e\"", name);
    if (batch->mask && batch->mask_channels != 1 && batch->mask_channels != trainer->pipeline->unet.out_channels)
        return mg_fail(err, MG_ERR_ARGUMENT, "`mask` has %lld channels; expected 1 or %d",
                       (long long)batch->mask_channels, trainer->pipeline->unet.out_channels);
    for (int64_t n = 0; n < batch->n; n++)
        if (batch->timesteps[n] < 0 || batch->timesteps[n] >= levels)
            return mg_fail(err, MG_ERR_ARGUMENT, "`timesteps[%lld]` is %lld; expected 0 to %d", (long long)n,
                           (long long)batch->timesteps[n], levels - 1);
    return MG_OK;
}

void mg_noise_target(float *out, const struct mg_trainer *trainer, const struct mg_training_batch *batch, int64_t n) {
    const int64_t latent = mg_target_latent_count(trainer, batch);
    const float alpha = trainer->alphas_cumprod[batch->timesteps[n]];
    const float signal = sqrtf(alpha), strength = sqrtf(1.0f - alpha);
    const float *clean = batch->target_latent + n * latent, *noise = batch->noise + n * latent;
    for (int64_t i = 0; i < latent; i++)
        out[i] = signal * clean[i] + strength * noise[i];
}

void mg_noise_latents(struct mg_training_pass *pass, const struct mg_trainer *trainer,
                      const struct mg_training_batch *batch) {
    const int64_t image = mg_image_latent_count(trainer, batch), latent = mg_target_latent_count(trainer, batch);
    for (int64_t n = 0; n < batch->n; n++) {
        float *to = pass->sample + n * (image + latent);
        memcpy(to, batch->image_latent + n * image, (size_t)image * sizeof *to);
        mg_noise_target(to + image, trainer, batch, n);
        pass->timesteps[n] = (float)batch->timesteps[n];
    }
}

/* The mask of one sample and channel; NULL: all cells. */
static const uint8_t *plane_of(const struct mg_training_batch *batch, int64_t n, int64_t c) {
    const int64_t cells = batch->h * batch->w;
    if (!batch->mask)
        return NULL;
    return batch->mask + (n * batch->mask_channels + (batch->mask_channels > 1 ? c : 0)) * cells;
}

mg_status mg_mean_over_mask(struct mg_training_pass *pass, const struct mg_trainer *trainer,
                            const struct mg_training_batch *batch, mg_error_measure *measure, struct mg_err *err) {
    const int64_t cells = batch->h * batch->w, channels = trainer->pipeline->unet.out_channels;
    double sum = 0.0;
    int64_t count = 0;
    for (int64_t i = 0; i < batch->n * channels; i++) {
        const uint8_t *mask = plane_of(batch, i / channels, i % channels);
        float *plane = pass->gradient + i * cells;
        for (int64_t cell = 0; cell < cells; cell++) {
            double derivative = 0.0;
            if (!mask || mask[cell]) {
                sum += measure(&derivative, plane[cell]);
                count++;
            }
            plane[cell] = (float)derivative;
        }
    }
    if (!count)
        return mg_fail(err, MG_ERR_ARGUMENT, "`mask` has no cell that counts");
    pass->loss = sum / (double)count;
    const float factor = (float)(batch->weight / (double)count);
    for (int64_t i = 0; i < batch->n * channels * cells; i++)
        pass->gradient[i] *= factor;
    return MG_OK;
}

mg_status mg_estimate(struct mg_training_pass *pass, struct mg_trainer *trainer, const struct mg_training_batch *batch,
                      struct mg_weights *weights, struct mg_err *err) {
    const struct mg_stage_key key = {
        .stage = MG_STAGE_ESTIMATE, .n = batch->n, .h = batch->h, .w = batch->w, .weights = weights};
    struct mg_plan *plan;
    MG_TRY(mg_stage_plan(&plan, trainer->pipeline, &key, err));
    const struct mg_binding inputs[] = {{"sample", pass->sample}, {"timesteps", pass->timesteps}};
    return mg_plan_run(plan, inputs, 2, &(struct mg_binding){"output", pass->output}, 1, err);
}
