/* run.c: one run: images -> image latents -> denoising loop (denoise.c), of a refinement in tiles (refine.c) -> maps at the images'
 * size (predict.c). */
#include <string.h>

#include "run.h"

void mg_run_params_init(struct mg_run_params *params) {
    *params = (struct mg_run_params){.ensemble_size = 1,
                                     .processing_resolution = -1,
                                     .match_input_resolution = true,
                                     .resample_input = MG_RESAMPLE_BILINEAR,
                                     .resample_output = MG_RESAMPLE_DEFAULT,
                                     .batch_size = 1,
                                     .refinement = {.tile_size = 768, .tile_overlap = -1}};
    mg_ensemble_depth_params_init(&params->ensemble);
    params->ensemble.reduction = MG_REDUCE_DEFAULT;
}

void mg_result_free(struct mg_result *result) {
    mg_free(result->prediction);
    mg_free(result->uncertainty);
    mg_free(result->latent);
    *result = (struct mg_result){0};
}

static mg_status check_counts(const struct mg_run_params *p, int steps, struct mg_err *err) {
    if (steps < 1)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "num_inference_steps is not given and the checkpoint names no default_denoising_steps");
    if (p->ensemble_size < 1)
        return mg_fail(err, MG_ERR_ARGUMENT, "ensemble_size is %d; it must be positive", p->ensemble_size);
    if (p->ensemble_size > MG_MAX_MEMBERS)
        return mg_fail(err, MG_ERR_ARGUMENT, "ensemble_size is %d; at most %d members are merged", p->ensemble_size,
                       MG_MAX_MEMBERS);
    if (p->ensemble_size == 1 && p->output_uncertainty)
        return mg_fail(err, MG_ERR_ARGUMENT, "output_uncertainty needs an ensemble_size greater than 1");
    if (p->batch_size < 0)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "batch_size is %d; it must be positive, or 0 for a choice by the device's memory",
                       p->batch_size);
    if (p->image.n < 1 || p->image.h < 1 || p->image.w < 1 || !p->image.data)
        return mg_fail(err, MG_ERR_ARGUMENT, "the image is empty: %lld x %lld x %lld", (long long)p->image.n,
                       (long long)p->image.h, (long long)p->image.w);
    if (p->latents && p->num_generators)
        return mg_fail(err, MG_ERR_ARGUMENT, "latents and generator are both given; give one of them");
    if (p->num_generators > 1 && p->num_generators != p->image.n * p->ensemble_size)
        return mg_fail(err, MG_ERR_ARGUMENT, "%d generators for %lld images times %d ensemble members",
                       p->num_generators, (long long)p->image.n, p->ensemble_size);
    return MG_OK;
}

/* The paper's "nearest" is torch's nearest-exact. */
static mg_resample resample_of(mg_resample asked, mg_preset preset) {
    return preset == MG_PRESET_PAPER && asked == MG_RESAMPLE_NEAREST ? MG_RESAMPLE_NEAREST_EXACT : asked;
}

static mg_status size_run(struct mg_run *run, struct mg_err *err) {
    const mg_pipeline *pipe = run->pipeline;
    const struct mg_geometry *g = &run->geometry;
    size_t pixels, cells = (size_t)(g->latent_h * g->latent_w);
    if (!mg_size_mul(&pixels, (size_t)g->padded_h, (size_t)g->padded_w) || pixels > SIZE_MAX >> 16)
        return mg_fail(err, MG_ERR_MEMORY, "an image of %lld x %lld cannot be addressed", (long long)g->padded_h,
                       (long long)g->padded_w);
    run->samples = run->params->image.n * run->params->ensemble_size;
    run->image_floats = pixels * (size_t)pipe->vae.image_channels;
    run->image_latent_floats = cells * (size_t)pipe->vae.latent_channels;
    run->latent_floats = cells * (size_t)pipe->unet.out_channels;
    run->decoded_floats = cells * (size_t)(pipe->vae.scale * pipe->vae.scale) * (size_t)pipe->vae.image_channels;
    return MG_OK;
}

