/* scheduler.c: reads scheduler_config.json and keeps the noise levels; the algorithms are in ddim.c and
 * lcm.c. float32 and its order of operations follow torch, so that time steps are equal and factors agree in
 * the last digits. Called by marigold/pipeline and through marigold.h. */
#include "scheduler.h"

#include <math.h>
#include <string.h>

static const char FILE_NAME[] = "scheduler_config.json";

static mg_status unsupported(const struct mg_json *config, const char *key, const char *supported, struct mg_err *err) {
    char text[128] = "(absent; the default)";
    const struct mg_json *value = mg_json_get(config, key);
    if (value)
        mg_json_text(text, sizeof text, value);
    return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: \"%s\": %s is not supported; supported: %s", FILE_NAME, key, text,
                   supported);
}

/* ---- noise levels ---- */
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
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"trained_betas\" is not a list of %d numbers", FILE_NAME, count);
    for (int i = 0; i < count; i++) {
        const struct mg_json *beta = &list->children[i];
        if (beta->type != MG_JSON_NUMBER || !(beta->number >= 0.0 && beta->number <= 1.0)) {
            char text[64];
            return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"trained_betas\"[%d] is %s; it must be a number in [0, 1]",
                           FILE_NAME, i, mg_json_text(text, sizeof text, beta));
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
    MG_TRY(mg_json_get_double(&begin, config, "beta_start", s->class_of->beta_start, FILE_NAME, err));
    MG_TRY(mg_json_get_double(&end, config, "beta_end", s->class_of->beta_end, FILE_NAME, err));
    MG_TRY(mg_json_get_string(&schedule, config, "beta_schedule", s->class_of->beta_schedule, FILE_NAME, err));
    if (!(begin >= 0.0 && begin < 1.0 && end >= 0.0 && end < 1.0))
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: beta_start %g and beta_end %g must lie in [0, 1)", FILE_NAME, begin,
                       end);
    const bool linear = !strcmp(schedule, "linear"), scaled = !strcmp(schedule, "scaled_linear");
    if (!linear && !scaled && strcmp(schedule, "squaredcos_cap_v2"))
        return unsupported(config, "beta_schedule", "linear, scaled_linear, squaredcos_cap_v2", err);
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

/* Algorithm 1 of arXiv 2305.08891: shift and scale the square roots so that the last is zero and the first stays. */
static void rescale_to_zero_terminal_snr(float *betas, float *cumulative, int count) {
    cumulate(cumulative, betas, count);
    float first = sqrtf(cumulative[0]), last = sqrtf(cumulative[count - 1]);
    for (int i = 0; i < count; i++) {
        float root = (sqrtf(cumulative[i]) - last) * (first / (first - last));
        cumulative[i] = root * root;
    }
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
                           FILE_NAME, i, count, (double)alphas_cumprod[i]);
    return MG_OK;
}

static mg_status make_noise_levels(struct mg_scheduler *s, const struct mg_json *config, struct mg_err *err) {
    float *betas = NULL;
    bool rescale, to_one;
    mg_status status;
    size_t bytes = (size_t)s->train_timesteps * sizeof(float);
    MG_TRY_GOTO(mg_alloc((void **)&betas, bytes, "noise levels", err));
    MG_TRY_GOTO(mg_alloc((void **)&s->alphas_cumprod, bytes, "noise levels", err));
    MG_TRY_GOTO(make_betas(betas, s, config, err));
    MG_TRY_GOTO(mg_json_get_bool(&rescale, config, "rescale_betas_zero_snr", false, FILE_NAME, err));
    MG_TRY_GOTO(mg_json_get_bool(&to_one, config, "set_alpha_to_one", true, FILE_NAME, err));
    if (rescale)
        rescale_to_zero_terminal_snr(betas, s->alphas_cumprod, s->train_timesteps);
    cumulate(s->alphas_cumprod, betas, s->train_timesteps);
    MG_TRY_GOTO(check_levels(s->alphas_cumprod, s->train_timesteps, err));
    s->final_alpha_cumprod = to_one ? 1.0f : s->alphas_cumprod[0];
done:
    mg_free(betas);
    return status;
}

