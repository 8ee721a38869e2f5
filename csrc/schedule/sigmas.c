/* sigmas.c: the noise levels sigma of Karras et al. (arXiv 2206.00364), for schedulers that step from one to the next. Arithmetic
 * as in diffusers: float32 for those of training, double between them. */
#include <math.h>

#include "scheduler.h"

float mg_sigma_of_training(const struct mg_scheduler *s, int timestep) {
    const float alpha = s->alphas_cumprod[timestep];
    return sqrtf((1.0f - alpha) / alpha);
}

static double log_sigma(const struct mg_scheduler *s, int timestep) {
    return (double)logf(mg_sigma_of_training(s, timestep));
}

double mg_sigma_at(const struct mg_scheduler *s, double timestep) {
    const int last = s->train_timesteps - 1, low = timestep >= last ? last - 1 : (int)timestep;
    const double before = mg_sigma_of_training(s, low), after = mg_sigma_of_training(s, low + 1);
    return timestep >= last ? after : (after - before) * (timestep - low) + before;
}

double mg_timestep_of_sigma(const struct mg_scheduler *s, double sigma) {
    const double wanted = log(sigma > 1e-10 ? sigma : 1e-10);
    const int last = s->train_timesteps - 1;
    /* The last step whose level is not above the one wanted, or the one before it. Levels rise; but zero terminal SNR may
     * leave the very last below those before it. */
    int low = log_sigma(s, last) <= wanted ? last - 1 : 0, beyond = last;
    while (beyond - low > 1) {
        const int middle = low + (beyond - low) / 2;
        if (log_sigma(s, middle) <= wanted)
            low = middle;
        else
            beyond = middle;
    }
    const double before = log_sigma(s, low), after = log_sigma(s, low + 1);
    const double weight = (before - wanted) / (before - after);
    const double clipped = weight < 0.0 ? 0.0 : weight > 1.0 ? 1.0 : weight;
    return (1.0 - clipped) * low + clipped * (low + 1);
}

void mg_sigmas_by_spacing(double *out, const struct mg_scheduler *s, double largest, double smallest, int count) {
    const double rho = 7.0;
    smallest = s->sigma_min > 0.0 ? s->sigma_min : smallest;
    largest = s->sigma_max > 0.0 ? s->sigma_max : largest;
    const bool is_karras = s->sigma_spacing == MG_SIGMAS_KARRAS;
    const bool is_lu = s->sigma_spacing == MG_SIGMAS_LU; /* whose logarithms are float32 */
    const double begin = is_karras ? pow(largest, 1.0 / rho) : is_lu ? logf((float)largest) : log(largest);
    const double end = is_karras ? pow(smallest, 1.0 / rho) : is_lu ? logf((float)smallest) : log(smallest);
    for (int i = 0; i < count; i++) {
        const double at = count > 1 ? (double)i / (count - 1) : 0.0, value = begin + at * (end - begin);
        out[i] = is_karras ? pow(value, rho) : exp(value);
    }
}

/* 0 where it is absent or null. */
static mg_status read_end(double *out, const struct mg_json *config, const char *key, struct mg_err *err) {
    const struct mg_json *value = mg_json_get(config, key);
    *out = 0.0;
    if (!value || value->type == MG_JSON_NULL)
        return MG_OK;
    MG_TRY(mg_json_get_double(out, config, key, 0.0, MG_SCHEDULER_FILE, err));
    return *out > 0.0 && *out <= 1e6 ? MG_OK : mg_option_unsupported(config, key, "null, or above 0 to 1e6", err);
}

mg_status mg_sigmas_read_options(struct mg_scheduler *s, const struct mg_json *config, struct mg_err *err) {
    static const char *const ends[] = {"zero", "sigma_min"};
    bool karras, exponential;
    int end;
    MG_TRY(mg_option_bool(&karras, config, "use_karras_sigmas", false, err));
    MG_TRY(mg_option_bool(&exponential, config, "use_exponential_sigmas", false, err));
    MG_TRY(mg_option_refuse(config, "use_beta_sigmas", err));
    if (karras && exponential)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: both use_karras_sigmas and use_exponential_sigmas are true",
                       MG_SCHEDULER_FILE);
    s->sigma_spacing = karras ? MG_SIGMAS_KARRAS : exponential ? MG_SIGMAS_EXPONENTIAL : MG_SIGMAS_OF_TIMESTEPS;
    MG_TRY(mg_option_choice(&end, config, "final_sigmas_type", ends, 2, 0, "zero, sigma_min", err));
    s->ends_at_sigma_min = end == 1;
    MG_TRY(read_end(&s->sigma_min, config, "sigma_min", err));
    MG_TRY(read_end(&s->sigma_max, config, "sigma_max", err));
    for (int i = 0; i < s->train_timesteps; i++)
        if (!(s->alphas_cumprod[i] > 0.0f && s->alphas_cumprod[i] < 1.0f))
            return mg_fail(err, MG_ERR_CHECKPOINT,
                           "%s: the cumulative alpha of time step %d is %g; %s needs all of them between 0 and 1",
                           MG_SCHEDULER_FILE, i, (double)s->alphas_cumprod[i], s->class_of->name);
    return MG_OK;
}
