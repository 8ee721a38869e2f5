/* run.h: what one run holds, shared by run.c, batch.c, denoise.c and predict.c. Private to pipeline and train. */
#ifndef MG_RUN_H
#define MG_RUN_H
#include "../core/rng.h"
#include "pipeline.h"
#include "../schedule/scheduler.h"

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
    float *image_latents; /* (N, C, h, w) */
    float *latents;       /* (N*E, T*C, h, w): first noise, after the denoising loop predictions */
};

/* The stages of a run: `samples` through the UNet, one latent through the decoder. */
static inline struct mg_stage_key mg_denoise_key(const struct mg_run *run, int64_t samples) {
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

/* batch.c: samples of one pass through the UNet: as many as asked for, or as the device's memory holds. */
mg_status mg_run_choose_batch(int64_t *out, struct mg_run *run, struct mg_err *err);
/* denoise.c: makes run->latents and takes them through the schedule, in batches. */
mg_status mg_run_denoise(struct mg_run *run, struct mg_err *err);
/* predict.c: decodes run->latents, ensembles them, and gives the maps their size and layout. */
mg_status mg_run_predict(struct mg_result *out, const struct mg_run *run, struct mg_err *err);
#endif
