/* pipeline.c: one run: image -> image latents -> denoising loop -> decoded maps at the image's size; and the pieces.
 * Called through marigold.h; calls stages.c, the image functions, the scheduler and the generator. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "pipeline.h"

void mg_run_params_init(struct mg_run_params *params) {
    *params = (struct mg_run_params){.ensemble_size = 1,
                                     .processing_resolution = -1,
                                     .match_input_resolution = true,
                                     .resample_input = MG_RESAMPLE_BILINEAR,
                                     .resample_output = MG_RESAMPLE_BILINEAR,
                                     .batch_size = 1};
}

void mg_result_free(struct mg_result *result) {
    mg_free(result->prediction);
    mg_free(result->uncertainty);
    mg_free(result->latent);
    *result = (struct mg_result){0};
}

/* Everything one run holds; sizes in elements of one sample. */
struct run {
    mg_pipeline *pipeline;
    const struct mg_run_params *params;
    struct mg_geometry geometry;
    mg_scheduler *scheduler;
    const int64_t *timesteps;
    int num_timesteps;
    int64_t samples, latent_h, latent_w;
    size_t image_floats, image_latent_floats, latent_floats, prediction_floats;
    float *image_latents; /* (N, C, h, w) */
    float *latents;       /* (N*E, T*C, h, w) */
    float *predictions;   /* (N, channels, padded_h, padded_w) */
};

static mg_status check_counts(const struct mg_run_params *p, int steps, struct mg_err *err) {
    if (steps < 1)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "num_inference_steps is not given and the checkpoint names no default_denoising_steps");
    if (p->ensemble_size < 1)
        return mg_fail(err, MG_ERR_ARGUMENT, "ensemble_size is %d; it must be positive", p->ensemble_size);
    if (p->ensemble_size > 1)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "ensemble_size is %d; ensembling is not supported yet",
                       p->ensemble_size);
    if (p->batch_size < 1)
        return mg_fail(err, MG_ERR_ARGUMENT, "batch_size is %d; it must be positive", p->batch_size);
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

static mg_status start_run(struct run *run, struct mg_err *err) {
    mg_pipeline *pipe = run->pipeline;
    const struct mg_run_params *p = run->params;
    int steps = p->num_inference_steps ? p->num_inference_steps : pipe->default_steps;
    int64_t resolution = p->processing_resolution >= 0 ? p->processing_resolution : pipe->default_resolution;
    MG_TRY(check_counts(p, steps, err));
    if (resolution < 0)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "processing_resolution is not given and the checkpoint names no default_processing_resolution");
    MG_TRY(mg_geometry_of(&run->geometry, p->image.h, p->image.w, resolution, pipe->vae_scale, err));
    run->scheduler = p->scheduler ? p->scheduler : pipe->scheduler;
    MG_TRY(mg_scheduler_set_timesteps(run->scheduler, steps, err));
    run->timesteps = mg_scheduler_timesteps(run->scheduler, &run->num_timesteps);
    run->samples = p->image.n * p->ensemble_size;
    run->latent_h = run->geometry.padded_h / pipe->vae_scale;
    run->latent_w = run->geometry.padded_w / pipe->vae_scale;
    size_t pixels, cells = (size_t)(run->latent_h * run->latent_w);
    if (!mg_size_mul(&pixels, (size_t)run->geometry.padded_h, (size_t)run->geometry.padded_w) ||
        pixels > SIZE_MAX >> 16)
        return mg_fail(err, MG_ERR_MEMORY, "an image of %lld x %lld cannot be addressed",
                       (long long)run->geometry.padded_h, (long long)run->geometry.padded_w);
    run->image_floats = pixels * (size_t)pipe->vae.in_channels;
    run->image_latent_floats = cells * (size_t)pipe->vae.latent_channels;
    run->latent_floats = cells * (size_t)pipe->unet.out_channels;
    run->prediction_floats = pixels * (size_t)(pipe->task->prediction_channels * pipe->num_targets);
    return MG_OK;
}

static mg_status alloc_floats(float **out, int64_t count, size_t floats, const char *what, struct mg_err *err) {
    size_t bytes;
    if (!mg_size_mul(&bytes, (size_t)count, floats) || !mg_size_mul(&bytes, bytes, sizeof(float)))
        return mg_fail(err, MG_ERR_MEMORY, "%s cannot be addressed", what);
    return mg_alloc((void **)out, bytes, what, err);
}

