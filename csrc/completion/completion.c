/* completion.c: metres for every pixel of a photograph from measured points of it: the image encoded, each member guided
 * (guidance.c), decoded and brought to metres and to the size of the image, and the members' median. */
#include <math.h>
#include <string.h>

#include "completion.h"

void mg_completion_params_init(struct mg_completion_params *params) {
    *params = (struct mg_completion_params){.num_inference_steps = 50,
                                            .ensemble_size = 1,
                                            .processing_resolution = 768,
                                            .latent_rate = 0.05,
                                            .affine_rate = 0.005};
}

void mg_completion_free(struct mg_completion *completion) {
    mg_free(completion->depth);
    mg_free(completion->uncertainty);
    mg_free(completion->affine);
    *completion = (struct mg_completion){0};
}

static mg_status check_pipeline(const struct mg_pipeline *p, const mg_scheduler *scheduler, struct mg_err *err) {
    const mg_dtype type = p->precision->activations;
    if (strcmp(p->task->name, "depth") || p->num_targets != 1)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: depth is completed by a checkpoint for depth, not for %s",
                       p->source.path, p->task->name);
    if (p->family->output_factor != 0.0f)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: guidance needs steps of denoising; family %s predicts in one pass",
                       p->source.path, p->family->name);
    if (!p->context.backend->trains)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "device \"%s\" has no gradients, which guidance needs",
                       p->context.backend->name);
    if ((type != MG_F32 && type != MG_BF16) || p->precision->weights != type)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "guidance needs dtype \"float32\" or \"bfloat16\", not \"%s\"",
                       p->precision->name);
    if (scheduler->class_of != &mg_scheduler_ddim)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "guidance steps by DDIMScheduler, not by %s",
                       scheduler->class_of->name);
    return MG_OK;
}

static mg_status check_params(const struct mg_completion_params *p, struct mg_err *err) {
    if (p->image.n != 1)
        return mg_fail(err, MG_ERR_ARGUMENT, "%lld images; depth is completed for one at a time",
                       (long long)p->image.n);
    if (p->ensemble_size < 1 || p->ensemble_size > MG_MAX_MEMBERS)
        return mg_fail(err, MG_ERR_ARGUMENT, "ensemble_size is %d; it must be from 1 to %d", p->ensemble_size,
                       MG_MAX_MEMBERS);
    if (!(p->latent_rate >= 0.0 && p->latent_rate < INFINITY && p->affine_rate >= 0.0 && p->affine_rate < INFINITY))
        return mg_fail(err, MG_ERR_ARGUMENT, "the learning rates are %g and %g; they must be finite and 0 or more",
                       p->latent_rate, p->affine_rate);
    return MG_OK;
}

/* ---- one call ---- */
struct call {
    const struct mg_completion_params *params;
    struct mg_geometry geometry;
    struct mg_guidance guidance;
    mg_scheduler *scheduler;
    float *sample, *near_to_far, *members; /* a latent; a map as decoded, without padding; (E, H, W) */
    int done, total;                       /* steps */
};

static mg_status encode(struct call *call, struct mg_err *err) {
    struct mg_guidance *g = &call->guidance;
    MG_TRY(mg_alloc_floats(&g->image_latent, 1, g->latent_floats, "an image latent", err));
    return mg_encode_images(g->image_latent, g->pipeline, &call->params->image, &call->geometry, MG_RESAMPLE_BILINEAR,
                            err);
}

/* Scheduler, points and memory. */
static mg_status begin(struct call *call, struct mg_pipeline *pipeline, struct mg_err *err) {
    const struct mg_completion_params *p = call->params;
    struct mg_geometry *geometry = &call->geometry;
    struct mg_guidance *g = &call->guidance;
    MG_TRY(check_params(p, err));
    MG_TRY(check_pipeline(pipeline, call->scheduler, err));
    MG_TRY(mg_geometry_of(geometry, p->image.h, p->image.w, p->processing_resolution, pipeline->vae.scale,
                          MG_PRESET_DIFFUSERS, err));
    MG_TRY(mg_schedule_set_timesteps(call->scheduler, p->num_inference_steps, err));
    call->total = p->ensemble_size * call->scheduler->timesteps.count;
    const int64_t cells = geometry->latent_h * geometry->latent_w, scale = pipeline->vae.scale;
    *g = (struct mg_guidance){.pipeline = pipeline,
                              .latent_h = geometry->latent_h,
                              .latent_w = geometry->latent_w,
                              .pixels = cells * scale * scale,
                              .latent_floats = (size_t)cells * (size_t)pipeline->vae.latent_channels,
                              .recompute = p->recompute,
                              .latent_rate = p->latent_rate,
                              .affine_rate = p->affine_rate};
    MG_TRY(mg_points_find(&g->points, p->sparse_depth, geometry, geometry->latent_w * scale, err));
    MG_TRY(mg_alloc_floats(&call->sample, 1, g->latent_floats, "a latent", err));
    MG_TRY(mg_alloc_floats(&call->near_to_far, geometry->output_h, (size_t)geometry->output_w, "a depth map", err));
    MG_TRY(mg_alloc_floats(&call->members, p->ensemble_size, (size_t)(geometry->h * geometry->w), "depth maps", err));
    MG_TRY(mg_guidance_alloc(g, err));
    MG_TRY(encode(call, err));
    return mg_guidance_choose_recompute(g, err);
}

