/* ddim.c: DDIM (Song et al., arXiv 2010.02502). Reached through scheduler.c. */
#include <math.h>

#include "scheduler.h"

static mg_status leading(struct mg_scheduler *s, int count) {
    const int64_t ratio = s->train_timesteps / count;
    for (int i = 0; i < count; i++)
        s->timesteps[i] = (count - 1 - i) * ratio + s->steps_offset;
    return MG_OK;
}

/* NumPy's linspace and arange, rounded half to even. */
static mg_status linspace(struct mg_scheduler *s, int count) {
    const double step = count > 1 ? (double)(s->train_timesteps - 1) / (count - 1) : 0.0;
    for (int i = 0; i < count; i++) {
        int at = count - 1 - i;
        s->timesteps[i] = at && at == count - 1 ? s->train_timesteps - 1 : (int64_t)rint(at * step);
    }
    return MG_OK;
}

/* Where total/count is rounded down, arange gives one step more, -1, for which there is no noise level: left out. */
static mg_status trailing(struct mg_scheduler *s, int count) {
    const double total = s->train_timesteps, ratio = total / count, delta = (total - ratio) - total;
    for (int i = 0; i < count; i++)
        s->timesteps[i] = (int64_t)rint(total + i * delta) - 1;
    return MG_OK;
}

static mg_status set_timesteps(struct mg_scheduler *s, int count, struct mg_err *err) {
    static mg_status (*const spacings[])(struct mg_scheduler *, int) = {
        [MG_SPACING_LEADING] = leading, [MG_SPACING_TRAILING] = trailing, [MG_SPACING_LINSPACE] = linspace};
    MG_TRY(mg_scheduler_reserve(s, count, err));
    s->num_timesteps = count;
    return spacings[s->spacing](s, count);
}

/* Equation 12: x_{t-1} = sqrt(a') x0 + sqrt(1 - a' - sigma^2) noise + sigma z. */
static mg_status coefficients(struct mg_step_coefficients *out, const struct mg_scheduler *s, int64_t timestep,
                              double eta, struct mg_err *err) {
    struct mg_clean_estimate e;
    int index;
    if (!(eta >= 0.0 && eta <= 1e6))
        return mg_fail(err, MG_ERR_ARGUMENT, "eta is %g; it must be 0 (deterministic) or positive", eta);
    MG_TRY(mg_scheduler_check_timestep(s, timestep, &index, err));
    MG_TRY(mg_scheduler_clean_estimate(&e, s->prediction, s->alphas_cumprod[timestep], timestep, err));
    const int64_t previous = timestep - s->train_timesteps / s->inference_steps;
    const float alpha = s->alphas_cumprod[timestep];
    const float alpha_previous = previous >= 0 ? s->alphas_cumprod[previous] : s->final_alpha_cumprod;
    const float variance = (1.0f - alpha_previous) / (1.0f - alpha) * (1.0f - alpha / alpha_previous);
    const float sigma = (float)eta * sqrtf(variance > 0.0f ? variance : 0.0f);
    const float signal = sqrtf(alpha_previous), rest = 1.0f - alpha_previous - sigma * sigma;
    const float direction = sqrtf(rest > 0.0f ? rest : 0.0f);
    *out = (struct mg_step_coefficients){
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
                                                     .clip_sample = true,
                                                     .set_timesteps = set_timesteps,
                                                     .coefficients = coefficients};
