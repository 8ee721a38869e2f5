/* video.c: the depth of a video: each snippet denoised and decoded, all aligned with each other, and refined if that is asked for.
 * Calls snippet.c, refine.c, ensemble's alignment of snippets. */
#include <string.h>

#include "../core/host_memory.h"
#include "video.h"

void mg_video_params_init(struct mg_video_params *params) {
    static const int64_t dilations[] = {1, 25};
    *params = (struct mg_video_params){.snippets = {.length = 3, .dilations = dilations, .num_dilations = 2},
                                       .num_inference_steps = 1,
                                       .refinement_dilation = 6,
                                       .alignment_iterations = 2000};
}

static mg_status check_pipeline(const struct mg_pipeline *p, const mg_scheduler *scheduler, struct mg_err *err) {
    if (strcmp(p->task->name, "depth") || p->num_targets != 1)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: snippets of a video are aligned by depth, not by %s",
                       p->source.path, p->task->name);
    if (!p->family->joins_frames)
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       "%s: family %s predicts each image by itself; the frames of a video together are predicted by "
                       "family rollingdepth",
                       p->source.path, p->family->name);
    if (scheduler->class_of != &mg_scheduler_ddim)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "snippets of a video are denoised by DDIMScheduler, not by %s",
                       scheduler->class_of->name);
    return MG_OK;
}

static mg_status check_params(const struct mg_video_params *p, struct mg_err *err) {
    MG_TRY(mg_check_snippets(&p->snippets, err));
    if (p->refinement_steps < 0 || p->refinement_steps > 500)
        return mg_fail(err, MG_ERR_ARGUMENT, "%d steps of refinement; there may be 0 to 500", p->refinement_steps);
    if (p->refinement_dilation < 1)
        return mg_fail(err, MG_ERR_ARGUMENT, "refinement begins with a dilation of %d; it must be positive",
                       p->refinement_dilation);
    return MG_OK;
}

/* Memory, and how many passes there will be; the schedule is that of the snippets then. */
static mg_status begin(struct mg_video_call *call, struct mg_err *err) {
    const struct mg_video_params *p = call->params;
    const struct mg_geometry *g = &p->geometry;
    const struct mg_autoencoder *vae = &call->pipeline->vae;
    const int64_t cells = g->latent_h * g->latent_w, length = p->snippets.length;
    int refinement;
    MG_TRY(check_pipeline(call->pipeline, call->scheduler, err));
    MG_TRY(check_params(p, err));
    call->latent_floats = (size_t)(cells * vae->latent_channels);
    call->pixels = cells * vae->scale * vae->scale;
    MG_TRY(mg_video_refinement_passes(&refinement, call, err));
    MG_TRY(mg_schedule_set_timesteps(call->scheduler, p->num_inference_steps, err));
    call->total = (int)mg_snippets_count(&p->snippets) * call->scheduler->timesteps.count + refinement;
    MG_TRY(mg_alloc_floats(&call->image_latents, length, call->latent_floats, "image latents", err));
    MG_TRY(mg_alloc_floats(&call->sample, length, call->latent_floats, "latents", err));
    MG_TRY(mg_alloc_floats(&call->output, length, call->latent_floats, "latents", err));
    return mg_alloc_floats(&call->decoded, 3, (size_t)call->pixels, "a decoded map", err);
}

static mg_status predict_snippet(float *maps, struct mg_video_call *call, int64_t first, int64_t dilation,
                                 struct mg_err *err) {
    const struct mg_video_params *p = call->params;
    const int64_t pixels = p->geometry.output_h * p->geometry.output_w;
    for (int64_t i = 0; i < p->snippets.length; i++)
        memcpy(call->sample + (size_t)i * call->latent_floats, p->noise, call->latent_floats * sizeof(float));
    for (int step = 0; step < call->scheduler->timesteps.count; step++)
        MG_TRY(mg_video_step(call, first, dilation, step, err));
    for (int64_t i = 0; i < p->snippets.length; i++)
        MG_TRY(mg_video_decode(maps + i * pixels, call, call->sample + (size_t)i * call->latent_floats, err));
    return MG_OK;
}

