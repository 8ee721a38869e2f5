/* scheduler.h: what scheduler.c (configuration, noise levels) and the two algorithms share. Private to
 * schedule, pipeline and train. */
#ifndef MG_SCHEDULER_H
#define MG_SCHEDULER_H
#include "../core/handle.h"
#include "../io/json.h"

typedef enum mg_prediction_type { MG_PREDICT_EPSILON, MG_PREDICT_SAMPLE, MG_PREDICT_V } mg_prediction_type;
typedef enum mg_spacing { MG_SPACING_LEADING, MG_SPACING_TRAILING, MG_SPACING_LINSPACE } mg_spacing;

struct mg_scheduler_class {
    const char *name;
    double beta_start, beta_end; /* defaults */
    const char *beta_schedule;
    bool clip_sample;
    mg_status (*set_timesteps)(struct mg_scheduler *s, int count, struct mg_err *err);
    mg_status (*coefficients)(struct mg_step_coefficients *out, const struct mg_scheduler *s, int64_t timestep,
                              double eta, struct mg_err *err);
};

struct mg_scheduler {
    mg_handle_user user;
    const struct mg_scheduler_class *class_of;
    int train_timesteps;
    mg_prediction_type prediction;
    mg_spacing spacing;
    int64_t steps_offset;
    int original_inference_steps; /* LCM */
    double timestep_scaling;      /* LCM */
    float *alphas_cumprod;
    float final_alpha_cumprod;
    int64_t *timesteps;
    int num_timesteps;
    int inference_steps; /* as asked for */
};

extern const struct mg_scheduler_class mg_scheduler_ddim, mg_scheduler_lcm;

/* For calls that have entered the scheduler (see handle.h), or have one of their own: as mg_scheduler_set_timesteps and
 * mg_scheduler_step_coefficients. */
mg_status mg_scheduler_enter(mg_scheduler *scheduler, const void *call, struct mg_err *err);
void mg_scheduler_leave(mg_scheduler *scheduler, const void *call);
mg_status mg_schedule_set_timesteps(struct mg_scheduler *s, int num_inference_steps, struct mg_err *err);
mg_status mg_schedule_coefficients(struct mg_step_coefficients *out, const struct mg_scheduler *s, int64_t timestep,
                                   double eta, struct mg_err *err);

/* Room for `count` time steps. */
mg_status mg_scheduler_reserve(struct mg_scheduler *s, int count, struct mg_err *err);

/* x0 = origin_sample*sample + origin_model*output and noise likewise, at cumulative alpha `alpha` of a time step: the linear maps that the
 * prediction type stands for. MG_ERR_ARGUMENT where a division by zero would be needed. */
struct mg_clean_estimate {
    float origin_sample, origin_model, noise_sample, noise_model;
};
mg_status mg_scheduler_clean_estimate(struct mg_clean_estimate *out, mg_prediction_type prediction, float alpha,
                                      int64_t timestep, struct mg_err *err);
/* As mg_scheduler_create, for training, where only the noise levels and the prediction type matter: takes other classes of
 * diffusers, too, in whose place it samples as DDIM does. */
mg_status mg_scheduler_create_levels(mg_scheduler **out, const char *config_json, size_t config_bytes,
                                     struct mg_err *err);
mg_status mg_scheduler_check_timestep(const struct mg_scheduler *s, int64_t timestep, int *index, struct mg_err *err);
#endif
