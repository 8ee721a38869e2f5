/* levels.c: the noise levels that a network was trained with, by scheduler_config.json. float32 and its order of operations follow
 * torch, so that levels are equal in all but the last digit. */
#include <math.h>
#include <string.h>

#include "scheduler.h"

/* torch fuses multiplication and addition here; a rounding more would change the last digit of every fifth level. */
static float linspace(double begin, double end, int count, int i) {
    float first = (float)begin, last = (float)end, step = (last - first) / (float)(count - 1);
    return i < count / 2 ? fmaf(step, (float)i, first) : fmaf(-step, (float)(count - 1 - i), last);
}

static float squared_cosine(int i, int count) {
    double at = cos(((double)i / count + 0.008) / 1.008 * 3.14159265358979323846 / 2.0);
    double next = cos(((double)(i + 1) / count + 0.008) / 1.008 * 3.14159265358979323846 / 2.0);
    double beta = 1.0 - next * next / (at * at);
    return (float)(beta < 0.999 ? beta : 0.999);
}

static mg_status trained_betas(float *betas, int count, const struct mg_json *list, struct mg_err *err) {
    if (list->type != MG_JSON_ARRAY || list->length != (size_t)count)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"trained_betas\" is not a list of %d numbers", MG_SCHEDULER_FILE,
                       count);
    for (int i = 0; i < count; i++) {
        const struct mg_json *beta = &list->children[i];
        if (beta->type != MG_JSON_NUMBER || !(beta->number >= 0.0 && beta->number <= 1.0)) {
            char text[64];
            return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"trained_betas\"[%d] is %s; it must be a number in [0, 1]",
                           MG_SCHEDULER_FILE, i, mg_json_text(text, sizeof text, beta));
        }
        betas[i] = (float)beta->number;
    }
    return MG_OK;
}

static mg_status make_betas(float *betas, const struct mg_scheduler *s, const struct mg_json *config,
                            struct mg_err *err) {
    const int count = s->train_timesteps;
    const struct mg_json *trained = mg_json_get(config, "trained_betas");
    const char *schedule;
    double begin, end;
    if (trained && trained->type != MG_JSON_NULL)
        return trained_betas(betas, count, trained, err);
    MG_TRY(mg_json_get_double(&begin, config, "beta_start", s->class_of->beta_start, MG_SCHEDULER_FILE, err));
    MG_TRY(mg_json_get_double(&end, config, "beta_end", s->class_of->beta_end, MG_SCHEDULER_FILE, err));
    MG_TRY(mg_json_get_string(&schedule, config, "beta_schedule", s->class_of->beta_schedule, MG_SCHEDULER_FILE, err));
    if (!(begin >= 0.0 && begin < 1.0 && end >= 0.0 && end < 1.0))
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: beta_start %g and beta_end %g must lie in [0, 1)",
                       MG_SCHEDULER_FILE, begin, end);
    const bool linear = !strcmp(schedule, "linear"), scaled = !strcmp(schedule, "scaled_linear");
    if (!linear && !scaled && strcmp(schedule, "squaredcos_cap_v2"))
        return mg_option_unsupported(config, "beta_schedule", "linear, scaled_linear, squaredcos_cap_v2", err);
    for (int i = 0; i < count; i++) {
        if (scaled) {
            float root = linspace(sqrt(begin), sqrt(end), count, i);
            betas[i] = root * root;
        } else {
            betas[i] = linear ? linspace(begin, end, count, i) : squared_cosine(i, count);
        }
    }
    return MG_OK;
}

/* torch accumulates float32 products in double. */
static void cumulate(float *out, const float *betas, int count) {
    double product = 1.0;
    for (int i = 0; i < count; i++) {
        product *= (double)(1.0f - betas[i]);
        out[i] = (float)product;
    }
}