static mg_status predict_snippets(float *maps, struct mg_video_call *call, struct mg_err *err) {
    const struct mg_snippets *s = &call->params->snippets;
    const int64_t pixels = call->params->geometry.output_h * call->params->geometry.output_w;
    for (int i = 0; i < s->num_dilations; i++)
        for (int64_t first = 0; first < mg_snippets_with_dilation(s, s->dilations[i]); first++) {
            MG_TRY(predict_snippet(maps, call, first, s->dilations[i], err));
            maps += s->length * pixels;
        }
    return MG_OK;
}

static mg_status align(float *out, const float *maps, struct mg_video_call *call, struct mg_err *err) {
    const struct mg_video_params *p = call->params;
    const struct mg_context *context = &call->pipeline->context;
    const size_t count = (size_t)mg_snippets_count(&p->snippets);
    struct mg_ensemble_snippets_params params;
    double *affine;
    mg_ensemble_snippets_params_init(&params);
    params.iterations = p->alignment_iterations;
    params.num_threads = context->num_threads;
    params.poll = context->poll;
    params.poll_user = context->poll_user;
    MG_TRY(mg_alloc((void **)&affine, 2 * count * sizeof *affine, "scales and shifts", err));
    const mg_status status = mg_ensemble_snippets(out, affine, affine + count, maps, &p->snippets, p->geometry.output_h,
                                                  p->geometry.output_w, &params, err);
    mg_free(affine);
    return status;
}

/* They are aligned with each other, so that all are there at once: told now, not when the first hours are over. */
static mg_status check_memory(const struct mg_video_params *p, struct mg_err *err) {
    const double maps = (double)(mg_snippets_count(&p->snippets) * p->snippets.length);
    const double bytes = maps * (double)(p->geometry.output_h * p->geometry.output_w) * sizeof(float);
    const double left = (double)mg_host_memory("");
    if (bytes <= left)
        return MG_OK;
    return mg_fail(
        err, MG_ERR_MEMORY,
        "the maps of all snippets of %lld frames take %.2f GB, and %.2f GB are free: fewer frames or dilations, or "
        "a smaller processing_resolution",
        (long long)p->snippets.frames, bytes / 1e9, left / 1e9);
}

static mg_status predict(float *out, struct mg_video_call *call, struct mg_err *err) {
    const struct mg_video_params *p = call->params;
    float *maps = NULL;
    mg_status status;
    MG_TRY_GOTO(begin(call, err));
    MG_TRY_GOTO(check_memory(p, err));
    MG_TRY_GOTO(mg_alloc_floats(&maps, mg_snippets_count(&p->snippets) * p->snippets.length,
                                (size_t)(p->geometry.output_h * p->geometry.output_w), "the maps of all snippets",
                                err));
    MG_TRY_GOTO(predict_snippets(maps, call, err));
    MG_TRY_GOTO(align(out, maps, call, err));
    mg_free(maps);
    maps = NULL;
    if (p->refinement_steps)
        MG_TRY_GOTO(mg_video_refine(out, call, err));
done:
    mg_free(maps);
    mg_free(call->image_latents);
    mg_free(call->sample);
    mg_free(call->output);
    mg_free(call->decoded);
    return status;
}

mg_status mg_pipeline_predict_video(float *out, mg_pipeline *pipeline, const struct mg_video_params *params,
                                    struct mg_err *err) {
    struct mg_video_call call = {.params = params,
                                 .pipeline = pipeline,
                                 .scheduler = params->scheduler ? params->scheduler : pipeline->scheduler};
    MG_TRY(mg_pipeline_enter(pipeline, err));
    mg_status status = params->scheduler ? mg_scheduler_enter(params->scheduler, &call, err) : MG_OK;
    if (status == MG_OK) {
        status = predict(out, &call, err);
        if (params->scheduler)
            mg_scheduler_leave(params->scheduler, &call);
    }
    mg_pipeline_leave(pipeline);
    return status;
}
