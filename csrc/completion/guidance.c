/* guidance.c: the gradient of a preview's loss through decoder and UNet, and the guided steps of one member (Marigold-DC, arXiv
 * 2412.13389, as its authors' code has it). Calls points.c, stages.c (decoder and UNet with their gradients), schedule/step.c.
 *
 * Between the UNet's forward pass and its backward pass the decoder has its gradient taken. Where memory holds it, the UNet's
 * activations stay meanwhile, and the decoder's lie behind them; else the decoder's take their place, and the UNet runs forward
 * once more. */
#include <math.h>
#include <string.h>

#include "../core/adam.h"
#include "completion.h"

mg_status mg_guidance_alloc(struct mg_guidance *g, struct mg_err *err) {
    float **const latents[] = {&g->output, &g->preview, &g->from_preview, &g->gradient, &g->m, &g->v};
    for (size_t i = 0; i < sizeof latents / sizeof latents[0]; i++)
        MG_TRY(mg_alloc_floats(latents[i], 1, g->latent_floats, "latents", err));
    MG_TRY(mg_alloc_floats(&g->decoded, 3, (size_t)g->pixels, "a decoded map", err));
    return mg_alloc_floats(&g->decoded_gradient, 3, (size_t)g->pixels, "a decoded map", err);
}

void mg_guidance_free(struct mg_guidance *g) {
    float *const owned[] = {g->image_latent, g->decoded, g->decoded_gradient,
                            g->output,       g->preview, g->from_preview,
                            g->gradient,     g->m,       g->v};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        mg_free(owned[i]);
    mg_free(g->points.list);
}

static struct mg_stage_key key_of(const struct mg_guidance *g, mg_stage stage, size_t floor) {
    return (struct mg_stage_key){.stage = stage,
                                 .n = 1,
                                 .h = g->latent_h,
                                 .w = g->latent_w,
                                 .recompute = g->recompute == MG_RECOMPUTE_ON,
                                 .floor = floor};
}

/* ---- what is computed twice ---- */
static mg_status bytes_of(size_t *out, struct mg_guidance *g, mg_stage stage, struct mg_err *err) {
    const struct mg_stage_key key = key_of(g, stage, 0);
    return mg_stage_bytes(out, g->pipeline, &key, err);
}

mg_status mg_guidance_choose_recompute(struct mg_guidance *g, struct mg_err *err) {
    struct mg_pipeline *p = g->pipeline;
    size_t unet, decoder;
    bool fits;
    if (g->recompute != MG_RECOMPUTE_AUTO)
        return MG_OK;
    MG_TRY(mg_stages_choose_layouts(p, err));
    MG_TRY(bytes_of(&unet, g, MG_STAGE_DENOISE_GRADIENT, err));
    MG_TRY(bytes_of(&decoder, g, MG_STAGE_DECODER_GRADIENT, err));
    const size_t weights = mg_weights_unbound_bytes(&p->unet_weights, &p->context) +
                           mg_weights_unbound_bytes(&p->vae_weights, &p->context);
    const size_t needed[] = {[MG_RECOMPUTE_OFF] = weights + unet + decoder,
                             [MG_RECOMPUTE_UNET] = weights + (unet > decoder ? unet : decoder)};
    for (g->recompute = MG_RECOMPUTE_OFF; g->recompute < MG_RECOMPUTE_ON; g->recompute++) {
        MG_TRY(mg_memory_holds(&fits, &p->context, needed[g->recompute], err));
        if (fits)
            break;
    }
    return MG_OK;
}

/* ---- the gradient ---- */
static mg_status plan_unet(struct mg_plan **out, struct mg_guidance *g, struct mg_err *err) {
    const struct mg_stage_key key = key_of(g, MG_STAGE_DENOISE_GRADIENT, 0);
    return mg_stage_plan(out, g->pipeline, &key, err);
}

static mg_status plan_decoder(struct mg_plan **out, struct mg_guidance *g, const struct mg_plan *unet,
                              struct mg_err *err) {
    const size_t floor = g->recompute == MG_RECOMPUTE_OFF ? mg_plan_activation_bytes(unet) : 0;
    const struct mg_stage_key key = key_of(g, MG_STAGE_DECODER_GRADIENT, floor);
    return mg_stage_plan(out, g->pipeline, &key, err);
}

static mg_status estimate(struct mg_plan *unet, struct mg_guidance *g, const float *sample, float timestep,
                          struct mg_err *err) {
    const struct mg_binding inputs[] = {
        {"image_latent", g->image_latent}, {"sample", (void *)sample}, {"timestep", &timestep}};
    return mg_plan_run_forward(unet, inputs, 3, &(struct mg_binding){"output", g->output}, 1, err);
}

