/* objective_refine.c: the objective of the second UNet of Marigold-HR (arXiv 2505.09358, after BetterDepth, 2407.17952): that of the
 * latents, but the network also sees the latent of a coarse prediction that was aligned to the truth. Which cells count, where both
 * agree, is the batch's mask. Calls objective_latent.c. */
#include "trainer.h"

static mg_status check(const struct mg_trainer *trainer, const struct mg_training_batch *batch, struct mg_err *err) {
    if (!batch->coarse_latent)
        return mg_fail(err, MG_ERR_ARGUMENT, "objective \"refine\" needs `coarse_latent`");
    return mg_check_latents(trainer, batch, err);
}

/* The latents side by side in the order of the network's channels; all three have as many. */
static mg_status prepare(struct mg_training_pass *pass, struct mg_trainer *trainer,
                         const struct mg_training_batch *batch, struct mg_err *err) {
    (void)err;
    const int64_t latent = mg_image_latent_count(trainer, batch);
    float *to = pass->sample;
    for (int64_t n = 0; n < batch->n; n++) {
        for (int i = 0; i < MG_UNET_INPUTS; i++, to += latent) {
            const mg_unet_input input = trainer->pipeline->boosting.inputs[i];
            if (input == MG_INPUT_SAMPLE)
                mg_noise_target(to, trainer, batch, n);
            else
                memcpy(to, (input == MG_INPUT_IMAGE ? batch->image_latent : batch->coarse_latent) + n * latent,
                       (size_t)latent * sizeof *to);
        }
        pass->timesteps[n] = (float)batch->timesteps[n];
    }
    return MG_OK;
}

const struct mg_objective mg_objective_refine = {
    .name = "refine", .trains_boosting = true, .check = check, .prepare = prepare, .compute_loss = mg_latent_loss};
