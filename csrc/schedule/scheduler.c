/* scheduler.c: reads scheduler_config.json, of the class that it names, and keeps the time steps; the classes are ddim.c, lcm.c,
 * euler.c and dpm_solver.c. */
#include <string.h>

#include "scheduler.h"

static const struct mg_scheduler_class *const classes[] = {&mg_scheduler_ddim, &mg_scheduler_lcm, &mg_scheduler_euler,
                                                           &mg_scheduler_dpm_solver};
enum { NUM_CLASSES = sizeof classes / sizeof classes[0] };

/* Options that all classes have. */
static mg_status read_options(struct mg_scheduler *s, const struct mg_json *config, bool levels_only,
                              struct mg_err *err) {
    static const char *const predictions[] = {"epsilon", "sample", "v_prediction"};
    static const char *const spacings[] = {"leading", "trailing", "linspace"};
    int choice;
    int64_t number;
    bool clip;
    MG_TRY(mg_json_get_int(&number, config, "num_train_timesteps", 1000, 2, 1 << 20, MG_SCHEDULER_FILE, err));
    s->train_timesteps = (int)number;
    MG_TRY(mg_option_choice(&choice, config, "prediction_type", predictions, 3, MG_PREDICT_EPSILON,
                            "epsilon, sample, v_prediction", err));
    s->prediction = (mg_prediction_type)choice;
    MG_TRY(mg_option_choice(&choice, config, "timestep_spacing", spacings, 3, (int)s->class_of->spacing,
                            "leading, trailing, linspace", err));
    s->spacing = (mg_spacing)choice;
    MG_TRY(mg_json_get_int(&s->steps_offset, config, "steps_offset", 0, 0, 1 << 20, MG_SCHEDULER_FILE, err));
    MG_TRY(mg_json_get_double(&s->timestep_scaling, config, "timestep_scaling", 10.0, MG_SCHEDULER_FILE, err));
    if (levels_only)
        return MG_OK;
    MG_TRY(mg_option_bool(&clip, config, "clip_sample", s->class_of->clip_sample, err));
    if (clip && s->class_of->has_clipping)
        return mg_option_unsupported(config, "clip_sample", "false", err);
    MG_TRY(mg_option_bool(&clip, config, "thresholding", false, err));
    return clip ? mg_option_unsupported(config, "thresholding", "false", err) : MG_OK;
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
    const char *name;
    if (config->type != MG_JSON_OBJECT)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: not a JSON object", MG_SCHEDULER_FILE);
    MG_TRY(mg_json_get_string(&name, config, "_class_name", "DDIMScheduler", MG_SCHEDULER_FILE, err));
    for (size_t i = 0; i < NUM_CLASSES; i++)
        if (!strcmp(name, classes[i]->name))
            s->class_of = classes[i];
    for (size_t i = 0; levels_only && i < sizeof of_levels / sizeof of_levels[0]; i++)
        if (!strcmp(name, of_levels[i]))
            s->class_of = &mg_scheduler_ddim;
    if (!s->class_of)
        return mg_option_unsupported(config, "_class_name",
                                     levels_only ? "those of diffusers for discrete time steps, such as DDIMScheduler, "
                                                   "PNDMScheduler, EulerDiscreteScheduler"
                                                 : "DDIMScheduler, LCMScheduler, EulerDiscreteScheduler, "
                                                   "DPMSolverMultistepScheduler",
                                     err);
    MG_TRY(read_options(s, config, levels_only, err));
    MG_TRY(mg_levels_read(s, config, err));
    return s->class_of->read_options ? s->class_of->read_options(s, config, err) : MG_OK;
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
    MG_TRY_GOTO(mg_json_parse(&config, &arena, config_bytes ? config_json : "", config_bytes, MG_SCHEDULER_FILE, err));
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
    mg_timesteps_free(&scheduler->timesteps);
    mg_free(scheduler);
}