/* ---- encode ---- */
static mg_status encode_images(struct run *run, struct mg_err *err) {
    const struct mg_run_params *p = run->params;
    const size_t pixel_bytes[] = {[MG_PIXEL_U8] = 1, [MG_PIXEL_U16] = 2, [MG_PIXEL_F32] = 4};
    const size_t bytes = (size_t)(p->image.h * p->image.w * p->image.c) * pixel_bytes[p->image.type];
    float *x = NULL;
    mg_status status;
    MG_TRY_GOTO(alloc_floats(&run->image_latents, p->image.n, run->image_latent_floats, "image latents", err));
    MG_TRY_GOTO(alloc_floats(&x, 1, run->image_floats, "the resized image", err));
    for (int64_t n = 0; n < p->image.n; n++) {
        struct mg_image one = p->image;
        one.n = 1;
        one.data = (const char *)p->image.data + (size_t)n * bytes;
        MG_TRY_GOTO(mg_preprocess(x, &one, &run->geometry, p->resample_input, err));
        struct mg_stage_key key = {.stage = MG_STAGE_ENCODE,
                                   .n = 1,
                                   .h = run->latent_h,
                                   .w = run->latent_w,
                                   .factor = (float)run->pipeline->vae.scaling_factor};
        struct mg_plan *plan;
        MG_TRY_GOTO(mg_stage_plan(&plan, run->pipeline, &key, err));
        MG_TRY_GOTO(mg_plan_run(
            plan, &(struct mg_binding){"x", x}, 1,
            &(struct mg_binding){"latent", run->image_latents + (size_t)n * run->image_latent_floats}, 1, err));
    }
done:
    mg_free(x);
    return status;
}

/* ---- the latents to start from ---- */
static mg_status random_generator(mg_generator **out, struct mg_err *err) {
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return mg_fail(err, MG_ERR_DEVICE, "the operating system gave no random seed");
    return mg_generator_create(out, seed, err);
}

/* As diffusers: one generator draws all samples at once, a list of them one sample each. */
static void draw(const struct run *run, mg_generator *const *generators, int count, float *out, int64_t first,
                 int64_t samples) {
    if (count == 1) {
        mg_generator_randn(generators[0], out, (size_t)samples * run->latent_floats);
        return;
    }
    for (int64_t i = 0; i < samples; i++)
        mg_generator_randn(generators[first + i], out + (size_t)i * run->latent_floats, run->latent_floats);
}

/* ---- denoise ---- */
static mg_status denoise_step(struct run *run, int64_t first, int64_t count, int step, const float *image_latents,
                              const float *noise, struct mg_err *err) {
    struct mg_step_coefficients k;
    MG_TRY(mg_scheduler_step_coefficients(&k, run->scheduler, run->timesteps[step], 0.0, err));
    struct mg_stage_key key = {
        .stage = MG_STAGE_DENOISE, .n = count, .h = run->latent_h, .w = run->latent_w, .noise = noise != NULL};
    struct mg_plan *plan;
    MG_TRY(mg_stage_plan(&plan, run->pipeline, &key, err));
    float timestep = (float)run->timesteps[step], factors[3] = {k.sample_factor, k.model_factor, k.noise_factor};
    float *sample = run->latents + (size_t)first * run->latent_floats;
    const struct mg_binding inputs[] = {{"image_latent", (void *)image_latents},
                                        {"sample", sample},
                                        {"timestep", &timestep},
                                        {"factors", factors},
                                        {"noise", (void *)noise}};
    return mg_plan_run(plan, inputs, noise ? 5 : 4, &(struct mg_binding){"sample", sample}, 1, err);
}

/* Whether a step at this time adds noise (LCM, all but the last step). */
static mg_status adds_noise(bool *out, const struct run *run, int step, struct mg_err *err) {
    struct mg_step_coefficients k;
    MG_TRY(mg_scheduler_step_coefficients(&k, run->scheduler, run->timesteps[step], 0.0, err));
    *out = k.noise_factor != 0.0f;
    return MG_OK;
}

