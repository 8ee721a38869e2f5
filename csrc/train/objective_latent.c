/* objective_latent.c: the objective of the Marigold papers (arXiv 2312.02145): noised latents of the targets, and the
 * mean square error of what the network makes of them: the noise, the clean latent, or v (2202.00512). */
#include <math.h>

#include "trainer.h"

static mg_status prepare(struct mg_training_pass *pass, struct mg_trainer *trainer,
                         const struct mg_training_batch *batch, struct mg_err *err) {
    (void)err;
    mg_noise_latents(pass, trainer, batch);
    return MG_OK;
}

/* What the network should give for one sample. */
static void subtract_target(float *out, const struct mg_trainer *trainer, const struct mg_training_batch *batch,
                            int64_t n) {
    const int64_t latent = mg_target_latent_count(trainer, batch);
    const float alpha = trainer->alphas_cumprod[batch->timesteps[n]];
    const float signal = sqrtf(alpha), strength = sqrtf(1.0f - alpha);
    const float *clean = batch->target_latent + n * latent, *noise = batch->noise + n * latent;
    const mg_prediction_type prediction = trainer->pipeline->scheduler->prediction;
    for (int64_t i = 0; i < latent; i++) {
        if (prediction == MG_PREDICT_V)
            out[i] -= signal * noise[i] - strength * clean[i];
        else
            out[i] -= prediction == MG_PREDICT_EPSILON ? noise[i] : clean[i];
    }
}

static double squared(double *derivative, double difference) {
    *derivative = 2.0 * difference;
    return difference * difference;
}

mg_status mg_latent_loss(struct mg_training_pass *pass, const struct mg_trainer *trainer,
                         const struct mg_training_batch *batch, struct mg_err *err) {
    const int64_t latent = mg_target_latent_count(trainer, batch);
    memcpy(pass->gradient, pass->output, (size_t)(batch->n * latent) * sizeof(float));
    for (int64_t n = 0; n < batch->n; n++)
        subtract_target(pass->gradient + n * latent, trainer, batch, n);
    return mg_mean_over_mask(pass, trainer, batch, squared, err);
}

const struct mg_objective mg_objective_latent = {
    .name = "latent", .check = mg_check_latents, .prepare = prepare, .compute_loss = mg_latent_loss};
