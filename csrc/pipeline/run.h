/* run.h: what one run holds, shared by run.c, batch.c, denoise.c, refine.c and predict.c. Private to pipeline and train. */
#ifndef MG_RUN_H
#define MG_RUN_H
#include "../core/rng.h"
#include "pipeline.h"
#include "../schedule/scheduler.h"
#include "tiles.h"

/* A sample is one ensemble member of one image; sizes are in floats of one sample. */
struct mg_run {
    mg_pipeline *pipeline;
    const struct mg_run_params *params;
    struct mg_geometry geometry;
    mg_resample resample_input, resample_output;
    mg_scheduler *scheduler;
    const double *timesteps;
    int num_timesteps;
    int64_t samples;
    size_t image_floats, image_latent_floats, latent_floats, decoded_floats;
    struct mg_tiles tiles;                 /* of a refinement; else there are none */
    float *image_latents, *coarse_latents; /* (N, C, h, w); coarse_latents: of a refinement, else NULL */
    float *latents;                        /* (N*E, T*C, h, w): first noise, after the denoising loop predictions */
};

static inline bool mg_run_refines(const struct mg_run *run) { return run->params->refinement.coarse != NULL; }

/* The stages of a run: `samples` through the UNet (of a refinement a tile of them), one latent through the decoder. */
static inline struct mg_stage_key mg_denoise_key(const struct mg_run *run, int64_t samples) {
    if (mg_run_refines(run))
        return (struct mg_stage_key){.stage = MG_STAGE_DENOISE,
                                     .n = samples,
                                     .h = run->tiles.h,
                                     .w = run->tiles.w,
                                     .weights = &run->pipeline->boosting.weights};
    return (struct mg_stage_key){
        .stage = MG_STAGE_DENOISE, .n = samples, .h = run->geometry.latent_h, .w = run->geometry.latent_w};
}
static inline struct mg_stage_key mg_decode_key(const struct mg_run *run) {
    return (struct mg_stage_key){.stage = MG_STAGE_DECODE,
                                 .n = 1,
                                 .h = run->geometry.latent_h,
                                 .w = run->geometry.latent_w,
                                 .factor = (float)(1.0 / run->pipeline->vae.scaling_factor)};
}

/* refine.c: what a run with coarse maps does beside: checks its tiles and places them; makes run->coarse_latents. */
mg_status mg_refine_start(struct mg_run *run, struct mg_err *err);
mg_status mg_refine_encode(struct mg_run *run, struct mg_err *err);
/* A tile of a batch, and the weights of all tiles. Freed by mg_refine_free, also after a failure. */
struct mg_refine_buffers {
    float *image, *coarse, *sample, *output, *total;
};
mg_status mg_refine_alloc(struct mg_refine_buffers *buffers, const struct mg_run *run, int64_t batch,
                          struct mg_err *err);
void mg_refine_free(struct mg_refine_buffers *buffers);
/* Latents (count, C, h, w) of whole canvases. */
struct mg_refine_inputs {
    const float *image, *coarse, *sample;
    float timestep;
};
/* What the boosting UNet makes of a batch: every tile's output, blended. tell: called after each tile. */
mg_status mg_refine_pass(float *output, struct mg_run *run, const struct mg_refine_buffers *buffers,
                         const struct mg_refine_inputs *inputs, int64_t count, void (*tell)(void *user), void *user,
                         struct mg_err *err);

/* batch.c: samples of one pass through the UNet: as many as asked for, or as the device's memory holds. */
mg_status mg_run_choose_batch(int64_t *out, struct mg_run *run, struct mg_err *err);
/* denoise.c: makes run->latents and takes them through the schedule, in batches. */
mg_status mg_run_denoise(struct mg_run *run, struct mg_err *err);
/* predict.c: decodes run->latents, ensembles them, and gives the maps their size and layout. */
mg_status mg_run_predict(struct mg_result *out, const struct mg_run *run, struct mg_err *err);
#endif
