/* denoise.c: the latents a run starts from, and the denoising loop over them, in batches of samples.
 */
#include <string.h>
#include <sys/random.h>

#include "run.h"

/* What the loop works with, beside the run. */
struct loop {
    mg_generator *const *generators;
    int num_generators;
    int64_t batch;
    /* (batch, T*C, h, w): what the network gives; and of a scheduler that adds noise, or goes by its last estimate, these */
    float *output, *noise, *estimate;
    float *image_latents, *coarse_latents; /* (batch, C, h, w); the second of a refinement only */
    struct mg_refine_buffers tile;         /* the same */
    const struct mg_run_params *params;
    int done, total; /* steps, or tiles of them, for the progress callback */
};

/* ---- the latents to start from ---- */
static mg_status random_generator(mg_generator **out, struct mg_err *err) {
    uint64_t seed = 0;
    if (getentropy(&seed, sizeof seed))
        return mg_fail(err, MG_ERR_DEVICE, "the operating system gave no random seed");
    return mg_generator_create(out, seed, err);
}

/* Whether the sample begins as noise of this run. */
static bool draws_noise(const struct mg_run *run) {
    const struct mg_family *family = run->pipeline->family;
    return !run->params->latents && !family->starts_from_zeros && mg_family_takes_sample(family);
}

/* One generator draws these samples at once, a list of them one sample each. */
static void draw(const struct mg_run *run, const struct loop *loop, float *out, int64_t first, int64_t samples) {
    if (loop->num_generators == 1) {
        mg_rng_randn(loop->generators[0], out, (size_t)samples * run->latent_floats);
        return;
    }
    for (int64_t i = 0; i < samples; i++)
        mg_rng_randn(loop->generators[first + i], out + (size_t)i * run->latent_floats, run->latent_floats);
}

/* ---- one step of one batch ----
 * As in diffusers' Marigold pipelines, the noise to begin with and what the network sees have unit deviation with every
 * scheduler: neither init_noise_sigma nor input_factor, which only Euler's steps have, is used. */
static void tell(void *user) {
    struct loop *loop = user;
    if (loop->params->progress)
        loop->params->progress(loop->params->progress_user, ++loop->done, loop->total);
}

static mg_status run_unet(struct mg_run *run, struct loop *loop, float *sample, int64_t count, int step,
                          struct mg_err *err) {
    const struct mg_stage_key key = mg_denoise_key(run, count);
    float timestep = (float)run->timesteps[step];
    struct mg_plan *plan;
    if (mg_run_refines(run)) {
        const struct mg_refine_inputs whole = {loop->image_latents, loop->coarse_latents, sample, timestep};
        return mg_refine_pass(loop->output, run, &loop->tile, &whole, count, tell, loop, err);
    }
    MG_TRY(mg_stage_plan(&plan, run->pipeline, &key, err));
    const struct mg_binding inputs[] = {
        {"timestep", &timestep}, {"image_latent", loop->image_latents}, {"sample", sample}};
    const int count_inputs = mg_family_takes_sample(run->pipeline->family) ? 3 : 2;
    return mg_plan_run(plan, inputs, count_inputs, &(struct mg_binding){"output", loop->output}, 1, err);
}

static mg_status step_coefficients(struct mg_step_coefficients *out, const struct mg_run *run, int step,
                                   struct mg_err *err) {
    const struct mg_step_options options = {.has_last_estimate = step > 0};
    const float factor = run->pipeline->family->output_factor;
    if (factor == 0.0f)
        return mg_schedule_coefficients(out, run->scheduler, step, &options, err);
    *out = (struct mg_step_coefficients){.model_factor = factor};
    return MG_OK;
}

static mg_status denoise_step(struct mg_run *run, struct loop *loop, int64_t first, int64_t count, int step,
                              struct mg_err *err) {
    const size_t floats = (size_t)count * run->latent_floats;
    float *sample = run->latents + (size_t)first * run->latent_floats;
    struct mg_step_coefficients k;
    MG_TRY(step_coefficients(&k, run, step, err));
    if (k.noise_factor != 0.0f)
        draw(run, loop, loop->noise, first, count);
    MG_TRY(run_unet(run, loop, sample, count, step, err));
    mg_scheduler_step(sample, loop->estimate, loop->output, loop->noise, floats, &k);
    if (!mg_run_refines(run))
        tell(loop);
    return MG_OK;
}

