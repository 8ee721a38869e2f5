/* pipeline.h: the insides of a pipeline, shared by model.c (opening), save.c (packing), stages.c (planned networks), run.c with denoise.c
 * and predict.c (a run) and pieces.c (its networks one by one). Private to pipeline, completion and train. */
#ifndef MG_PIPELINE_H
#define MG_PIPELINE_H
#include <stdatomic.h>

#include "family.h"
#include "source.h"

/* ---- precision.c: NULL for an unknown name ---- */
const struct mg_precision *mg_precision_of_name(const char *name);

/* ---- tasks.c: one row for each kind of map that Marigold predicts ---- */
struct mg_pipeline;

enum { MG_TASK_CLASS_NAMES = 3 };
struct mg_task {
    const char *name; /* "depth" */
    /* Of model_index.json: diffusers', prs-eth's own, and that of Marigold-HR. */
    const char *class_names[MG_TASK_CLASS_NAMES];
    int prediction_channels; /* of one map */
    int uncertainty_channels;
    int num_targets;        /* maps for one image; 0: as many as the UNet predicts latents */
    float minimum;          /* of a map; its maximum is 1 */
    bool are_directions;    /* resizing leaves vectors that are not of unit length */
    mg_reduction reduction; /* of an ensemble, where none is asked for */
    /* Decoded planes (channels, pixels) -> a map (prediction_channels, pixels). */
    void (*head)(float *out, const float *decoded, int64_t channels, int64_t pixels,
                 const struct mg_head_options *options);
    /* Maps (E, num_targets * prediction_channels, h, w) of one image to one; uncertainty may be NULL. */
    mg_status (*ensemble)(float *out, float *uncertainty, const float *maps, int64_t members, int64_t channels,
                          int64_t h, int64_t w, const struct mg_ensemble_depth_params *params, struct mg_err *err);
};
const struct mg_task *mg_task_of_class(const char *class_name);
const struct mg_task *mg_task_of_name(const char *name);
/* Every class name, or every task's name, for a message. */
const char *mg_task_class_names(void);
const char *mg_task_names(void);

/* ---- stages.c: networks planned for one size, kept for the next run of the same size ---- */
typedef enum mg_stage {
    MG_STAGE_ENCODE,           /* x -> posterior mean, scaled by `factor` */
    MG_STAGE_DENOISE,          /* image latent, sample, time step -> the UNet's output */
    MG_STAGE_DENOISE_GRADIENT, /* the same; then the output's gradient -> gradient of the sample */
    MG_STAGE_DECODE,           /* latent, times `factor` -> decoded image */
    MG_STAGE_UNET,             /* sample, time steps, text -> model output: the piece */
    MG_STAGE_TRAIN,            /* sample, time steps -> output; then its gradient -> gradients of the UNet's weights */
    MG_STAGE_ESTIMATE,         /* the same forward: what the UNet, or other weights of its kind, makes of a sample */
    MG_STAGE_DECODER_GRADIENT, /* latent -> decoded image; then its gradient -> gradient of the latent */
    MG_STAGE_ENCODER_GRADIENT  /* image -> mean and log variance; then their gradient -> gradients of the weights */
} mg_stage;

struct mg_stage_key {
    mg_stage stage;
    int64_t n, h, w; /* h, w: of the latent; ENCODE: of the image */
    bool recompute;  /* TRAIN, DECODER_GRADIENT, DENOISE_GRADIENT */
    size_t floor;    /* bytes of the activations' memory that are another plan's, which it leaves as they are */
    float factor;    /* ENCODE: scaling factor, or 1; DECODE: 1 / scaling factor, or 1 */
    int64_t text_n, text_tokens; /* UNET */
    /* NULL: the network's own. Of a UNet: those in its place (ESTIMATE), or the boosting UNet's, which is then built. */
    struct mg_weights *weights;
    int64_t frames; /* DENOISE: successive samples that are frames of one video; 0: each is by itself */
};

enum { MG_KEPT_PLANS = 12 };

/* The key of the empty prompt's embedding in a packed file's "text_encoder". */
#define MG_EMPTY_PROMPT_KEY "empty_prompt"
/* Texts of a packed file, where they say more than its model_index.json. */
#define MG_TOKENS_KEY "text_tokens"
#define MG_FAMILY_KEY "family"
#define MG_TASK_KEY "task"
#define MG_PREDICTION_KEY "prediction_type"
#define MG_BOOSTING_INPUTS_KEY "boosting_inputs"

/* The second UNet of Marigold-HR, which refines a coarse prediction. */
struct mg_boosting {
    bool is_open;
    struct mg_unet_config unet;
    struct mg_weights weights;
    mg_unet_input inputs[MG_UNET_INPUTS]; /* in the order of its channels */
};