static mg_status denoise(struct run *run, mg_generator *const *generators, int num_generators, struct mg_err *err) {
    const int64_t batch = run->params->batch_size < run->samples ? run->params->batch_size : run->samples;
    float *noise = NULL, *images = NULL;
    int done_steps = 0;
    const int total = (int)((run->samples + batch - 1) / batch) * run->num_timesteps;
    mg_status status;
    MG_TRY_GOTO(alloc_floats(&noise, batch, run->latent_floats, "noise", err));
    MG_TRY_GOTO(alloc_floats(&images, batch, run->image_latent_floats, "image latents", err));
    for (int64_t first = 0; first < run->samples; first += batch) {
        int64_t count = run->samples - first < batch ? run->samples - first : batch;
        for (int64_t i = 0; i < count; i++)
            memcpy(images + (size_t)i * run->image_latent_floats,
                   run->image_latents + (size_t)((first + i) / run->params->ensemble_size) * run->image_latent_floats,
                   run->image_latent_floats * sizeof(float));
        for (int step = 0; step < run->num_timesteps; step++) {
            bool noisy;
            MG_TRY_GOTO(adds_noise(&noisy, run, step, err));
            if (noisy)
                draw(run, generators, num_generators, noise, first, count);
            MG_TRY_GOTO(denoise_step(run, first, count, step, images, noisy ? noise : NULL, err));
            if (run->params->progress)
                run->params->progress(run->params->progress_user, ++done_steps, total);
        }
    }
done:
    mg_free(noise);
    mg_free(images);
    return status;
}

static mg_status make_latents(struct run *run, struct mg_err *err) {
    const struct mg_run_params *p = run->params;
    mg_generator *own = NULL;
    mg_generator *const *generators = p->generators;
    int count = p->num_generators;
    mg_status status;
    MG_TRY_GOTO(alloc_floats(&run->latents, run->samples, run->latent_floats, "latents", err));
    if (!count) {
        MG_TRY_GOTO(random_generator(&own, err));
        generators = &own;
        count = 1;
    }
    if (p->latents)
        memcpy(run->latents, p->latents, (size_t)run->samples * run->latent_floats * sizeof(float));
    else
        draw(run, generators, count, run->latents, 0, run->samples);
    MG_TRY_GOTO(denoise(run, generators, count, err));
done:
    mg_generator_destroy(own);
    return status;
}

/* ---- predict ---- */
static mg_status predict(struct run *run, struct mg_err *err) {
    MG_TRY(alloc_floats(&run->predictions, run->samples, run->prediction_floats, "predictions", err));
    const int targets = run->pipeline->num_targets;
    const size_t target_latent = run->latent_floats / (size_t)targets;
    const size_t target_prediction = run->prediction_floats / (size_t)targets;
    struct mg_stage_key key = {.stage = MG_STAGE_PREDICT, .n = 1, .h = run->latent_h, .w = run->latent_w};
    struct mg_plan *plan;
    MG_TRY(mg_stage_plan(&plan, run->pipeline, &key, err));
    for (int64_t i = 0; i < run->samples * targets; i++)
        MG_TRY(mg_plan_run(plan, &(struct mg_binding){"latent", run->latents + (size_t)i * target_latent}, 1,
                           &(struct mg_binding){"prediction", run->predictions + (size_t)i * target_prediction}, 1,
                           err));
    return MG_OK;
}

/* Cuts the padding off a plane of the network's size. */
static void unpad(float *out, const float *in, const struct mg_geometry *g, int64_t planes) {
    for (int64_t c = 0; c < planes; c++)
        for (int64_t y = 0; y < g->resized_h; y++)
            memcpy(out + (c * g->resized_h + y) * g->resized_w, in + (c * g->padded_h + y) * g->padded_w,
                   (size_t)g->resized_w * sizeof(float));
}

static void interleave(float *out, const float *planes, int64_t channels, int64_t pixels) {
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < pixels; i++)
            out[i * channels + c] = planes[c * pixels + i];
}

/* Unpadded, resized to the input if asked, channels last. */
static mg_status finish_predictions(struct mg_result *out, const struct run *run, struct mg_err *err) {
    const struct mg_geometry *g = &run->geometry;
    const bool match = run->params->match_input_resolution;
    const int64_t h = match ? g->h : g->resized_h, w = match ? g->w : g->resized_w;
    const int64_t channels = run->pipeline->task->prediction_channels;
    const int64_t maps = run->samples * run->pipeline->num_targets;
    float *small = NULL, *full = NULL;
    mg_status status;
    MG_TRY_GOTO(alloc_floats(&small, channels, (size_t)(g->resized_h * g->resized_w), "predictions", err));
    MG_TRY_GOTO(alloc_floats(&full, channels, (size_t)h * (size_t)w, "predictions", err));
    MG_TRY_GOTO(alloc_floats(&out->prediction, maps * channels, (size_t)h * (size_t)w, "predictions", err));
    for (int64_t i = 0; i < maps; i++) {
        unpad(small, run->predictions + i * channels * g->padded_h * g->padded_w, g, channels);
        if (match)
            MG_TRY_GOTO(mg_resize(full, small, 1, channels, g->resized_h, g->resized_w, h, w,
                                  run->params->resample_output, false, err));
        interleave(out->prediction + i * h * w * channels, match ? full : small, channels, h * w);
    }
    memcpy(out->prediction_shape, (int64_t[4]){maps, h, w, channels}, sizeof out->prediction_shape);
done:
    mg_free(small);
    mg_free(full);
    return status;
}

