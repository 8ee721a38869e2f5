/* snippet.c: one snippet through the UNet, whose self-attention joins its frames, and its frames through the decoder. Calls stages.c,
 * schedule/step.c. */
#include <string.h>

#include "video.h"

static void gather(struct mg_video_call *call, int64_t first, int64_t dilation) {
    const size_t floats = call->latent_floats;
    for (int64_t i = 0; i < call->params->snippets.length; i++)
        memcpy(call->image_latents + (size_t)i * floats,
               call->params->image_latents + (size_t)(first + i * dilation) * floats, floats * sizeof(float));
}

mg_status mg_video_step(struct mg_video_call *call, int64_t first, int64_t dilation, int step, struct mg_err *err) {
    const struct mg_video_params *p = call->params;
    const struct mg_stage_key key = {.stage = MG_STAGE_DENOISE,
                                     .n = p->snippets.length,
                                     .h = p->geometry.latent_h,
                                     .w = p->geometry.latent_w,
                                     .frames = p->snippets.length};
    float timestep = (float)call->scheduler->timesteps.list[step];
    const struct mg_binding inputs[] = {
        {"timestep", &timestep}, {"image_latent", call->image_latents}, {"sample", call->sample}};
    struct mg_step_coefficients k;
    struct mg_plan *plan;
    gather(call, first, dilation);
    MG_TRY(mg_schedule_coefficients(&k, call->scheduler, step, &(struct mg_step_options){0}, err));
    MG_TRY(mg_stage_plan(&plan, call->pipeline, &key, err));
    MG_TRY(mg_plan_run(plan, inputs, 3, &(struct mg_binding){"output", call->output}, 1, err));
    mg_scheduler_step(call->sample, NULL, call->output, NULL, (size_t)p->snippets.length * call->latent_floats, &k);
    if (p->progress)
        p->progress(p->progress_user, ++call->done, call->total);
    return MG_OK;
}

mg_status mg_video_decode(float *out, struct mg_video_call *call, const float *latent, struct mg_err *err) {
    const struct mg_geometry *g = &call->params->geometry;
    const struct mg_autoencoder *vae = &call->pipeline->vae;
    const struct mg_stage_key key = {.stage = MG_STAGE_DECODE,
                                     .n = 1,
                                     .h = g->latent_h,
                                     .w = g->latent_w,
                                     .factor = (float)(1.0 / vae->scaling_factor)};
    const int64_t row = g->latent_w * vae->scale;
    MG_TRY(mg_autoencode(call->decoded, latent, call->pipeline, &key, err));
    for (int64_t y = 0; y < g->output_h; y++)
        for (int64_t x = 0; x < g->output_w; x++) {
            const float *at = call->decoded + y * row + x;
            *out++ = (at[0] + at[call->pixels] + at[2 * call->pixels]) / 3.0f;
        }
    return MG_OK;
}
