/* trainer.h: the insides of a trainer, shared by trainer.c (opening, gradients), the objectives (losses), optimizer.c (steps) and
 * train_step.c, gradient_progress.c and gradient_group.c (sums over processes). Private to pipeline and train. */
#ifndef MG_TRAINER_H
#define MG_TRAINER_H
#include <stdatomic.h>

#include "../backend/backend.h"
#include "../pipeline/pipeline.h"
#include "../schedule/scheduler.h"

/* m and v of Adam for one weight, in the layout of its master. */
struct mg_moments {
    float *m, *v;
};

/* How far the present backward pass is done with the block of gradients. */
struct mg_gradient_progress {
    bool *done;              /* by weight; NULL: nobody follows */
    size_t left;             /* weights before this one are not done, or there is one */
    _Atomic int64_t numbers; /* of the block, from its beginning; another thread reads it */
};

/* The two other sets of weights of a consistency distillation, by index as those that are trained. */
struct mg_distillation {
    struct mg_source source;            /* of the teacher */
    struct mg_weights teacher, average; /* as the training began; the moving average of those that are trained */
};

struct mg_trainer {
    mg_pipeline *pipeline;           /* of which a network is trained */
    struct mg_weights *weights;      /* those that are: of the UNet, the boosting UNet or the autoencoder */
    struct mg_trainer_params params; /* texts are not kept */
    const struct mg_objective *objective;
    const struct mg_pixel_measure *measure; /* of "e2e" */
    mg_optimizer optimizer;
    float *alphas_cumprod; /* of the noise; ending in 0 if the schedule was rescaled */
    float *moments;        /* m of all weights as their masters lie, then v; NULL before the first step */
    _Atomic int64_t steps; /* of the optimiser; other threads may ask for it */
    bool is_torn;          /* a step ended when some of the weights had moved */
    struct mg_gradient_progress progress;
    void *group;                         /* of processes whose devices sum gradients; NULL: none joined */
    struct mg_distillation distillation; /* zeros but for that objective */
};

/* ---- trainer.c ---- */
/* A batch through network and objective and back. check: NULL, or stops before the backward pass. */
mg_status mg_trainer_pass(double *loss, struct mg_trainer *trainer, const struct mg_training_batch *batch,
                          mg_status (*check)(double loss, struct mg_err *err), struct mg_err *err);

/* ---- checks.c ---- */
/* MG_ERR_ARGUMENT where gradients are not kept; MG_ERR_NOT_FINITE after a step that ended half way. */
mg_status mg_trainer_check_kept(const struct mg_trainer *trainer, struct mg_err *err);
mg_status mg_trainer_check_whole(const struct mg_trainer *trainer, struct mg_err *err);

/* ---- gradient_group.c ---- */
void mg_trainer_leave_group(mg_trainer *trainer);

/* One batch on its way through the network, NCHW. */
struct mg_training_pass {
    float *sample;    /* what the network sees: the image's latent, then those of the targets */
    float *timesteps; /* N */
    float *output;    /* what it gives */
    float *gradient;  /* of the loss by the output; until then the objective keeps here what it compares with */
    double loss;
};

/* ---- objective.c: the table of objectives ---- */
struct mg_objective {
    const char *name;
    bool trains_autoencoder; /* instead of the UNet */
    bool trains_boosting;    /* the second UNet of Marigold-HR instead */
    /* NULL, or what it needs beside the UNet, and whether it fits the checkpoint. */
    mg_status (*open)(struct mg_trainer *trainer, const struct mg_trainer_params *params, struct mg_err *err);
    /* MG_ERR_ARGUMENT where a batch does not fit. */
    mg_status (*check)(const struct mg_trainer *trainer, const struct mg_training_batch *batch, struct mg_err *err);
    /* Fills sample and timesteps. May run plans: the memory of activations is free. */
    mg_status (*prepare)(struct mg_training_pass *pass, struct mg_trainer *trainer,
                         const struct mg_training_batch *batch, struct mg_err *err);
    /* The output is there: the loss, and its gradient times the batch's weight. May run no plan. */
    mg_status (*compute_loss)(struct mg_training_pass *pass, const struct mg_trainer *trainer,
                              const struct mg_training_batch *batch, struct mg_err *err);
    void (*after_step)(struct mg_trainer *trainer); /* NULL, or asks for what follows a step of the optimiser */
    void (*close)(struct mg_trainer *trainer);      /* NULL, or undoes open; before the pipeline closes */
};
extern const struct mg_objective mg_objective_latent, mg_objective_end_to_end, mg_objective_consistency,
    mg_objective_refine, mg_objective_autoencoder;
mg_status mg_objective_from_name(const struct mg_objective **out, const char *name, struct mg_err *err);

