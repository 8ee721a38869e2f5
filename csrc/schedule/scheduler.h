/* scheduler.h: what the files of this room share. A scheduler is a file with a row: how it spaces its time steps, and by which
 * numbers it takes a step. Private to schedule, pipeline and train; knows io/json.
 *
 * Every step is linear: the sample that follows is a sum of the sample, the network's output, noise, and the estimate of the clean
 * sample that the step before gave, each times a number. So a scheduler gives numbers, and step.c is the arithmetic of all. */
#ifndef MG_SCHEDULER_H
#define MG_SCHEDULER_H
#include "../core/handle.h"
#include "../io/json.h"

typedef enum mg_prediction_type { MG_PREDICT_EPSILON, MG_PREDICT_SAMPLE, MG_PREDICT_V } mg_prediction_type;
typedef enum mg_spacing { MG_SPACING_LEADING, MG_SPACING_TRAILING, MG_SPACING_LINSPACE } mg_spacing;
/* How noise levels sigma are spaced, if not by the time steps. */
typedef enum mg_sigma_spacing {
    MG_SIGMAS_OF_TIMESTEPS,
    MG_SIGMAS_KARRAS,      /* arXiv 2206.00364, equation 5 with rho = 7 */
    MG_SIGMAS_EXPONENTIAL, /* evenly in their logarithms, between the ends of what the time steps would give */
    MG_SIGMAS_LU           /* the same over all of training (arXiv 2206.00927) */
} mg_sigma_spacing;

struct mg_scheduler;

/* Time steps in order of use. */
struct mg_timesteps {
    double *list;
    float *
        sigmas; /* NULL, or the noise levels of the list and the one that the last step reaches: count + 1 of them, or count + 2
                    * where they do not follow the time steps */
    int count;
    int asked; /* for */
};

struct mg_scheduler_class {
    const char *name;
    double beta_start, beta_end; /* defaults */
    const char *beta_schedule;
    mg_spacing spacing;
    bool has_clipping, clip_sample;
    bool keeps_signal;       /* zero terminal SNR leaves a cumulative alpha of 2^-24, so that sigma is finite */
    bool whole_timesteps;    /* they are integers */
    bool uses_last_estimate; /* a multistep method */
    mg_status (*read_options)(struct mg_scheduler *s, const struct mg_json *config, struct mg_err *err); /* or NULL */
    mg_status (*set_timesteps)(struct mg_timesteps *out, const struct mg_scheduler *s, int count, struct mg_err *err);
    /* For step `step` of the time steps that are set. */
    mg_status (*coefficients)(struct mg_step_coefficients *out, const struct mg_scheduler *s, int step,
                              const struct mg_step_options *options, struct mg_err *err);
    double (*init_noise_sigma)(const struct mg_scheduler *s); /* NULL: 1 */
};

struct mg_scheduler {
    mg_handle_user user;
    const struct mg_scheduler_class *class_of;
    int train_timesteps;
    mg_prediction_type prediction;
    mg_spacing spacing;
    int64_t steps_offset;
    float *alphas_cumprod;
    float final_alpha_cumprod;
    struct mg_timesteps timesteps;
    /* LCM */
    int original_inference_steps;
    double timestep_scaling;
    /* Euler and DPM-Solver */
    mg_sigma_spacing sigma_spacing;
    double sigma_min, sigma_max; /* ends of the spacing; 0: those of the time steps */
    bool sigmas_by_logarithm;    /* evenly in their logarithms over all of training, whatever the time steps */
    bool ends_at_sigma_min;      /* of training; else at 0 */
    /* DPM-Solver */
    int solver_order;
    bool is_stochastic, uses_heun, lower_order_final, euler_at_final;
    bool rounds_timesteps; /* of other spacings */
    int first_timestep;    /* of the clipped schedule, plus 1 */
};

extern const struct mg_scheduler_class mg_scheduler_ddim, mg_scheduler_lcm, mg_scheduler_euler, mg_scheduler_dpm_solver;

/* For calls that have entered the scheduler (see handle.h), or have one of their own: as mg_scheduler_set_timesteps and
 * mg_scheduler_step_coefficients. */
mg_status mg_scheduler_enter(mg_scheduler *scheduler, const void *call, struct mg_err *err);
void mg_scheduler_leave(mg_scheduler *scheduler, const void *call);
mg_status mg_schedule_set_timesteps(struct mg_scheduler *s, int num_inference_steps, struct mg_err *err);
mg_status mg_schedule_coefficients(struct mg_step_coefficients *out, const struct mg_scheduler *s, int step,
                                   const struct mg_step_options *options, struct mg_err *err);