/* ---- options ---- */
static mg_status read_choice(int *out, const struct mg_json *config, const char *key, const char *const names[3],
                             const char *supported, struct mg_err *err) {
    const char *text;
    MG_TRY(mg_json_get_string(&text, config, key, names[0], FILE_NAME, err));
    for (*out = 0; *out < 3; (*out)++)
        if (!strcmp(text, names[*out]))
            return MG_OK;
    return unsupported(config, key, supported, err);
}

static mg_status read_options(struct mg_scheduler *s, const struct mg_json *config, bool levels_only,
                              struct mg_err *err) {
    static const char *const predictions[3] = {"epsilon", "sample", "v_prediction"};
    static const char *const spacings[3] = {"leading", "trailing", "linspace"};
    int choice;
    int64_t number;
    bool clip, threshold;
    MG_TRY(mg_json_get_int(&number, config, "num_train_timesteps", 1000, 2, 1 << 20, FILE_NAME, err));
    s->train_timesteps = (int)number;
    MG_TRY(read_choice(&choice, config, "prediction_type", predictions, "epsilon, sample, v_prediction", err));
    s->prediction = (mg_prediction_type)choice;
    MG_TRY(read_choice(&choice, config, "timestep_spacing", spacings, "leading, trailing, linspace", err));
    s->spacing = (mg_spacing)choice;
    MG_TRY(mg_json_get_int(&s->steps_offset, config, "steps_offset", 0, 0, 1 << 20, FILE_NAME, err));
    MG_TRY(mg_json_get_int(&number, config, "original_inference_steps", 50, 1, 1 << 20, FILE_NAME, err));
    s->original_inference_steps = (int)number;
    MG_TRY(mg_json_get_double(&s->timestep_scaling, config, "timestep_scaling", 10.0, FILE_NAME, err));
    if (levels_only)
        return MG_OK;
    MG_TRY(mg_json_get_bool(&clip, config, "clip_sample", s->class_of->clip_sample, FILE_NAME, err));
    MG_TRY(mg_json_get_bool(&threshold, config, "thresholding", false, FILE_NAME, err));
    if (clip)
        return unsupported(config, "clip_sample", "false", err);
    return threshold ? unsupported(config, "thresholding", "false", err) : MG_OK;
}

/* Further classes whose betas have DDIM's defaults. */
static const char *const of_levels[] = {"DDPMScheduler",
                                        "PNDMScheduler",
                                        "EulerDiscreteScheduler",
                                        "EulerAncestralDiscreteScheduler",
                                        "LMSDiscreteScheduler",
                                        "UniPCMultistepScheduler",
                                        "DPMSolverMultistepScheduler",
                                        "DPMSolverSinglestepScheduler",
                                        "DEISMultistepScheduler"};

static mg_status read_config(struct mg_scheduler *s, const struct mg_json *config, bool levels_only,
                             struct mg_err *err) {
    static const struct mg_scheduler_class *const classes[] = {&mg_scheduler_ddim, &mg_scheduler_lcm};
    const char *name;
    if (config->type != MG_JSON_OBJECT)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: not a JSON object", FILE_NAME);
    MG_TRY(mg_json_get_string(&name, config, "_class_name", "DDIMScheduler", FILE_NAME, err));
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (!strcmp(name, classes[i]->name))
            s->class_of = classes[i];
    for (size_t i = 0; levels_only && i < sizeof of_levels / sizeof of_levels[0]; i++)
        if (!strcmp(name, of_levels[i]))
            s->class_of = &mg_scheduler_ddim;
    if (!s->class_of)
        return unsupported(config, "_class_name",
                           levels_only ? "those of diffusers for discrete time steps, such as DDIMScheduler, "
                                         "PNDMScheduler, EulerDiscreteScheduler"
                                       : "DDIMScheduler, LCMScheduler",
                           err);
    MG_TRY(read_options(s, config, levels_only, err));
    return make_noise_levels(s, config, err);
}