/* ---- latents.c ---- */
/* Numbers of one sample in its image's latent, and in those of its targets. */
int64_t mg_image_latent_count(const struct mg_trainer *trainer, const struct mg_training_batch *batch);
int64_t mg_target_latent_count(const struct mg_trainer *trainer, const struct mg_training_batch *batch);
/* Refuses a batch of latents that lacks something or has pixels. */
mg_status mg_check_latents(const struct mg_trainer *trainer, const struct mg_training_batch *batch, struct mg_err *err);
/* The mean square error of what the network should give, as its scheduler predicts. */
mg_status mg_latent_loss(struct mg_training_pass *pass, const struct mg_trainer *trainer,
                         const struct mg_training_batch *batch, struct mg_err *err);
/* A target's latent mixed with the noise at the sample's time step. */
void mg_noise_target(float *out, const struct mg_trainer *trainer, const struct mg_training_batch *batch, int64_t n);
/* Fills sample (the targets' latents mixed with the noise) and timesteps. */
void mg_noise_latents(struct mg_training_pass *pass, const struct mg_trainer *trainer,
                      const struct mg_training_batch *batch);
/* An error of a difference, and its derivative. */
typedef double mg_error_measure(double *derivative, double difference);
/* The mean of the errors over the cells of the mask into pass->loss. pass->gradient holds the differences, and then the
 * gradient by them, times the batch's weight. MG_ERR_ARGUMENT: the mask has no cell. */
mg_status mg_mean_over_mask(struct mg_training_pass *pass, const struct mg_trainer *trainer,
                            const struct mg_training_batch *batch, mg_error_measure *measure, struct mg_err *err);

/* What the UNet, or other weights in its place (not NULL), makes of pass->sample, into pass->output. */
mg_status mg_estimate(struct mg_training_pass *pass, struct mg_trainer *trainer, const struct mg_training_batch *batch,
                      struct mg_weights *weights, struct mg_err *err);

/* ---- pixel_errors.c: how decoded maps are compared, a row for each task and loss ---- */
struct mg_pixel_measure {
    const char *task, *loss;
    int errors; /* of a pixel */
    /* NULL, or whether a target (its channels `pixels` apart) says anything. */
    bool (*is_known)(const float *target, int64_t pixels);
    /* 0: any truth will do; else the largest magnitude that one may have. */
    double largest_truth;
    /* NULL: a map has an error for each valid pixel; else how many it has. */
    int64_t (*count_errors)(const uint8_t *valid, int64_t h, int64_t w);
    /* The sum of the errors of one decoded map (3, h, w) over the pixels that are valid, and its gradient times `factor`, which
     * is written everywhere. target: (channels of the task, h, w). */
    double (*errors_of)(float *gradient, const float *decoded, const float *target, const uint8_t *valid, int64_t h,
                        int64_t w, double factor);
};
/* NULL: there is none. */
const struct mg_pixel_measure *mg_pixel_measure_of(const char *task, const char *loss);

/* The derivative of a magnitude; of no number: none. */
static inline double mg_sign(double x) { return x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : x; }

/* ---- gradient_matching.c ---- */
/* The sum over valid pixels of a map's absolute errors and half of how much neighbours' errors differ on four scales; slope: its
 * derivative by the error of each pixel. Both (h, w). */
double mg_matching_errors(float *slope, const float *error, const uint8_t *valid, int64_t h, int64_t w);

/* ---- sink_loss.c ---- */
/* Blocks of 5 x 5 that have a valid pixel. */
int64_t mg_sink_loss_blocks(const uint8_t *valid, int64_t h, int64_t w);
/* The sum over these blocks of the transport's cost of one map of depth, and its gradient times `factor` by the depth, written
 * everywhere. */
double mg_sink_loss(float *slope, const float *depth, const float *target, const uint8_t *valid, int64_t h, int64_t w,
                    double factor);

/* ---- optimizer.c ---- */
/* Memory for the moments, zeros; nothing if there is some. */
mg_status mg_optimizer_reserve(struct mg_trainer *trainer, struct mg_err *err);
struct mg_moments mg_optimizer_moments(const struct mg_trainer *trainer, int index);
void mg_optimizer_free(struct mg_trainer *trainer);
mg_status mg_optimizer_check_rate(double learning_rate, struct mg_err *err);
/* Of the step of that number, from 1; gradients count times gradient_factor. */
struct mg_adam mg_optimizer_adam(const struct mg_trainer *trainer, double learning_rate, int64_t step,
                                 double gradient_factor);
/* The sum of the squares of the gradient of one weight. */
double mg_optimizer_squares(const struct mg_trainer *trainer, int index, const float *gradient);
/* Moves one weight, with its moments; its gradient becomes 0. */
void mg_optimizer_update(const struct mg_trainer *trainer, int index, float *gradient, const struct mg_adam *adam);
/* mg_trainer_step of a trainer that is entered, with a rate that is checked. */
mg_status mg_optimizer_step(double *norm, struct mg_trainer *trainer, double learning_rate, struct mg_err *err);
/* All weights have moved: counts the step, and the objective follows. */
mg_status mg_optimizer_after_step(struct mg_trainer *trainer, struct mg_err *err);
/* Waits for what the backend was asked to do with parameters, and tells what failed of it. */
mg_status mg_optimizer_finish(const struct mg_trainer *trainer, struct mg_err *err);
#endif