struct mg_pipeline {
    struct mg_context context;
    const struct mg_precision *precision;
    struct mg_source source;
    struct mg_source other_vae, other_unet; /* path NULL: the network is the source's */
    const struct mg_task *task;
    const struct mg_family *family;
    struct mg_unet_config unet;
    struct mg_autoencoder vae;
    struct mg_weights unet_weights, vae_weights;
    struct mg_boosting boosting;
    mg_vae_tiling vae_tiling;
    int64_t vae_tile; /* side of a tile, in latent cells */
    bool vae_tiled;   /* whether the latest call did so */
    int64_t text_encoder_parameters;
    float *text; /* (1, text_tokens, text_channels) */
    int64_t text_tokens, text_channels;
    mg_scheduler *scheduler;
    int default_steps;
    int64_t default_resolution;
    int num_targets;
    char *class_name; /* of model_index.json */
    bool full_z;      /* its use_full_z_range */
    struct mg_head_options head;
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
/* Activations and scratch that the plan needs, without making it. */
mg_status mg_stage_bytes(size_t *out, struct mg_pipeline *pipeline, const struct mg_stage_key *key, struct mg_err *err);
/* Whether memory that is free, or is the activations' already, holds so many bytes, and some more for others. */
mg_status mg_memory_holds(bool *out, const struct mg_context *context, size_t bytes, struct mg_err *err);
/* Whether that plan was made and is kept. */
bool mg_stage_is_planned(const struct mg_pipeline *pipeline, const struct mg_stage_key *key);
void mg_stages_free(struct mg_pipeline *pipeline);
/* Chooses the layouts of all weights, as any plan of these stages does. */
mg_status mg_stages_choose_layouts(struct mg_pipeline *pipeline, struct mg_err *err);
/* Declares every weight of UNet and VAE once (on the smallest graph) and checks them against the files. */
mg_status mg_stages_check_weights(struct mg_pipeline *pipeline, struct mg_err *err);
/* Declares, checks and binds other weights for the UNet of a pipeline. */
mg_status mg_stages_bind_other_unet(struct mg_weights *weights, struct mg_pipeline *pipeline, struct mg_err *err);

/* ---- autoencode.c: n images to latents or back; `whole` is MG_STAGE_ENCODE or MG_STAGE_DECODE of all their pixels, planes go in and come out ---- */
mg_status mg_autoencode(float *out, const float *in, struct mg_pipeline *pipeline, const struct mg_stage_key *whole,
                        struct mg_err *err);
/* Plans what that will run, or the largest of its tiles. */
mg_status mg_autoencode_reserve(struct mg_pipeline *pipeline, const struct mg_stage_key *whole, struct mg_err *err);

/* ---- vae_tiles.c: the same in tiles of pipeline->vae_tile ---- */
enum { MG_VAE_TILE = 768, MG_LARGEST_VAE_TILE = 1 << 16, MG_VAE_TILE_OVERLAPS = 4 }; /* a quarter of a tile overlaps */
mg_status mg_vae_tiles_run(float *out, const float *in, struct mg_pipeline *pipeline, const struct mg_stage_key *whole,
                           struct mg_err *err);
/* The stage of the largest tile. */
struct mg_stage_key mg_vae_largest_tile(const struct mg_pipeline *pipeline, const struct mg_stage_key *whole);
/* Runs a plan of such a stage. */
mg_status mg_vae_plan_run(float *out, const float *in, struct mg_plan *plan, mg_stage stage, struct mg_err *err);

/* ---- encode.c: latents (N, latent_channels, latent_h, latent_w) of images (N, ...), one after the other ---- */
mg_status mg_encode_images(float *latents, struct mg_pipeline *pipeline, const struct mg_image *images,
                           const struct mg_geometry *geometry, mg_resample resample, struct mg_err *err);

/* ---- text.c: the embedding of the empty prompt, padded to so many tokens; 0: 2, or what a packed file has ---- */
mg_status mg_text_open(struct mg_pipeline *pipeline, int64_t tokens, struct mg_err *err);

/* ---- boosting.c ---- */
/* The order of its latents, "image,coarse,sample" or another; NULL: that one. */
mg_status mg_boosting_set_inputs(struct mg_boosting *boosting, const char *text, struct mg_err *err);
/* Opens the second UNet of the source. MG_ERR_CHECKPOINT: there is none. */
mg_status mg_boosting_open(struct mg_pipeline *pipeline, struct mg_err *err);
/* Refuses a second UNet that does not fit the first one's latents and text, or its task. */
mg_status mg_boosting_check(const struct mg_pipeline *pipeline, struct mg_err *err);
enum { MG_BOOSTING_INPUTS_TEXT = 32 };
/* The order of its latents as a text. */
void mg_boosting_inputs_text(char out[MG_BOOSTING_INPUTS_TEXT], const struct mg_boosting *boosting);

/* ---- model.c ---- */
/* Whether a weight of a text-to-image UNet is repeated where it is widened: for mg_weights.may_repeat. */
bool mg_unet_may_widen(const char *key);
/* The configuration of the network in use: of `other`, or where that has no path, of the source; `name` is its file's there. */
mg_status mg_network_config_text(const char **text, size_t *length, const char **label,
                                 const struct mg_pipeline *pipeline, const struct mg_source *other, const char *name,
                                 struct mg_arena *arena, struct mg_err *err);
/* MG_ERR_BUSY if another thread uses the pipeline; else it is ours until mg_pipeline_leave. */
mg_status mg_pipeline_enter(struct mg_pipeline *pipeline, struct mg_err *err);
void mg_pipeline_leave(struct mg_pipeline *pipeline);
#endif