static mg_status create(mg_scheduler **out, const char *config_json, size_t config_bytes, bool levels_only,
                        struct mg_err *err) {
    struct mg_arena arena;
    const struct mg_json *config;
    struct mg_scheduler *s = NULL;
    mg_status status;
    *out = NULL;
    mg_arena_init(&arena);
    MG_TRY_GOTO(mg_alloc_zeroed((void **)&s, sizeof *s, "a scheduler", err));
    MG_TRY_GOTO(mg_json_parse(&config, &arena, config_bytes ? config_json : "", config_bytes, FILE_NAME, err));
    MG_TRY_GOTO(read_config(s, config, levels_only, err));
    *out = s;
done:
    mg_arena_free(&arena);
    if (status != MG_OK)
        mg_scheduler_destroy(s);
    return status;
}

mg_status mg_scheduler_create(mg_scheduler **out, const char *config_json, size_t config_bytes, struct mg_err *err) {
    return create(out, config_json, config_bytes, false, err);
}

mg_status mg_scheduler_create_levels(mg_scheduler **out, const char *config_json, size_t config_bytes,
                                     struct mg_err *err) {
    return create(out, config_json, config_bytes, true, err);
}

void mg_scheduler_destroy(mg_scheduler *scheduler) {
    if (!scheduler)
        return;
    mg_free(scheduler->alphas_cumprod);
    mg_free(scheduler->timesteps);
    mg_free(scheduler);
}

const char *mg_scheduler_class_name(const mg_scheduler *scheduler) { return scheduler->class_of->name; }
double mg_scheduler_init_noise_sigma(const mg_scheduler *scheduler) {
    (void)scheduler; /* both algorithms start from unit noise */
    return 1.0;
}
int mg_scheduler_num_train_timesteps(const mg_scheduler *scheduler) { return scheduler->train_timesteps; }
const float *mg_scheduler_alphas_cumprod(const mg_scheduler *scheduler) { return scheduler->alphas_cumprod; }

const int64_t *mg_scheduler_timesteps(const mg_scheduler *scheduler, int *count) {
    *count = scheduler->num_timesteps;
    return scheduler->timesteps;
}

mg_status mg_scheduler_reserve(struct mg_scheduler *s, int count, struct mg_err *err) {
    void *timesteps;
    MG_TRY(mg_alloc(&timesteps, (size_t)count * sizeof *s->timesteps, "time steps", err));
    mg_free(s->timesteps);
    s->timesteps = timesteps;
    s->num_timesteps = 0;
    return MG_OK;
}

/* A time step that is listed must have a noise level. */
static mg_status check_timesteps(const struct mg_scheduler *s, int num_inference_steps, struct mg_err *err) {
    for (int i = 0; i < s->num_timesteps; i++)
        if (s->timesteps[i] < 0 || s->timesteps[i] >= s->train_timesteps)
            return mg_fail(err, MG_ERR_ARGUMENT, "time step %lld of %d steps lies outside 0 to %d (steps_offset %lld)",
                           (long long)s->timesteps[i], num_inference_steps, s->train_timesteps - 1,
                           (long long)s->steps_offset);
    return MG_OK;
}