void mg_rescale_to_zero_terminal_snr(float *alphas_cumprod, int count) {
    const float first = sqrtf(alphas_cumprod[0]), last = sqrtf(alphas_cumprod[count - 1]);
    for (int i = 0; i < count; i++) {
        const float root = (sqrtf(alphas_cumprod[i]) - last) * (first / (first - last));
        alphas_cumprod[i] = root * root;
    }
}

/* torch goes through the betas of the rescaled levels, which rounds them once more. */
static void rescale_betas(float *betas, float *cumulative, int count) {
    cumulate(cumulative, betas, count);
    mg_rescale_to_zero_terminal_snr(cumulative, count);
    for (int i = count - 1; i > 0; i--)
        betas[i] = 1.0f - cumulative[i] / cumulative[i - 1];
    betas[0] = 1.0f - cumulative[0];
}

/* Rescaling divides by differences of the levels: without any noise there is nothing to scale. */
static mg_status check_levels(const float *alphas_cumprod, int count, struct mg_err *err) {
    for (int i = 0; i < count; i++)
        if (!(alphas_cumprod[i] >= 0.0f && alphas_cumprod[i] <= 1.0f))
            return mg_fail(err, MG_ERR_CHECKPOINT,
                           "%s: the betas make the cumulative alpha of time step %d of %d %g; it must lie in [0, 1]",
                           MG_SCHEDULER_FILE, i, count, (double)alphas_cumprod[i]);
    return MG_OK;
}

mg_status mg_levels_read(struct mg_scheduler *s, const struct mg_json *config, struct mg_err *err) {
    float *betas = NULL;
    bool rescale, to_one;
    mg_status status;
    size_t bytes = (size_t)s->train_timesteps * sizeof(float);
    MG_TRY_GOTO(mg_alloc((void **)&betas, bytes, "noise levels", err));
    MG_TRY_GOTO(mg_alloc((void **)&s->alphas_cumprod, bytes, "noise levels", err));
    MG_TRY_GOTO(make_betas(betas, s, config, err));
    MG_TRY_GOTO(mg_json_get_bool(&rescale, config, "rescale_betas_zero_snr", false, MG_SCHEDULER_FILE, err));
    MG_TRY_GOTO(mg_json_get_bool(&to_one, config, "set_alpha_to_one", true, MG_SCHEDULER_FILE, err));
    if (rescale)
        rescale_betas(betas, s->alphas_cumprod, s->train_timesteps);
    cumulate(s->alphas_cumprod, betas, s->train_timesteps);
    if (rescale && s->class_of->keeps_signal)
        s->alphas_cumprod[s->train_timesteps - 1] = 0x1p-24f;
    MG_TRY_GOTO(check_levels(s->alphas_cumprod, s->train_timesteps, err));
    s->final_alpha_cumprod = to_one ? 1.0f : s->alphas_cumprod[0];
done:
    mg_free(betas);
    return status;
}

mg_status mg_scheduler_clean_estimate(struct mg_clean_estimate *out, mg_prediction_type prediction, float alpha,
                                      int64_t timestep, struct mg_err *err) {
    const float signal = sqrtf(alpha), noise = sqrtf(1.0f - alpha);
    if ((prediction == MG_PREDICT_EPSILON && signal == 0.0f) || (prediction == MG_PREDICT_SAMPLE && noise == 0.0f))
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "at time step %lld the sample has no %s, which this prediction_type divides by",
                       (long long)timestep, signal == 0.0f ? "signal" : "noise");
    if (prediction == MG_PREDICT_EPSILON)
        *out = (struct mg_clean_estimate){
            .origin_sample = 1.0f / signal, .origin_model = -noise / signal, .noise_model = 1.0f};
    else if (prediction == MG_PREDICT_SAMPLE)
        *out = (struct mg_clean_estimate){
            .origin_model = 1.0f, .noise_sample = 1.0f / noise, .noise_model = -signal / noise};
    else
        *out = (struct mg_clean_estimate){
            .origin_sample = signal, .origin_model = -noise, .noise_sample = noise, .noise_model = signal};
    return MG_OK;
}