static mg_status choose_timesteps(struct mg_run *run, int steps, struct mg_err *err) {
    const struct mg_family *family = run->pipeline->family;
    if (run->params->latents && !mg_family_takes_sample(family))
        return mg_fail(err, MG_ERR_ARGUMENT, "latents are given, and family %s predicts from the image alone",
                       family->name);
    if (family->output_factor == 0.0f) {
        MG_TRY(mg_schedule_set_timesteps(run->scheduler, steps, err));
        run->timesteps = mg_scheduler_timesteps(run->scheduler, &run->num_timesteps);
        return MG_OK;
    }
    if (steps != 1)
        return mg_fail(err, MG_ERR_ARGUMENT, "num_inference_steps is %d; family %s predicts in one", steps,
                       family->name);
    run->timesteps = &family->timestep;
    run->num_timesteps = 1;
    return MG_OK;
}

static mg_status start_run(struct mg_run *run, struct mg_err *err) {
    mg_pipeline *pipe = run->pipeline;
    const struct mg_run_params *p = run->params;
    int steps = p->num_inference_steps ? p->num_inference_steps : pipe->default_steps;
    int64_t resolution = p->processing_resolution >= 0 ? p->processing_resolution : pipe->default_resolution;
    MG_TRY(check_counts(p, steps, err));
    if (resolution < 0)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "processing_resolution is not given and the checkpoint names no default_processing_resolution");
    if (p->preset == MG_PRESET_PAPER && pipe->vae.is_tiny)
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       "preset \"paper\" is not supported with AutoencoderTiny, which the paper's code cannot run");
    MG_TRY(mg_geometry_of(&run->geometry, p->image.h, p->image.w, resolution, pipe->vae.scale, p->preset, err));
    run->resample_input = resample_of(p->resample_input, p->preset);
    run->resample_output = resample_of(
        p->resample_output == MG_RESAMPLE_DEFAULT ? pipe->family->resample_output : p->resample_output, p->preset);
    run->scheduler = p->scheduler ? p->scheduler : pipe->scheduler;
    MG_TRY(choose_timesteps(run, steps, err));
    MG_TRY(size_run(run, err));
    return mg_run_refines(run) ? mg_refine_start(run, err) : MG_OK;
}

/* Each image once, however many ensemble members it has. */
static mg_status encode_images(struct mg_run *run, struct mg_err *err) {
    const struct mg_image *image = &run->params->image;
    MG_TRY(mg_alloc_floats(&run->image_latents, image->n, run->image_latent_floats, "image latents", err));
    return mg_encode_images(run->image_latents, run->pipeline, image, &run->geometry, run->resample_input, err);
}

static mg_status run_entered(struct mg_result *out, struct mg_run *run, struct mg_err *err) {
    MG_TRY(start_run(run, err));
    MG_TRY(encode_images(run, err));
    if (mg_run_refines(run))
        MG_TRY(mg_refine_encode(run, err));
    MG_TRY(mg_run_denoise(run, err));
    MG_TRY(mg_run_predict(out, run, err));
    if (run->params->output_latent) {
        out->latent = run->latents;
        run->latents = NULL;
        memcpy(out->latent_shape,
               (int64_t[4]){run->samples, run->pipeline->unet.out_channels, run->geometry.latent_h,
                            run->geometry.latent_w},
               sizeof out->latent_shape);
    }
    return MG_OK;
}

/* What the caller gave is this run's until it ends. */
static mg_status enter_handles(const struct mg_run_params *p, const struct mg_run *run, struct mg_err *err) {
    for (int i = 0; i < p->num_generators; i++)
        MG_TRY(mg_generator_enter(p->generators[i], run, err));
    return p->scheduler ? mg_scheduler_enter(p->scheduler, run, err) : MG_OK;
}

static void leave_handles(const struct mg_run_params *p, const struct mg_run *run) {
    for (int i = 0; i < p->num_generators; i++)
        mg_generator_leave(p->generators[i], run);
    if (p->scheduler)
        mg_scheduler_leave(p->scheduler, run);
}

mg_status mg_pipeline_run(struct mg_result *out, mg_pipeline *pipeline, const struct mg_run_params *params,
                          struct mg_err *err) {
    struct mg_run run = {.pipeline = pipeline, .params = params};
    *out = (struct mg_result){0};
    MG_TRY(mg_pipeline_enter(pipeline, err));
    mg_status status = enter_handles(params, &run, err);
    if (status == MG_OK)
        status = run_entered(out, &run, err);
    leave_handles(params, &run);
    mg_free(run.image_latents);
    mg_free(run.coarse_latents);
    mg_free(run.latents);
    if (status != MG_OK)
        mg_result_free(out);
    mg_pipeline_leave(pipeline);
    return status;
}

const char *mg_version(void) { return "0.1.0"; }
