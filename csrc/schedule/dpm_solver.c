/* dpm_solver.c: DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2), its first order and its stochastic form, as diffusers'
 * DPMSolverMultistepScheduler has them. A multistep method: a step of second order needs the estimate of the clean sample that the
 * step before gave. */
#include <math.h>
#include <string.h>

#include "scheduler.h"

static mg_status read_clipping(struct mg_scheduler *s, const struct mg_json *config, struct mg_err *err) {
    const struct mg_json *value = mg_json_get(config, "lambda_min_clipped");
    s->first_timestep = s->train_timesteps;
    if (!value || value->type == MG_JSON_NULL)
        return MG_OK;
    if (value->type != MG_JSON_NUMBER)
        return mg_option_unsupported(config, "lambda_min_clipped", "a number, -Infinity", err);
    while (s->first_timestep > 1) {
        const float alpha = s->alphas_cumprod[s->first_timestep - 1];
        if (logf(sqrtf(alpha)) - logf(sqrtf(1.0f - alpha)) >= (float)value->number)
            break;
        s->first_timestep--;
    }
    return MG_OK;
}

static mg_status read_options(struct mg_scheduler *s, const struct mg_json *config, struct mg_err *err) {
    static const char *const algorithms[] = {"dpmsolver++", "sde-dpmsolver++"}, *const solvers[] = {"midpoint", "heun"};
    static const char *const refused[] = {"variance_type", "use_flow_sigmas", "use_dynamic_shifting"};
    int choice;
    int64_t order;
    bool lu;
    const char *schedule;
    MG_TRY(mg_option_choice(&choice, config, "algorithm_type", algorithms, 2, 0, "dpmsolver++, sde-dpmsolver++", err));
    s->is_stochastic = choice == 1;
    MG_TRY(mg_option_choice(&choice, config, "solver_type", solvers, 2, 0, "midpoint, heun", err));
    s->uses_heun = choice == 1;
    MG_TRY(mg_json_get_int(&order, config, "solver_order", 2, 1, 3, MG_SCHEDULER_FILE, err));
    if (order == 3)
        return mg_option_unsupported(config, "solver_order", "1, 2", err);
    s->solver_order = (int)order;
    MG_TRY(mg_option_bool(&s->lower_order_final, config, "lower_order_final", true, err));
    MG_TRY(mg_option_bool(&s->euler_at_final, config, "euler_at_final", false, err));
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        MG_TRY(mg_option_refuse(config, refused[i], err));
    MG_TRY(mg_sigmas_read_options(s, config, err));
    s->sigma_min = s->sigma_max = 0.0; /* no options of this class */
    MG_TRY(mg_option_bool(&lu, config, "use_lu_lambdas", false, err));
    if (lu && s->sigma_spacing != MG_SIGMAS_KARRAS)
        s->sigma_spacing = MG_SIGMAS_LU;
    MG_TRY(mg_json_get_string(&schedule, config, "beta_schedule", "linear", MG_SCHEDULER_FILE, err));
    s->rounds_timesteps = s->sigma_spacing != MG_SIGMAS_EXPONENTIAL && strcmp(schedule, "squaredcos_cap_v2") != 0;
    return read_clipping(s, config, err);
}

static void space_timesteps(struct mg_timesteps *out, const struct mg_scheduler *s, int count) {
    switch (s->spacing) {
    case MG_SPACING_LEADING: /* of count + 1 steps all but the last, 0 */
        mg_timesteps_leading(out->list, s->first_timestep / (count + 1), s->steps_offset, count + 1);
        break;
    case MG_SPACING_TRAILING:
        out->count = mg_timesteps_trailing(out->list, s->first_timestep, s->train_timesteps, count);
        break;
    case MG_SPACING_LINSPACE:
        mg_timesteps_linspace(out->list, s->first_timestep - 1, count + 1);
        for (int i = 0; i < count; i++)
            out->list[i] = rint(out->list[i]);
    }
}