static void tell(void *user) {
    struct call *call = user;
    if (call->params->progress)
        call->params->progress(call->params->progress_user, ++call->done, call->total);
}

/* A clean latent to metres at the size of the image. */
static mg_status decode(float *out, struct call *call, const struct mg_affine *metres, struct mg_err *err) {
    struct mg_guidance *g = &call->guidance;
    const struct mg_geometry *geometry = &call->geometry;
    const struct mg_stage_key key = {.stage = MG_STAGE_DECODE,
                                     .n = 1,
                                     .h = g->latent_h,
                                     .w = g->latent_w,
                                     .factor = (float)(1.0 / g->pipeline->vae.scaling_factor)};
    const int64_t row = geometry->latent_w * g->pipeline->vae.scale, w = geometry->output_w;
    MG_TRY(mg_autoencode(g->decoded, call->sample, g->pipeline, &key, err));
    mg_depth_head(g->decoded_gradient, g->decoded, 3, g->pixels, &g->pipeline->head);
    for (int64_t y = 0; y < geometry->output_h; y++)
        for (int64_t x = 0; x < w; x++)
            call->near_to_far[y * w + x] = (float)(metres->scale * g->decoded_gradient[y * row + x] + metres->shift);
    return mg_resize(out, call->near_to_far, 1, 1, geometry->output_h, w, geometry->h, geometry->w,
                     MG_RESAMPLE_BILINEAR, false, err);
}

static mg_status complete_members(struct mg_completion *out, struct call *call, struct mg_err *err) {
    struct mg_guidance *g = &call->guidance;
    const int64_t pixels = call->geometry.h * call->geometry.w;
    for (int member = 0; member < call->params->ensemble_size; member++) {
        struct mg_affine roots;
        memcpy(call->sample, call->params->latents + (size_t)member * g->latent_floats,
               g->latent_floats * sizeof(float));
        MG_TRY(mg_guidance_member(call->sample, &roots, g, call->scheduler, tell, call, err));
        const struct mg_affine metres = mg_points_metres(&g->points, &roots);
        out->affine[2 * member] = metres.scale;
        out->affine[2 * member + 1] = metres.shift;
        MG_TRY(decode(call->members + member * pixels, call, &metres, err));
    }
    return MG_OK;
}

/* Members are metres already: each pixel's median, and the median of the deviations from it. */
static mg_status merge(struct mg_completion *out, struct call *call, struct mg_err *err) {
    const int members = call->params->ensemble_size;
    const int64_t pixels = call->geometry.h * call->geometry.w;
    if (members == 1) {
        out->depth = call->members;
        call->members = NULL;
        return MG_OK;
    }
    MG_TRY(mg_alloc_floats(&out->depth, 1, (size_t)pixels, "a depth map", err));
    MG_TRY(mg_alloc_floats(&out->uncertainty, 1, (size_t)pixels, "uncertainty", err));
    return mg_ensemble_intrinsics(out->depth, out->uncertainty, call->members, members, pixels, MG_REDUCE_MEDIAN,
                                  call->guidance.pipeline->context.num_threads, err);
}

static mg_status complete(struct mg_completion *out, struct call *call, struct mg_pipeline *pipeline,
                          struct mg_err *err) {
    mg_status status;
    MG_TRY_GOTO(begin(call, pipeline, err));
    out->h = call->geometry.h;
    out->w = call->geometry.w;
    MG_TRY_GOTO(mg_alloc((void **)&out->affine, (size_t)call->params->ensemble_size * 2 * sizeof *out->affine,
                         "scales and shifts", err));
    MG_TRY_GOTO(complete_members(out, call, err));
    MG_TRY_GOTO(merge(out, call, err));
done:
    mg_guidance_free(&call->guidance);
    mg_free(call->sample);
    mg_free(call->near_to_far);
    mg_free(call->members);
    return status;
}

mg_status mg_pipeline_complete(struct mg_completion *out, mg_pipeline *pipeline,
                               const struct mg_completion_params *params, struct mg_err *err) {
    struct call call = {.params = params, .scheduler = params->scheduler ? params->scheduler : pipeline->scheduler};
    *out = (struct mg_completion){0};
    MG_TRY(mg_pipeline_enter(pipeline, err));
    mg_status status = params->scheduler ? mg_scheduler_enter(params->scheduler, &call, err) : MG_OK;
    if (status == MG_OK) {
        status = complete(out, &call, pipeline, err);
        if (params->scheduler)
            mg_scheduler_leave(params->scheduler, &call);
    }
    if (status != MG_OK)
        mg_completion_free(out);
    mg_pipeline_leave(pipeline);
    return status;
}
