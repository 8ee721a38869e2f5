/* ddim.c: DDIM (Song et al., arXiv 2010.02502). */
#include <math.h>

#include "scheduler.h"

static mg_status set_timesteps(struct mg_timesteps *out, const struct mg_scheduler *s, int count, struct mg_err *err) {
    MG_TRY(mg_timesteps_alloc(out, count, 0, err));
    mg_timesteps_by_spacing(out, s, count);
    for (int i = 0; i < out->count; i++)
        out->list[i] = rint(out->list[i]);
    return MG_OK;
}

/* Equation 12: x_{t-1} = sqrt(a') x0 + sqrt(1 - a' - sigma^2) noise + sigma z. */
static mg_status coefficients(struct mg_step_coefficients *out, const struct mg_scheduler *s, int step,
                              const struct mg_step_options *options, struct mg_err *err) {
    const int64_t timestep = (int64_t)s->timesteps.list[step];
    const int64_t previous = timestep - s->train_timesteps / s->timesteps.asked;
    const double eta = options->eta;
    struct mg_clean_estimate e;
    if (!(eta >= 0.0 && eta <= 1e6))
        return mg_fail(err, MG_ERR_ARGUMENT, "eta is %g; it must be 0 (deterministic) or positive", eta);
    MG_TRY(mg_scheduler_clean_estimate(&e, s->prediction, s->alphas_cumprod[timestep], timestep, err));
    const float alpha = s->alphas_cumprod[timestep];
    const float alpha_previous = previous >= 0 ? s->alphas_cumprod[previous] : s->final_alpha_cumprod;
    const float variance = (1.0f - alpha_previous) / (1.0f - alpha) * (1.0f - alpha / alpha_previous);
    const float sigma = (float)eta * sqrtf(variance > 0.0f ? variance : 0.0f);
    const float signal = sqrtf(alpha_previous), rest = 1.0f - alpha_previous - sigma * sigma;
    const float direction = sqrtf(rest > 0.0f ? rest : 0.0f);
    *out = (struct mg_step_coefficients){
        .input_factor = 1.0f,
        .sample_factor = signal * e.origin_sample + direction * e.noise_sample,
        .model_factor = signal * e.origin_model + direction * e.noise_model,
        .noise_factor = sigma,
        .origin_sample_factor = e.origin_sample,
        .origin_model_factor = e.origin_model,
    };
    return MG_OK;
}

const struct mg_scheduler_class mg_scheduler_ddim = {.name = "DDIMScheduler",
                                                     .beta_start = 0.0001,
                                                     .beta_end = 0.02,
                                                     .beta_schedule = "linear",
                                                     .spacing = MG_SPACING_LEADING,
                                                     .clip_sample = true,
                                                     .has_clipping = true,
                                                     .whole_timesteps = true,
                                                     .set_timesteps = set_timesteps,
                                                     .coefficients = coefficients};