mg_status mg_schedule_set_timesteps(struct mg_scheduler *scheduler, int num_inference_steps, struct mg_err *err) {
    if (num_inference_steps < 1)
        return mg_fail(err, MG_ERR_ARGUMENT, "num_inference_steps is %d; it must be positive", num_inference_steps);
    if (num_inference_steps > scheduler->train_timesteps)
        return mg_fail(err, MG_ERR_ARGUMENT, "num_inference_steps is %d; the model was trained with %d",
                       num_inference_steps, scheduler->train_timesteps);
    /* What fails leaves the time steps as they were. */
    int64_t *before = scheduler->timesteps;
    const int num_before = scheduler->num_timesteps;
    scheduler->timesteps = NULL;
    mg_status status = scheduler->class_of->set_timesteps(scheduler, num_inference_steps, err);
    if (status == MG_OK)
        status = check_timesteps(scheduler, num_inference_steps, err);
    mg_free(status == MG_OK ? before : scheduler->timesteps);
    if (status == MG_OK) {
        scheduler->inference_steps = num_inference_steps;
    } else {
        scheduler->timesteps = before;
        scheduler->num_timesteps = num_before;
    }
    return status;
}

mg_status mg_scheduler_check_timestep(const struct mg_scheduler *s, int64_t timestep, int *index, struct mg_err *err) {
    if (!s->num_timesteps)
        return mg_fail(err, MG_ERR_ARGUMENT, "the scheduler has no time steps yet: call set_timesteps first");
    for (*index = 0; *index < s->num_timesteps; (*index)++)
        if (s->timesteps[*index] == timestep)
            return MG_OK;
    return mg_fail(err, MG_ERR_ARGUMENT, "time step %lld is none of the scheduler's %d time steps", (long long)timestep,
                   s->num_timesteps);
}

mg_status mg_scheduler_clean_estimate(struct mg_clean_estimate *out, mg_prediction_type prediction, float alpha,
                                      int64_t timestep, struct mg_err *err) {
    const float signal = sqrtf(alpha), noise = sqrtf(1.0f - alpha);
    if ((prediction == MG_PREDICT_EPSILON && signal == 0.0f) || (prediction == MG_PREDICT_SAMPLE && noise == 0.0f))
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "at time step %lld the sample has no %s, which this prediction_type divides by",
                       (long long)timestep, signal == 0.0f ? "signal" : "noise");
    if (prediction == MG_PREDICT_EPSILON)
        *out = (struct mg_clean_estimate){1.0f / signal, -noise / signal, 0.0f, 1.0f};
    else if (prediction == MG_PREDICT_SAMPLE)
        *out = (struct mg_clean_estimate){0.0f, 1.0f, 1.0f / noise, -signal / noise};
    else
        *out = (struct mg_clean_estimate){signal, -noise, noise, signal};
    return MG_OK;
}

mg_status mg_schedule_coefficients(struct mg_step_coefficients *out, const struct mg_scheduler *scheduler,
                                   int64_t timestep, double eta, struct mg_err *err) {
    return scheduler->class_of->coefficients(out, scheduler, timestep, eta, err);
}

/* ---- marigold.h: the same, one call at a time ---- */
mg_status mg_scheduler_enter(mg_scheduler *scheduler, const void *call, struct mg_err *err) {
    return mg_handle_enter(&scheduler->user, call, "scheduler", err);
}

void mg_scheduler_leave(mg_scheduler *scheduler, const void *call) { mg_handle_leave(&scheduler->user, call); }

mg_status mg_scheduler_set_timesteps(mg_scheduler *scheduler, int num_inference_steps, struct mg_err *err) {
    MG_TRY(mg_scheduler_enter(scheduler, &err, err));
    const mg_status status = mg_schedule_set_timesteps(scheduler, num_inference_steps, err);
    mg_scheduler_leave(scheduler, &err);
    return status;
}

mg_status mg_scheduler_step_coefficients(struct mg_step_coefficients *out, mg_scheduler *scheduler, int64_t timestep,
                                         double eta, struct mg_err *err) {
    MG_TRY(mg_scheduler_enter(scheduler, &err, err));
    const mg_status status = mg_schedule_coefficients(out, scheduler, timestep, eta, err);
    mg_scheduler_leave(scheduler, &err);
    return status;
}