static mg_status set_timesteps(struct mg_timesteps *out, const struct mg_scheduler *s, int count, struct mg_err *err) {
    double *sigmas = NULL;
    mg_status status;
    MG_TRY_GOTO(mg_timesteps_alloc(out, count + 1, count + 1, err));
    out->count = count;
    MG_TRY_GOTO(mg_alloc((void **)&sigmas, (size_t)count * sizeof *sigmas, "noise levels", err));
    if (s->sigma_spacing == MG_SIGMAS_OF_TIMESTEPS) {
        space_timesteps(out, s, count);
        for (int i = 0; i < out->count; i++)
            sigmas[i] = mg_sigma_at(s, out->list[i]);
    } else {
        mg_sigmas_by_spacing(sigmas, s, mg_sigma_of_training(s, s->train_timesteps - 1), mg_sigma_of_training(s, 0),
                             count);
        for (int i = 0; i < count; i++) {
            const double timestep = mg_timestep_of_sigma(s, sigmas[i]);
            out->list[i] = s->rounds_timesteps ? rint(timestep) : trunc(timestep);
        }
    }
    for (int i = 0; i < out->count; i++)
        out->sigmas[i] = (float)sigmas[i];
    out->sigmas[out->count] = s->ends_at_sigma_min ? mg_sigma_of_training(s, 0) : 0.0f;
done:
    mg_free(sigmas);
    return status;
}

static bool is_first_order(const struct mg_scheduler *s, int step, bool has_last_estimate) {
    const bool is_short = s->lower_order_final && s->timesteps.count < 15;
    const bool is_last = step == s->timesteps.count - 1;
    const float *sigma = s->timesteps.sigmas + step;
    /* Between equal levels there is no slope. */
    return s->solver_order == 1 || !has_last_estimate || sigma[-1] == sigma[0] || sigma[0] == sigma[1] ||
           (is_last && (s->euler_at_final || is_short || !s->ends_at_sigma_min));
}

/* A sample at level sigma is signal * (x0 + sigma noise). */
static double signal_of(double sigma) { return 1.0 / sqrt(sigma * sigma + 1.0); }

/* x' = by_sample x + by_origin x0 + by_slope (x0 - last x0) / r + noise, h and r h being the steps in log(1 / sigma). */
static mg_status coefficients(struct mg_step_coefficients *out, const struct mg_scheduler *s, int step,
                              const struct mg_step_options *options, struct mg_err *err) {
    (void)err;
    const float *sigmas = s->timesteps.sigmas;
    const double from = sigmas[step], to = sigmas[step + 1], shrink = to / from, h = -log(shrink); /* shrink: exp(-h) */
    const double signal = signal_of(from), next = signal_of(to);
    double by_sample = shrink * next / signal, by_origin = next * (1.0 - shrink), by_slope = 0.0, by_noise = 0.0;
    double origin_sample = 0.0, origin_model = 1.0;
    if (s->is_stochastic) {
        by_sample *= shrink;
        by_origin = next * (1.0 - shrink * shrink);
        by_noise = to * next * sqrt(1.0 - shrink * shrink);
    }
    if (!is_first_order(s, step, options->has_last_estimate)) {
        const double r = log((double)sigmas[step - 1] / from) / h, twice = s->is_stochastic ? 2.0 * h : h;
        by_slope = (s->uses_heun ? next - by_origin / twice : 0.5 * by_origin) / r;
    }
    if (s->prediction == MG_PREDICT_EPSILON) {
        origin_sample = 1.0 / signal;
        origin_model = -from;
    } else if (s->prediction == MG_PREDICT_V) {
        origin_sample = signal;
        origin_model = -from * signal;
    }
    const double by_both = by_origin + by_slope;
    *out = (struct mg_step_coefficients){.input_factor = 1.0f,
                                         .sample_factor = (float)(by_sample + by_both * origin_sample),
                                         .model_factor = (float)(by_both * origin_model),
                                         .noise_factor = (float)by_noise,
                                         .last_estimate_factor = (float)-by_slope,
                                         .origin_sample_factor = (float)origin_sample,
                                         .origin_model_factor = (float)origin_model};
    return MG_OK;
}

const struct mg_scheduler_class mg_scheduler_dpm_solver = {.name = "DPMSolverMultistepScheduler",
                                                           .beta_start = 0.0001,
                                                           .beta_end = 0.02,
                                                           .beta_schedule = "linear",
                                                           .spacing = MG_SPACING_LINSPACE,
                                                           .keeps_signal = true,
                                                           .whole_timesteps = true,
                                                           .uses_last_estimate = true,
                                                           .read_options = read_options,
                                                           .set_timesteps = set_timesteps,
                                                           .coefficients = coefficients};
