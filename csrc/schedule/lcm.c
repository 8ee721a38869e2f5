/* lcm.c: multistep consistency sampling of latent consistency models (arXiv 2310.04378). */
#include <math.h>

#include "scheduler.h"

struct mg_boundary mg_lcm_boundary(double timestep, double timestep_scaling) {
    const double sigma_data = 0.5, scaled = timestep * timestep_scaling, variance = sigma_data * sigma_data;
    return (struct mg_boundary){.skip = variance / (scaled * scaled + variance),
                                .out = scaled / sqrt(scaled * scaled + variance)};
}

static mg_status read_options(struct mg_scheduler *s, const struct mg_json *config, struct mg_err *err) {
    int64_t number;
    MG_TRY(mg_json_get_int(&number, config, "original_inference_steps", 50, 1, 1 << 20, MG_SCHEDULER_FILE, err));
    s->original_inference_steps = (int)number;
    return MG_OK;
}

/* The steps of the distillation, from the last on, of which `count` are used, evenly spaced. */
static mg_status set_timesteps(struct mg_timesteps *out, const struct mg_scheduler *s, int count, struct mg_err *err) {
    const int original = s->original_inference_steps, ratio = s->train_timesteps / original;
    if (original > s->train_timesteps)
        return mg_fail(err, MG_ERR_ARGUMENT, "original_inference_steps is %d; the model was trained with %d time steps",
                       original, s->train_timesteps);
    if (count > original)
        return mg_fail(err, MG_ERR_ARGUMENT, "num_inference_steps is %d; the LCM was distilled with %d steps", count,
                       original);
    MG_TRY(mg_timesteps_alloc(out, count, 0, err));
    const double step = (double)original / count;
    for (int i = 0; i < count; i++)
        out->list[i] = (double)(((int64_t)original - (int64_t)floor(i * step)) * ratio - 1);
    return MG_OK;
}

/* denoised = c_skip(t) sample + c_out(t) x0; the next sample is denoised, noised again but after the last step. */
static mg_status coefficients(struct mg_step_coefficients *out, const struct mg_scheduler *s, int step,
                              const struct mg_step_options *options, struct mg_err *err) {
    (void)options;
    const int64_t timestep = (int64_t)s->timesteps.list[step];
    const struct mg_boundary boundary = mg_lcm_boundary((double)timestep, s->timestep_scaling);
    struct mg_clean_estimate e;
    MG_TRY(mg_scheduler_clean_estimate(&e, s->prediction, s->alphas_cumprod[timestep], timestep, err));
    const bool last = step + 1 == s->timesteps.count;
    const float alpha = last ? 1.0f : s->alphas_cumprod[(int64_t)s->timesteps.list[step + 1]];
    const float signal = last ? 1.0f : sqrtf(alpha);
    const float sample = (float)(boundary.out * (double)e.origin_sample + boundary.skip),
                model = (float)(boundary.out * (double)e.origin_model);
    *out = (struct mg_step_coefficients){.input_factor = 1.0f,
                                         .sample_factor = signal * sample,
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
                                                    .spacing = MG_SPACING_LEADING,
                                                    .has_clipping = true,
                                                    .whole_timesteps = true,
                                                    .read_options = read_options,
                                                    .set_timesteps = set_timesteps,
                                                    .coefficients = coefficients};
