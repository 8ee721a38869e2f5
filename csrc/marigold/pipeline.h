/* pipeline.h: the insides of a pipeline, shared by model.c (opening), stages.c (planned networks) and pipeline.c (a run).
 * Private to csrc/marigold. */
#ifndef MG_PIPELINE_H
#define MG_PIPELINE_H
#include <stdatomic.h>

#include "../nn/nn.h"

/* ---- task.c: one row for each kind of map that Marigold predicts ---- */
struct mg_task {
    const char *name;        /* "depth" */
    const char *class_name;  /* of model_index.json */
    int prediction_channels; /* of one map */
    int num_targets;         /* maps for one image; 0: as many as the UNet predicts latents */
    mg_value (*head)(struct mg_graph *graph, mg_value decoded); /* (N,H,W,3) -> (N,H,W,prediction_channels) */
};
/* NULL when no row has this class name. `known` (may be NULL) receives the known class names for a message. */
const struct mg_task *mg_task_find(const char *class_name, const char **known);

/* ---- stages.c: networks planned for one size, kept for the next run of the same size ---- */
typedef enum mg_stage {
    MG_STAGE_ENCODE,  /* x -> posterior mean, scaled by `factor` */
    MG_STAGE_DENOISE, /* image latent, sample, time step, factors, (noise) -> sample of the next step */
    MG_STAGE_PREDICT, /* latent -> decoded -> the task's head */
    MG_STAGE_DECODE,  /* latent -> decoded image, unscaled: the piece */
    MG_STAGE_UNET     /* sample, time steps, text -> model output: the piece */
} mg_stage;

struct mg_stage_key {
    mg_stage stage;
    int64_t n, h, w;             /* h, w: of the latent */
    bool noise;                  /* DENOISE */
    float factor;                /* ENCODE: scaling factor, or 1 */
    int64_t text_n, text_tokens; /* UNET */
};

enum { MG_KEPT_PLANS = 12 };

struct mg_pipeline {
    struct mg_context context;
    const struct mg_task *task;
    char *class_name;
    struct mg_unet_config unet;
    struct mg_vae_config vae;
    struct mg_weights unet_weights, vae_weights;
    int64_t text_encoder_parameters;
    float *text; /* (1, text_tokens, text_channels) */
    int64_t text_tokens, text_channels;
    mg_scheduler *scheduler;
    int default_steps;
    int64_t default_resolution;
    int num_targets, vae_scale;
    struct {
        struct mg_stage_key key;
        struct mg_plan *plan;
        uint64_t used;
    } kept[MG_KEPT_PLANS];
    uint64_t clock;
    atomic_flag busy;
};

/* The plan for `key`, made now or earlier; owned by the pipeline, valid until the next call. */
mg_status mg_stage_plan(struct mg_plan **out, struct mg_pipeline *pipeline, const struct mg_stage_key *key,
                        struct mg_err *err);
void mg_stages_free(struct mg_pipeline *pipeline);
/* Declares every weight of UNet and VAE once (on the smallest graph) and checks them against the files. */
mg_status mg_stages_check_weights(struct mg_pipeline *pipeline, struct mg_err *err);

/* MG_ERR_BUSY if another thread uses the pipeline; else it is ours until mg_pipeline_leave. */
mg_status mg_pipeline_enter(struct mg_pipeline *pipeline, struct mg_err *err);
void mg_pipeline_leave(struct mg_pipeline *pipeline);
#endif