static mg_status run_entered(struct mg_result *out, struct run *run, struct mg_err *err) {
    MG_TRY(start_run(run, err));
    MG_TRY(encode_images(run, err));
    MG_TRY(make_latents(run, err));
    MG_TRY(predict(run, err));
    MG_TRY(finish_predictions(out, run, err));
    if (run->params->output_latent) {
        out->latent = run->latents;
        run->latents = NULL;
        memcpy(out->latent_shape,
               (int64_t[4]){run->samples, run->pipeline->unet.out_channels, run->latent_h, run->latent_w},
               sizeof out->latent_shape);
    }
    return MG_OK;
}

mg_status mg_pipeline_run(struct mg_result *out, mg_pipeline *pipeline, const struct mg_run_params *params,
                          struct mg_err *err) {
    struct run run = {.pipeline = pipeline, .params = params};
    *out = (struct mg_result){0};
    MG_TRY(mg_pipeline_enter(pipeline, err));
    mg_status status = run_entered(out, &run, err);
    mg_free(run.image_latents);
    mg_free(run.latents);
    mg_free(run.predictions);
    if (status != MG_OK)
        mg_result_free(out);
    mg_pipeline_leave(pipeline);
    return status;
}

/* ---- the pieces ---- */
static mg_status run_piece(mg_pipeline *pipeline, const struct mg_stage_key *key, const struct mg_binding *inputs,
                           int num_inputs, const struct mg_binding *output, struct mg_err *err) {
    struct mg_plan *plan;
    MG_TRY(mg_pipeline_enter(pipeline, err));
    mg_status status = mg_stage_plan(&plan, pipeline, key, err);
    if (status == MG_OK)
        status = mg_plan_run(plan, inputs, num_inputs, output, 1, err);
    mg_pipeline_leave(pipeline);
    return status;
}

mg_status mg_pipeline_vae_encode(float *out, mg_pipeline *pipeline, const float *x, int64_t n, int64_t h, int64_t w,
                                 struct mg_err *err) {
    if (h < 1 || w < 1 || h % pipeline->vae_scale || w % pipeline->vae_scale)
        return mg_fail(err, MG_ERR_ARGUMENT, "an image of %lld x %lld; the VAE needs multiples of %d", (long long)h,
                       (long long)w, pipeline->vae_scale);
    struct mg_stage_key key = {
        .stage = MG_STAGE_ENCODE, .n = n, .h = h / pipeline->vae_scale, .w = w / pipeline->vae_scale, .factor = 1.0f};
    return run_piece(pipeline, &key, &(struct mg_binding){"x", (void *)x}, 1, &(struct mg_binding){"latent", out}, err);
}

mg_status mg_pipeline_vae_decode(float *out, mg_pipeline *pipeline, const float *z, int64_t n, int64_t h, int64_t w,
                                 struct mg_err *err) {
    struct mg_stage_key key = {.stage = MG_STAGE_DECODE, .n = n, .h = h, .w = w};
    return run_piece(pipeline, &key, &(struct mg_binding){"latent", (void *)z}, 1, &(struct mg_binding){"image", out},
                     err);
}

mg_status mg_pipeline_unet(float *out, mg_pipeline *pipeline, const float *sample, int64_t n, int64_t h, int64_t w,
                           const float *timesteps, const float *embedding, int64_t embedding_n, int64_t tokens,
                           struct mg_err *err) {
    struct mg_stage_key key = {
        .stage = MG_STAGE_UNET, .n = n, .h = h, .w = w, .text_n = embedding_n, .text_tokens = tokens};
    const struct mg_binding inputs[] = {
        {"sample", (void *)sample}, {"timesteps", (void *)timesteps}, {"text", (void *)embedding}};
    return run_piece(pipeline, &key, inputs, 3, &(struct mg_binding){"output", out}, err);
}

const char *mg_version(void) { return "0.1.0"; }
