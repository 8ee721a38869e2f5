/* autoencoder_trainer.c: gradients of an autoencoder's weights (objective "autoencoder"): an image is encoded, a sample
 * of the posterior decoded, and both judged. Calls stages.c (encoder and decoder with their gradients),
 * autoencoder_loss.c. The optimiser is that of any trainer.
 *
 * The encoder runs twice: encoder and decoder share the one arena, so the first run's activations are gone when their gradient
 * is wanted. It is a third of the network, and only its forward pass is repeated. */
#include "autoencoder_loss.h"
#include "trainer.h"

struct reconstruction {
    struct mg_plan *encoder, *decoder;
    int64_t h, w, cells;   /* of the latent; numbers of one image's latent */
    float *moments;        /* mean, then log variance */
    float *z, *z_gradient; /* times the scaling factor, as the decoder's stage takes latents */
    float *image, *image_gradient, *difference, *scratch;
};

static mg_status check(const struct mg_trainer *t, const struct mg_reconstruction_batch *batch, struct mg_err *err) {
    const int scale = t->pipeline->vae.scale;
    if (t->weights != &t->pipeline->vae_weights)
        return mg_fail(err, MG_ERR_ARGUMENT, "images are for trainers with objective \"autoencoder\"");
    if (batch->n < 1 || batch->h < 1 || batch->w < 1 || batch->h % scale || batch->w % scale)
        return mg_fail(err, MG_ERR_ARGUMENT, "%lld images of %lld x %lld; sides must be multiples of %d",
                       (long long)batch->n, (long long)batch->h, (long long)batch->w, scale);
    return MG_OK;
}

static mg_status prepare(struct reconstruction *r, struct mg_trainer *t, const struct mg_reconstruction_batch *batch,
                         struct mg_err *err) {
    const struct mg_autoencoder *vae = &t->pipeline->vae;
    const int64_t pixels = batch->n * batch->h * batch->w;
    r->h = batch->h / vae->scale;
    r->w = batch->w / vae->scale;
    r->cells = vae->latent_channels * r->h * r->w;
    MG_TRY(mg_alloc_floats(&r->moments, 2 * batch->n, (size_t)r->cells, "moments", err));
    MG_TRY(mg_alloc_floats(&r->z, batch->n, (size_t)r->cells, "a latent", err));
    MG_TRY(mg_alloc_floats(&r->z_gradient, batch->n, (size_t)r->cells, "a latent", err));
    MG_TRY(mg_alloc_floats(&r->image, pixels, (size_t)vae->image_channels, "a reconstruction", err));
    MG_TRY(mg_alloc_floats(&r->image_gradient, pixels, (size_t)vae->image_channels, "a reconstruction", err));
    MG_TRY(mg_alloc_floats(&r->difference, pixels, (size_t)vae->image_channels, "a reconstruction", err));
    MG_TRY(mg_alloc_floats(&r->scratch, pixels, (size_t)vae->image_channels, "a reconstruction", err));
    struct mg_stage_key key = {.stage = MG_STAGE_ENCODER_GRADIENT,
                               .n = batch->n,
                               .h = batch->h,
                               .w = batch->w,
                               .recompute = t->params.recompute};
    MG_TRY(mg_stage_plan(&r->encoder, t->pipeline, &key, err));
    key.stage = MG_STAGE_DECODER_GRADIENT;
    key.h = r->h;
    key.w = r->w;
    return mg_stage_plan(&r->decoder, t->pipeline, &key, err);
}

static mg_status encode(struct reconstruction *r, const struct mg_reconstruction_batch *batch, struct mg_err *err) {
    return mg_plan_run_forward(r->encoder, &(struct mg_binding){"x", (float *)batch->image}, 1,
                               &(struct mg_binding){"moments", r->moments}, 1, err);
}

/* Down to the gradient of z. */
static mg_status decode(struct mg_reconstruction_loss *loss, struct reconstruction *r, const struct mg_trainer *t,
                        const struct mg_reconstruction_batch *batch, struct mg_err *err) {
    const struct mg_autoencoder *vae = &t->pipeline->vae;
    const struct mg_reconstruction_weights *w = &t->params.reconstruction;
    const struct mg_reconstruction_weights scaled = {w->absolute * batch->weight, w->square * batch->weight,
                                                     w->edges * batch->weight, 0.0};
    mg_posterior_sample(r->z, r->moments, batch->noise, batch->n, r->cells);
    MG_TRY(mg_plan_run_forward(r->decoder, &(struct mg_binding){"latent", r->z}, 1,
                               &(struct mg_binding){"image", r->image}, 1, err));
    mg_reconstruction_terms(loss, r->image_gradient, r->image, batch->image, batch->n * vae->image_channels, batch->h,
                            batch->w, &scaled, r->difference, r->scratch);
    return mg_plan_run_backward(r->decoder, &(struct mg_binding){"gradient", r->image_gradient}, 1,
                                &(struct mg_binding){"latent_gradient", r->z_gradient}, 1, err);
}

static mg_status forward_backward(struct mg_reconstruction_loss *loss, struct reconstruction *r, struct mg_trainer *t,
                                  const struct mg_reconstruction_batch *batch, struct mg_err *err) {
    const struct mg_reconstruction_weights *w = &t->params.reconstruction;
    MG_TRY(prepare(r, t, batch, err));
    MG_TRY(encode(r, batch, err));
    MG_TRY(decode(loss, r, t, batch, err));
    MG_TRY(encode(r, batch, err));
    loss->divergence = mg_posterior_gradient(r->moments, r->z_gradient, batch->noise, batch->n, r->cells,
                                             w->divergence * batch->weight);
    loss->total = w->absolute * loss->absolute + w->square * loss->square + w->edges * loss->edges +
                  w->divergence * loss->divergence;
    return mg_plan_run_backward(r->encoder, &(struct mg_binding){"gradient", r->moments}, 1, NULL, 0, err);
}

mg_status mg_trainer_reconstruct(struct mg_reconstruction_loss *loss, mg_trainer *trainer,
                                 const struct mg_reconstruction_batch *batch, struct mg_err *err) {
    struct reconstruction r = {0};
    MG_TRY(check(trainer, batch, err));
    MG_TRY(mg_pipeline_enter(trainer->pipeline, err));
    mg_status status = forward_backward(loss, &r, trainer, batch, err);
    mg_free(r.moments);
    mg_free(r.z);
    mg_free(r.z_gradient);
    mg_free(r.image);
    mg_free(r.image_gradient);
    mg_free(r.difference);
    mg_free(r.scratch);
    mg_pipeline_leave(trainer->pipeline);
    return status;
}

static mg_status open(struct mg_trainer *trainer, const struct mg_trainer_params *params, struct mg_err *err) {
    (void)params;
    if (trainer->pipeline->vae.is_tiny)
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       "objective \"autoencoder\" trains an AutoencoderKL, not an AutoencoderTiny");
    /* It changes while the autoencoder is trained, and must not change a bit of the gradients of a run that goes on. */
    trainer->pipeline->vae.scaling_factor = 1.0;
    return MG_OK;
}

static mg_status refuse_latents(const struct mg_trainer *trainer, const struct mg_training_batch *batch,
                                struct mg_err *err) {
    (void)trainer;
    (void)batch;
    return mg_fail(err, MG_ERR_ARGUMENT, "objective \"autoencoder\" learns from images, not from latents");
}

const struct mg_objective mg_objective_autoencoder = {
    .name = "autoencoder", .trains_autoencoder = true, .open = open, .check = refuse_latents};
