/* trainer.h: the insides of a trainer, shared by trainer.c (opening, gradients), objective.c (losses), optimizer.c (steps) and
 * gradient_progress.c (sums over processes). Private to csrc/marigold. */
#ifndef MG_TRAINER_H
#define MG_TRAINER_H
#include <stdatomic.h>

#include "pipeline.h"
#include "scheduler.h"

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

struct mg_trainer {
    mg_pipeline *pipeline;           /* of which the UNet is trained */
    struct mg_trainer_params params; /* texts are not kept */
    mg_optimizer optimizer;
    float *alphas_cumprod; /* of the noise; ending in 0 if the schedule was rescaled */
    float *moments;        /* m of all weights as their gradients lie, then v; NULL before the first step */
    int64_t steps;         /* of the optimiser */
    struct mg_gradient_progress progress;
};

/* ---- objective.c ---- */
/* What the network sees and should give for one batch, NCHW; `sample` begins with the image's latent. */
void mg_objective_noise(float *sample, float *target, const struct mg_trainer *trainer,
                        const struct mg_training_batch *batch);
/* The mean over the cells of the mask of (output - target)^2, and its gradient times `weight` into `target`.
 * MG_ERR_ARGUMENT: the mask has no cell. */
mg_status mg_objective_loss(double *loss, float *target, const float *output, const struct mg_training_batch *batch,
                            int64_t channels, struct mg_err *err);

/* ---- optimizer.c ---- */
/* Memory for the moments, zeros; nothing if there is some. */
mg_status mg_optimizer_reserve(struct mg_trainer *trainer, struct mg_err *err);
struct mg_moments mg_optimizer_moments(const struct mg_trainer *trainer, int index);
void mg_optimizer_free(struct mg_trainer *trainer);
#endif