const char *mg_scheduler_class_name(const mg_scheduler *scheduler) { return scheduler->class_of->name; }
double mg_scheduler_init_noise_sigma(const mg_scheduler *scheduler) {
    return scheduler->class_of->init_noise_sigma ? scheduler->class_of->init_noise_sigma(scheduler) : 1.0;
}
int mg_scheduler_num_train_timesteps(const mg_scheduler *scheduler) { return scheduler->train_timesteps; }
bool mg_scheduler_has_whole_timesteps(const mg_scheduler *scheduler) { return scheduler->class_of->whole_timesteps; }
bool mg_scheduler_uses_last_estimate(const mg_scheduler *scheduler) { return scheduler->class_of->uses_last_estimate; }
const float *mg_scheduler_alphas_cumprod(const mg_scheduler *scheduler) { return scheduler->alphas_cumprod; }

const double *mg_scheduler_timesteps(const mg_scheduler *scheduler, int *count) {
    *count = scheduler->timesteps.count;
    return scheduler->timesteps.list;
}

/* A time step that is listed must have a noise level. */
static mg_status check_timesteps(const struct mg_timesteps *timesteps, const struct mg_scheduler *s,
                                 struct mg_err *err) {
    for (int i = 0; i < timesteps->count; i++)
        if (!(timesteps->list[i] >= 0.0 && timesteps->list[i] <= s->train_timesteps - 1))
            return mg_fail(err, MG_ERR_ARGUMENT, "time step %.10g of %d steps lies outside 0 to %d (steps_offset %lld)",
                           timesteps->list[i], timesteps->asked, s->train_timesteps - 1, (long long)s->steps_offset);
    return MG_OK;
}

/* What fails leaves the time steps as they were. */
mg_status mg_schedule_set_timesteps(struct mg_scheduler *scheduler, int num_inference_steps, struct mg_err *err) {
    struct mg_timesteps made = {0};
    if (num_inference_steps < 1)
        return mg_fail(err, MG_ERR_ARGUMENT, "num_inference_steps is %d; it must be positive", num_inference_steps);
    if (num_inference_steps > scheduler->train_timesteps)
        return mg_fail(err, MG_ERR_ARGUMENT, "num_inference_steps is %d; the model was trained with %d",
                       num_inference_steps, scheduler->train_timesteps);
    mg_status status = scheduler->class_of->set_timesteps(&made, scheduler, num_inference_steps, err);
    made.asked = num_inference_steps;
    if (status == MG_OK)
        status = check_timesteps(&made, scheduler, err);
    if (status != MG_OK) {
        mg_timesteps_free(&made);
        return status;
    }
    mg_timesteps_free(&scheduler->timesteps);
    scheduler->timesteps = made;
    return MG_OK;
}

mg_status mg_scheduler_step_of(int *step, const mg_scheduler *s, double timestep, struct mg_err *err) {
    if (!s->timesteps.count)
        return mg_fail(err, MG_ERR_ARGUMENT, "the scheduler has no time steps yet: call set_timesteps first");
    for (*step = 0; *step < s->timesteps.count; (*step)++)
        if (s->timesteps.list[*step] == timestep)
            return MG_OK;
    return mg_fail(err, MG_ERR_ARGUMENT, "time step %.10g is none of the scheduler's %d time steps", timestep,
                   s->timesteps.count);
}

mg_status mg_schedule_coefficients(struct mg_step_coefficients *out, const struct mg_scheduler *scheduler, int step,
                                   const struct mg_step_options *options, struct mg_err *err) {
    const struct mg_step_options used = {.eta = options->eta, .has_last_estimate = options->has_last_estimate && step};
    if (step < 0 || step >= scheduler->timesteps.count)
        return mg_fail(err, MG_ERR_ARGUMENT, "step %d is none of the scheduler's %d steps", step,
                       scheduler->timesteps.count);
    return scheduler->class_of->coefficients(out, scheduler, step, &used, err);
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

mg_status mg_scheduler_step_coefficients(struct mg_step_coefficients *out, mg_scheduler *scheduler, int step,
                                         const struct mg_step_options *options, struct mg_err *err) {
    MG_TRY(mg_scheduler_enter(scheduler, &err, err));
    const mg_status status = mg_schedule_coefficients(out, scheduler, step, options, err);
    mg_scheduler_leave(scheduler, &err);
    return status;
}
