/* euler.c: Euler's method on the probability flow (algorithm 2 of arXiv 2206.00364 without its noise), as diffusers'
 * EulerDiscreteScheduler has it. The sample is the clean one plus sigma times noise; the network sees it divided by
 * sqrt(sigma^2 + 1). Time steps are real numbers. */
#include <math.h>

#include "scheduler.h"

static mg_status read_options(struct mg_scheduler *s, const struct mg_json *config, struct mg_err *err) {
    static const char *const interpolations[] = {"linear", "log_linear"}, *const types[] = {"discrete"};
    int choice;
    MG_TRY(mg_option_choice(&choice, config, "interpolation_type", interpolations, 2, 0, "linear, log_linear", err));
    s->sigmas_by_logarithm = choice == 1;
    MG_TRY(mg_option_choice(&choice, config, "timestep_type", types, 1, 0, "discrete", err));
    return mg_sigmas_read_options(s, config, err);
}

/* torch's linspace of float32 logarithms from the largest level to the smallest, count + 1 of them. */
static void space_by_logarithm(double *out, const struct mg_scheduler *s, int count) {
    const float first = logf(mg_sigma_of_training(s, s->train_timesteps - 1)), last = logf(mg_sigma_of_training(s, 0));
    const float step = (last - first) / (float)count;
    for (int i = 0; i <= count; i++)
        out[i] = expf(i < (count + 1) / 2 ? fmaf(step, (float)i, first) : fmaf(-step, (float)(count - i), last));
}

static mg_status set_timesteps(struct mg_timesteps *out, const struct mg_scheduler *s, int count, struct mg_err *err) {
    double *sigmas = NULL;
    int levels;
    mg_status status;
    MG_TRY_GOTO(mg_timesteps_alloc(out, count, count + 2, err));
    MG_TRY_GOTO(mg_alloc((void **)&sigmas, (size_t)(count + 1) * sizeof *sigmas, "noise levels", err));
    mg_timesteps_by_spacing(out, s, count);
    for (int i = 0; i < out->count; i++)
        out->list[i] = (float)out->list[i];
    levels = s->sigmas_by_logarithm ? count + 1 : out->count;
    if (s->sigmas_by_logarithm)
        space_by_logarithm(sigmas, s, count);
    for (int i = 0; !s->sigmas_by_logarithm && i < levels; i++)
        sigmas[i] = mg_sigma_at(s, out->list[i]);
    if (s->sigma_spacing != MG_SIGMAS_OF_TIMESTEPS) {
        mg_sigmas_by_spacing(sigmas, s, sigmas[0], sigmas[levels - 1], count);
        levels = out->count = count;
        for (int i = 0; i < count; i++)
            out->list[i] = (float)mg_timestep_of_sigma(s, sigmas[i]);
    }
    for (int i = 0; i < levels; i++)
        out->sigmas[i] = (float)sigmas[i];
    out->sigmas[levels] = s->ends_at_sigma_min ? mg_sigma_of_training(s, 0) : 0.0f;
done:
    mg_free(sigmas);
    return status;
}

/* x' = x + (x - x0) / sigma (sigma' - sigma), x0 being linear in x and the network's output. */
static mg_status coefficients(struct mg_step_coefficients *out, const struct mg_scheduler *s, int step,
                              const struct mg_step_options *options, struct mg_err *err) {
    (void)options;
    (void)err;
    const double sigma = s->timesteps.sigmas[step], change = s->timesteps.sigmas[step + 1] / sigma - 1.0;
    const double scale = sqrt(sigma * sigma + 1.0);
    double by_sample = 0.0, by_model = 1.0; /* x0 */
    if (s->prediction == MG_PREDICT_EPSILON) {
        by_sample = 1.0;
        by_model = -sigma;
    } else if (s->prediction == MG_PREDICT_V) {
        by_sample = 1.0 / (scale * scale);
        by_model = -sigma / scale;
    }
    *out = (struct mg_step_coefficients){.input_factor = (float)(1.0 / scale),
                                         .sample_factor = (float)(1.0 + (1.0 - by_sample) * change),
                                         .model_factor = (float)(-by_model * change),
                                         .origin_sample_factor = (float)by_sample,
                                         .origin_model_factor = (float)by_model};
    return MG_OK;
}

/* Of the levels that are set, or of training. */
static double init_noise_sigma(const struct mg_scheduler *s) {
    double largest = 0.0;
    for (int i = 0; i < s->timesteps.count; i++)
        largest = fmax(largest, s->timesteps.sigmas[i]);
    if (!s->timesteps.count)
        largest = mg_sigma_of_training(s, s->train_timesteps - 1);
    return s->spacing == MG_SPACING_LEADING ? sqrt(largest * largest + 1.0) : largest;
}

const struct mg_scheduler_class mg_scheduler_euler = {.name = "EulerDiscreteScheduler",
                                                      .beta_start = 0.0001,
                                                      .beta_end = 0.02,
                                                      .beta_schedule = "linear",
                                                      .spacing = MG_SPACING_LINSPACE,
                                                      .keeps_signal = true,
                                                      .read_options = read_options,
                                                      .set_timesteps = set_timesteps,
                                                      .coefficients = coefficients,
                                                      .init_noise_sigma = init_noise_sigma};
