/* pieces.c: the networks of a pipeline one by one, for work stage by stage. Calls autoencode.c, stages.c. */
#include "pipeline.h"

static mg_status code(float *out, const float *in, mg_pipeline *pipeline, const struct mg_stage_key *key,
                      struct mg_err *err) {
    MG_TRY(mg_pipeline_enter(pipeline, err));
    const mg_status status = mg_autoencode(out, in, pipeline, key, err);
    mg_pipeline_leave(pipeline);
    return status;
}

mg_status mg_pipeline_vae_encode(float *out, mg_pipeline *pipeline, const float *x, int64_t n, int64_t h, int64_t w,
                                 struct mg_err *err) {
    if (h < 1 || w < 1 || h % pipeline->vae.scale || w % pipeline->vae.scale)
        return mg_fail(err, MG_ERR_ARGUMENT, "an image of %lld x %lld; the VAE needs multiples of %d", (long long)h,
                       (long long)w, pipeline->vae.scale);
    struct mg_stage_key key = {.stage = MG_STAGE_ENCODE, .n = n, .h = h, .w = w, .factor = 1.0f};
    return code(out, x, pipeline, &key, err);
}

mg_status mg_pipeline_vae_decode(float *out, mg_pipeline *pipeline, const float *z, int64_t n, int64_t h, int64_t w,
                                 struct mg_err *err) {
    struct mg_stage_key key = {.stage = MG_STAGE_DECODE, .n = n, .h = h, .w = w, .factor = 1.0f};
    return code(out, z, pipeline, &key, err);
}

mg_status mg_pipeline_unet(float *out, mg_pipeline *pipeline, const float *sample, int64_t n, int64_t h, int64_t w,
                           const float *timesteps, const float *embedding, int64_t embedding_n, int64_t tokens,
                           struct mg_err *err) {
    struct mg_stage_key key = {
        .stage = MG_STAGE_UNET, .n = n, .h = h, .w = w, .text_n = embedding_n, .text_tokens = tokens};
    const struct mg_binding inputs[] = {
        {"sample", (void *)sample}, {"timesteps", (void *)timesteps}, {"text", (void *)embedding}};
    struct mg_plan *plan;
    MG_TRY(mg_pipeline_enter(pipeline, err));
    mg_status status = mg_stage_plan(&plan, pipeline, &key, err);
    if (status == MG_OK)
        status = mg_plan_run(plan, inputs, 3, &(struct mg_binding){"output", out}, 1, err);
    mg_pipeline_leave(pipeline);
    return status;
}
