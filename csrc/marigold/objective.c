/* objective.c: what a network is trained towards: noised latents and the mean square error of what it makes of them (DDPM,
 * arXiv 2006.11239; v-prediction, 2202.00512). Called by trainer.c. */
#include <math.h>

#include "trainer.h"

void mg_objective_noise(float *sample, float *target, const struct mg_trainer *trainer,
                        const struct mg_training_batch *batch) {
    const struct mg_pipeline *p = trainer->pipeline;
    const int64_t cells = batch->h * batch->w, image = p->vae.latent_channels * cells;
    const int64_t latent = p->unet.out_channels * cells;
    for (int64_t n = 0; n < batch->n; n++) {
        const float alpha = trainer->alphas_cumprod[batch->timesteps[n]];
        const float signal = sqrtf(alpha), strength = sqrtf(1.0f - alpha);
        const float *clean = batch->target_latent + n * latent, *noise = batch->noise + n * latent;
        float *to = sample + n * (image + latent), *wanted = target + n * latent;
        memcpy(to, batch->image_latent + n * image, (size_t)image * sizeof *to);
        to += image;
        for (int64_t i = 0; i < latent; i++) {
            to[i] = signal * clean[i] + strength * noise[i];
            if (p->scheduler->prediction == MG_PREDICT_V)
                wanted[i] = signal * noise[i] - strength * clean[i];
            else
                wanted[i] = p->scheduler->prediction == MG_PREDICT_EPSILON ? noise[i] : clean[i];
        }
    }
}

/* The mask of one sample and channel; NULL: all cells. */
static const uint8_t *plane_of(const struct mg_training_batch *batch, int64_t n, int64_t c) {
    const int64_t cells = batch->h * batch->w;
    if (!batch->mask)
        return NULL;
    return batch->mask + (n * batch->mask_channels + (batch->mask_channels > 1 ? c : 0)) * cells;
}

mg_status mg_objective_loss(double *loss, float *target, const float *output, const struct mg_training_batch *batch,
                            int64_t channels, struct mg_err *err) {
    const int64_t cells = batch->h * batch->w;
    double sum = 0.0;
    int64_t count = 0;
    for (int64_t i = 0; i < batch->n * channels; i++) {
        const uint8_t *mask = plane_of(batch, i / channels, i % channels);
        for (int64_t cell = 0; cell < cells; cell++) {
            const double difference = (double)output[i * cells + cell] - target[i * cells + cell];
            const bool counts = !mask || mask[cell];
            sum += counts ? difference * difference : 0.0;
            count += counts;
            target[i * cells + cell] = counts ? (float)difference : 0.0f;
        }
    }
    if (!count)
        return mg_fail(err, MG_ERR_ARGUMENT, "`mask` has no cell that counts");
    *loss = sum / (double)count;
    const float factor = (float)(2.0 * batch->weight / (double)count);
    for (int64_t i = 0; i < batch->n * channels * cells; i++)
        target[i] *= factor;
    return MG_OK;
}
