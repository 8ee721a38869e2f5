/* lcm.c: multistep consistency sampling of latent consistency models (arXiv 2310.04378). Reached through
 * scheduler.c. */
#include <math.h>

#include "scheduler.h"

/* The steps of the distillation, from the last on, of which `count` are used, evenly spaced. */
static mg_status set_timesteps(struct mg_scheduler *s, int count, struct mg_err *err) {
    const int original = s->original_inference_steps, ratio = s->train_timesteps / original;
    if (original > s->train_timesteps)
        return mg_fail(err, MG_ERR_ARGUMENT, "original_inference_steps is %d; the model was trained with %d time steps",
                       original, s->train_timesteps);
    if (count > original)
        return mg_fail(err, MG_ERR_ARGUMENT, "num_inference_steps is %d; the LCM was distilled with %d steps", count,
                       original);
    MG_TRY(mg_scheduler_reserve(s, count, err));
    const double step = (double)original / count;
    for (int i = 0; i < count; i++)
        s->timesteps[i] = ((int64_t)original - (int64_t)floor(i * step)) * ratio - 1;
    s->num_timesteps = count;
    return MG_OK;
}

/* denoised = c_skip(t) sample + c_out(t) x0; the next sample is denoised, noised again but after the last step. */
static mg_status coefficients(struct mg_step_coefficients *out, const struct mg_scheduler *s, int64_t timestep,
                              double eta, struct mg_err *err) {
    const double sigma_data = 0.5, scaled = (double)timestep * s->timestep_scaling;
    const double skip = sigma_data * sigma_data / (scaled * scaled + sigma_data * sigma_data);
    const double weight = scaled / sqrt(scaled * scaled + sigma_data * sigma_data);
    struct mg_clean_estimate e;
    int index;
    (void)eta; /* a DDIM option */
    MG_TRY(mg_scheduler_check_timestep(s, timestep, &index, err));
    MG_TRY(mg_scheduler_clean_estimate(&e, s->prediction, s->alphas_cumprod[timestep], timestep, err));
    const bool last = index + 1 == s->num_timesteps;
    const float alpha = last ? 1.0f : s->alphas_cumprod[s->timesteps[index + 1]];
    const float signal = last ? 1.0f : sqrtf(alpha);
    const float sample = (float)(weight * (double)e.origin_sample + skip),
                model = (float)(weight * (double)e.origin_model);
    *out = (struct mg_step_coefficients){.sample_factor = signal * sample,
                                         .model_factor = signal * model,
                                         .noise_factor = last ? 0.0f : sqrtf(1.0f - alpha),
                                         .origin_sample_factor = sample,
                                         .origin_model_factor = model};
    return MG_OK;
}

const struct mg_scheduler_class mg_scheduler_lcm = {.name = "LCMScheduler",
                                                    .beta_start = 0.00085,
                                                    .beta_end = 0.012,
                                                    .beta_schedule = "scaled_linear",
                                                    .clip_sample = false,
                                                    .set_timesteps = set_timesteps,
                                                    .coefficients = coefficients};