/* The latents of the images that these samples are of. */
static void take_latents(float *out, const float *latents, const struct mg_run *run, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        memcpy(out + (size_t)i * run->image_latent_floats,
               latents + (size_t)((first + i) / run->params->ensemble_size) * run->image_latent_floats,
               run->image_latent_floats * sizeof(float));
}

static mg_status denoise_batch(struct mg_run *run, struct loop *loop, int64_t first, int64_t count,
                               struct mg_err *err) {
    /* The paper's code draws the noise of each batch when its turn comes, diffusers draws all of it at first. */
    if (run->geometry.preset == MG_PRESET_PAPER && draws_noise(run))
        draw(run, loop, run->latents + (size_t)first * run->latent_floats, first, count);
    take_latents(loop->image_latents, run->image_latents, run, first, count);
    if (mg_run_refines(run))
        take_latents(loop->coarse_latents, run->coarse_latents, run, first, count);
    for (int step = 0; step < run->num_timesteps; step++)
        MG_TRY(denoise_step(run, loop, first, count, step, err));
    return MG_OK;
}

static mg_status denoise_all(struct mg_run *run, struct loop *loop, struct mg_err *err) {
    mg_status status;
    MG_TRY_GOTO(mg_alloc_floats(&run->latents, run->samples, run->latent_floats, "latents", err));
    MG_TRY_GOTO(mg_alloc_floats(&loop->output, loop->batch, run->latent_floats, "a batch", err));
    MG_TRY_GOTO(mg_alloc_floats(&loop->noise, loop->batch, run->latent_floats, "noise", err));
    if (mg_scheduler_uses_last_estimate(run->scheduler))
        MG_TRY_GOTO(mg_alloc_floats(&loop->estimate, loop->batch, run->latent_floats, "an estimate", err));
    MG_TRY_GOTO(mg_alloc_floats(&loop->image_latents, loop->batch, run->image_latent_floats, "image latents", err));
    if (mg_run_refines(run)) {
        MG_TRY_GOTO(
            mg_alloc_floats(&loop->coarse_latents, loop->batch, run->image_latent_floats, "coarse latents", err));
        MG_TRY_GOTO(mg_refine_alloc(&loop->tile, run, loop->batch, err));
    }
    if (run->params->latents)
        memcpy(run->latents, run->params->latents, (size_t)run->samples * run->latent_floats * sizeof(float));
    else if (!draws_noise(run))
        memset(run->latents, 0, (size_t)run->samples * run->latent_floats * sizeof(float));
    else if (run->geometry.preset == MG_PRESET_DIFFUSERS)
        draw(run, loop, run->latents, 0, run->samples);
    for (int64_t first = 0; first < run->samples; first += loop->batch) {
        int64_t left = run->samples - first;
        MG_TRY_GOTO(denoise_batch(run, loop, first, left < loop->batch ? left : loop->batch, err));
    }
done:
    mg_free(loop->output);
    mg_free(loop->noise);
    mg_free(loop->estimate);
    mg_free(loop->image_latents);
    mg_free(loop->coarse_latents);
    mg_refine_free(&loop->tile);
    return status;
}

mg_status mg_run_denoise(struct mg_run *run, struct mg_err *err) {
    const struct mg_run_params *p = run->params;
    struct loop loop = {.generators = p->generators, .num_generators = p->num_generators, .params = p};
    mg_generator *own = NULL;
    MG_TRY(mg_run_choose_batch(&loop.batch, run, err));
    if (!p->num_generators) {
        MG_TRY(random_generator(&own, err));
        loop.generators = &own;
        loop.num_generators = 1;
    }
    loop.total = (int)((run->samples + loop.batch - 1) / loop.batch) * run->num_timesteps;
    if (mg_run_refines(run))
        loop.total *= (int)mg_tiles_count(&run->tiles);
    mg_status status = denoise_all(run, &loop, err);
    mg_generator_destroy(own);
    return status;
}
