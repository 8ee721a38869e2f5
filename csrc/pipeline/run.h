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
    const int64_t *timesteps;
    int num_timesteps;
    int64_t samples;
    size_t image_floats, image_latent_floats, latent_floats, prediction_floats;
    float *image_latents; /* (N, C, h, w) */
    float *latents;       /* (N*E, T*C, h, w): first noise, after the denoising loop predictions */
};

/* batch.c: samples of one pass through the UNet: as many as asked for, or as the device's memory holds. */
mg_status mg_run_choose_batch(int64_t *out, struct mg_run *run, struct mg_err *err);
/* denoise.c: makes run->latents and takes them through the schedule, in batches. */
mg_status mg_run_denoise(struct mg_run *run, struct mg_err *err);
/* predict.c: decodes run->latents, ensembles them, and gives the maps their size and layout. */
mg_status mg_run_predict(struct mg_result *out, const struct mg_run *run, struct mg_err *err);
#endif