/* As mg_scheduler_create, for training, where only the noise levels and the prediction type matter: takes other classes of
 * diffusers, too, in whose place it samples as DDIM does. */
mg_status mg_scheduler_create_levels(mg_scheduler **out, const char *config_json, size_t config_bytes,
                                     struct mg_err *err);

/* ---- options.c: scheduler_config.json ---- */
#define MG_SCHEDULER_FILE "scheduler_config.json"
/* MG_ERR_UNSUPPORTED, naming the key, its value and what is supported. */
mg_status mg_option_unsupported(const struct mg_json *config, const char *key, const char *supported,
                                struct mg_err *err);
/* The place of a text among `count` names; `fallback` where it is absent. `supported` lists them for a message. */
mg_status mg_option_choice(int *out, const struct mg_json *config, const char *key, const char *const *names, int count,
                           int fallback, const char *supported, struct mg_err *err);
mg_status mg_option_bool(bool *out, const struct mg_json *config, const char *key, bool fallback, struct mg_err *err);
/* Refuses an option that is there and neither null nor false. */
mg_status mg_option_refuse(const struct mg_json *config, const char *key, struct mg_err *err);

/* ---- levels.c ---- */
/* Fills alphas_cumprod and final_alpha_cumprod by the configuration. */
mg_status mg_levels_read(struct mg_scheduler *s, const struct mg_json *config, struct mg_err *err);
/* Algorithm 1 of arXiv 2305.08891: shifts and scales the square roots so that the last is zero and the first stays. */
void mg_rescale_to_zero_terminal_snr(float *alphas_cumprod, int count);
/* x0 = origin_sample*sample + origin_model*output and noise likewise, at cumulative alpha `alpha` of a time step: the linear maps
 * that the prediction type stands for. MG_ERR_ARGUMENT where a division by zero would be needed. */
struct mg_clean_estimate {
    float origin_sample, origin_model, noise_sample, noise_model;
};
mg_status mg_scheduler_clean_estimate(struct mg_clean_estimate *out, mg_prediction_type prediction, float alpha,
                                      int64_t timestep, struct mg_err *err);

/* ---- timesteps.c ---- */
/* Room for `count` time steps, and for num_sigmas levels if that is not 0. */
mg_status mg_timesteps_alloc(struct mg_timesteps *out, int count, int num_sigmas, struct mg_err *err);
void mg_timesteps_free(struct mg_timesteps *timesteps);
/* Whole steps from num_train down, as NumPy's arange(num_train, 0, -total / count).round() - 1, of at most `count`; those that
 * would be less than 0 are left out, as there is no noise level for them. Returns how many. */
int mg_timesteps_trailing(double *out, int num_train, int total, int count);
/* NumPy's linspace(0, last, count), from the last down. */
void mg_timesteps_linspace(double *out, double last, int count);
/* arange(count) * ratio + offset, from the last down. */
void mg_timesteps_leading(double *out, int64_t ratio, int64_t offset, int count);
/* One of the three by the scheduler's spacing, over all time steps of training. Those of linspace are not rounded. */
void mg_timesteps_by_spacing(struct mg_timesteps *out, const struct mg_scheduler *s, int count);

/* ---- sigmas.c: noise levels sigma = sqrt((1 - alpha) / alpha), of float32 as torch has them ---- */
mg_status mg_sigmas_read_options(struct mg_scheduler *s, const struct mg_json *config, struct mg_err *err);
float mg_sigma_of_training(const struct mg_scheduler *s, int timestep);
/* Of a real time step, between those of training. */
double mg_sigma_at(const struct mg_scheduler *s, double timestep);
/* The real time step with this noise level. */
double mg_timestep_of_sigma(const struct mg_scheduler *s, double sigma);
/* `count` levels from `largest` down to `smallest`, by the scheduler's spacing. */
void mg_sigmas_by_spacing(double *out, const struct mg_scheduler *s, double largest, double smallest, int count);

/* ---- lcm.c ---- */
/* What keeps a consistency model's answer at time step 0 the sample itself (arXiv 2310.04378, equation 9):
 * skip * sample + out * x0. */
struct mg_boundary {
    double skip, out;
};
struct mg_boundary mg_lcm_boundary(double timestep, double timestep_scaling);
#endif