mg_status mg_guidance_gradient(struct mg_preview_loss *out, struct mg_guidance *g, const float *sample,
                               const struct mg_affine *roots, float timestep, const struct mg_clean_estimate *e,
                               struct mg_err *err) {
    struct mg_plan *unet, *decoder;
    MG_TRY(plan_unet(&unet, g, err));
    /* Both are planned before either runs: planning may move the memory that the UNet's activations are in. */
    if (g->recompute == MG_RECOMPUTE_OFF)
        MG_TRY(plan_decoder(&decoder, g, unet, err));
    MG_TRY(estimate(unet, g, sample, timestep, err));
    for (size_t i = 0; i < g->latent_floats; i++)
        g->preview[i] = e->origin_sample * sample[i] + e->origin_model * g->output[i];
    MG_TRY(plan_decoder(&decoder, g, unet, err));
    MG_TRY(mg_plan_run_forward(decoder, &(struct mg_binding){"latent", g->preview}, 1,
                               &(struct mg_binding){"image", g->decoded}, 1, err));
    out->loss = mg_points_loss(g->decoded_gradient, &out->by_roots, g->decoded, g->pixels, &g->points, roots);
    MG_TRY(mg_plan_run_backward(decoder, &(struct mg_binding){"gradient", g->decoded_gradient}, 1,
                                &(struct mg_binding){"latent_gradient", g->from_preview}, 1, err));
    if (g->recompute != MG_RECOMPUTE_OFF) {
        MG_TRY(plan_unet(&unet, g, err));
        MG_TRY(estimate(unet, g, sample, timestep, err));
    }
    for (size_t i = 0; i < g->latent_floats; i++)
        g->preview[i] = e->origin_model * g->from_preview[i]; /* the gradient by the network's output */
    MG_TRY(mg_plan_run_backward(unet, &(struct mg_binding){"gradient", g->preview}, 1,
                                &(struct mg_binding){"sample_gradient", g->gradient}, 1, err));
    for (size_t i = 0; i < g->latent_floats; i++)
        g->gradient[i] += e->origin_sample * g->from_preview[i];
    return MG_OK;
}

/* torch's defaults. */
static struct mg_scalar_adam adam_of(double rate, int step) { return mg_scalar_adam_of(rate, 0.9, 0.999, step); }

static void move_latent(float *sample, struct mg_guidance *g, double factor, int step) {
    const struct mg_scalar_adam a = adam_of(g->latent_rate, step);
    for (size_t i = 0; i < g->latent_floats; i++) {
        double m = g->m[i], v = g->v[i];
        sample[i] += (float)mg_scalar_adam_step(&a, &m, &v, factor * g->gradient[i]);
        g->m[i] = (float)m;
        g->v[i] = (float)v;
    }
}

/* ---- the steps ---- */
static double norm_of(const float *x, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += (double)x[i] * x[i];
    return sqrt(sum);
}

/* Of the noise that the network sees in the sample. */
static double norm_of_noise(const struct mg_guidance *g, const float *sample, const struct mg_clean_estimate *e) {
    double sum = 0.0;
    for (size_t i = 0; i < g->latent_floats; i++) {
        const double noise = (double)e->noise_sample * sample[i] + (double)e->noise_model * g->output[i];
        sum += noise * noise;
    }
    return sqrt(sum);
}

static mg_status check_finite(const struct mg_preview_loss *loss, double norm, int step, struct mg_err *err) {
    if (isfinite(loss->loss) && isfinite(norm))
        return MG_OK;
    return mg_fail(err, MG_ERR_NOT_FINITE, "guided step %d: the loss is %g, and the norm of its gradient %g", step,
                   loss->loss, norm);
}

struct roots_moments {
    struct mg_affine m, v;
};

static mg_status guided_step(float *sample, struct mg_affine *roots, struct roots_moments *moments,
                             struct mg_guidance *g, const mg_scheduler *scheduler, int step, struct mg_err *err) {
    const double timestep = scheduler->timesteps.list[step];
    const struct mg_scalar_adam a = adam_of(g->affine_rate, step + 1);
    struct mg_step_coefficients k;
    struct mg_clean_estimate e;
    struct mg_preview_loss loss;
    MG_TRY(mg_schedule_coefficients(&k, scheduler, step, &(struct mg_step_options){0}, err));
    MG_TRY(mg_scheduler_clean_estimate(&e, scheduler->prediction, scheduler->alphas_cumprod[(int64_t)timestep],
                                       (int64_t)timestep, err));
    MG_TRY(mg_guidance_gradient(&loss, g, sample, roots, (float)timestep, &e, err));
    const double norm = norm_of(g->gradient, g->latent_floats);
    MG_TRY(check_finite(&loss, norm, step + 1, err));
    move_latent(sample, g, norm_of_noise(g, sample, &e) / fmax(norm, 1e-8), step + 1);
    roots->scale += mg_scalar_adam_step(&a, &moments->m.scale, &moments->v.scale, loss.by_roots.scale);
    roots->shift += mg_scalar_adam_step(&a, &moments->m.shift, &moments->v.shift, loss.by_roots.shift);
    mg_scheduler_step(sample, NULL, g->output, NULL, g->latent_floats, &k);
    return MG_OK;
}

mg_status mg_guidance_member(float *sample, struct mg_affine *roots, struct mg_guidance *g,
                             const mg_scheduler *scheduler, void (*tell)(void *user), void *user, struct mg_err *err) {
    struct roots_moments moments = {0};
    *roots = (struct mg_affine){1.0, 1.0};
    memset(g->m, 0, g->latent_floats * sizeof *g->m);
    memset(g->v, 0, g->latent_floats * sizeof *g->v);
    for (int step = 0; step < scheduler->timesteps.count; step++) {
        MG_TRY(guided_step(sample, roots, &moments, g, scheduler, step, err));
        if (tell)
            tell(user);
    }
    return MG_OK;
}
