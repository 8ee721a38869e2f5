/* refine.c: the aligned video encoded, made half noise again and denoised in steps, each over snippets of a smaller dilation: from far
 * apart to neighbours. Where snippets share a frame, its next latent is their mean. Calls snippet.c, stages.c. */
#include <math.h>
#include <string.h>

#include "video.h"

/* The schedule has twice as many steps as are taken: its second half. */
static int first_step(const struct mg_video_call *call) { return call->scheduler->timesteps.count / 2; }

/* In float, and truncated, as the authors' code goes down; no more than lets every frame be in a snippet. */
static int64_t dilation_of(const struct mg_video_call *call, int step) {
    const struct mg_video_params *p = call->params;
    const int first = first_step(call), steps = call->scheduler->timesteps.count - first;
    const int64_t gap = (int64_t)((1.0 - (double)(step - first) / steps) * (double)(p->refinement_dilation - 1));
    const int64_t most = p->snippets.frames / p->snippets.length - 1;
    return 1 + (gap < most ? gap : most);
}

mg_status mg_video_refinement_passes(int *out, struct mg_video_call *call, struct mg_err *err) {
    const struct mg_video_params *p = call->params;
    *out = 0;
    if (!p->refinement_steps)
        return MG_OK;
    MG_TRY(mg_schedule_set_timesteps(call->scheduler, 2 * p->refinement_steps, err));
    for (int step = first_step(call); step < call->scheduler->timesteps.count; step++)
        *out += (int)mg_snippets_with_dilation(&p->snippets, dilation_of(call, step));
    return MG_OK;
}

/* Depth in [0, 1] as the VAE takes images: three channels in [-1, 1], the padding a repetition of the border. */
static void fill_image(float *image, const float *depth, const struct mg_geometry *g) {
    const int64_t plane = g->padded_h * g->padded_w;
    for (int64_t y = 0; y < g->padded_h; y++)
        for (int64_t x = 0; x < g->padded_w; x++) {
            const int64_t row = y < g->output_h ? y : g->output_h - 1, column = x < g->output_w ? x : g->output_w - 1;
            const float value = 2.0f * depth[row * g->output_w + column] - 1.0f;
            for (int c = 0; c < 3; c++)
                image[c * plane + y * g->padded_w + x] = value;
        }
}

static mg_status encode_with_noise(float *latents, const float *depth, struct mg_video_call *call, struct mg_err *err) {
    const struct mg_video_params *p = call->params;
    const struct mg_geometry *g = &p->geometry;
    const struct mg_stage_key key = {.stage = MG_STAGE_ENCODE,
                                     .n = 1,
                                     .h = g->padded_h,
                                     .w = g->padded_w,
                                     .factor = (float)call->pipeline->vae.scaling_factor};
    const double alpha = call->scheduler->alphas_cumprod[(int64_t)call->scheduler->timesteps.list[first_step(call)]];
    const float kept = (float)sqrt(alpha), added = (float)sqrt(1.0 - alpha);
    float *image;
    mg_status status = MG_OK;
    MG_TRY(mg_alloc_floats(&image, 3, (size_t)(g->padded_h * g->padded_w), "a depth map", err));
    for (int64_t frame = 0; frame < p->snippets.frames && status == MG_OK; frame++) {
        float *latent = latents + (size_t)frame * call->latent_floats;
        fill_image(image, depth + frame * g->output_h * g->output_w, g);
        status = mg_autoencode(latent, image, call->pipeline, &key, err);
        for (size_t i = 0; i < call->latent_floats && status == MG_OK; i++)
            latent[i] = kept * latent[i] + added * p->noise[i];
    }
    mg_free(image);
    return status;
}

/* `next` becomes the mean, over the snippets that have a frame, of its latent after the step; counts: frames. */
static mg_status refine_step(float *next, int *counts, const float *latents, struct mg_video_call *call, int step,
                             struct mg_err *err) {
    const struct mg_snippets *s = &call->params->snippets;
    const int64_t dilation = dilation_of(call, step), snippets = mg_snippets_with_dilation(s, dilation);
    const size_t floats = call->latent_floats;
    memset(next, 0, (size_t)s->frames * floats * sizeof *next);
    memset(counts, 0, (size_t)s->frames * sizeof *counts);
    for (int64_t first = 0; first < snippets; first++) {
        for (int64_t i = 0; i < s->length; i++)
            memcpy(call->sample + (size_t)i * floats, latents + (size_t)(first + i * dilation) * floats,
                   floats * sizeof(float));
        MG_TRY(mg_video_step(call, first, dilation, step, err));
        for (int64_t i = 0; i < s->length; i++) {
            const int64_t frame = first + i * dilation;
            counts[frame]++;
            for (size_t j = 0; j < floats; j++)
                next[(size_t)frame * floats + j] += call->sample[(size_t)i * floats + j];
        }
    }
    for (int64_t frame = 0; frame < s->frames; frame++)
        for (size_t j = 0; j < floats; j++)
            next[(size_t)frame * floats + j] /= (float)counts[frame];
    return MG_OK;
}

static mg_status denoise(float **latents, float **next, int *counts, struct mg_video_call *call, struct mg_err *err) {
    for (int step = first_step(call); step < call->scheduler->timesteps.count; step++) {
        MG_TRY(refine_step(*next, counts, *latents, call, step, err));
        float *old = *latents;
        *latents = *next;
        *next = old;
    }
    return MG_OK;
}

/* Clipped only here, at the end: nothing else of the method clips. */
static mg_status decode_all(float *depth, const float *latents, struct mg_video_call *call, struct mg_err *err) {
    const struct mg_geometry *g = &call->params->geometry;
    const int64_t pixels = g->output_h * g->output_w;
    for (int64_t frame = 0; frame < call->params->snippets.frames; frame++) {
        float *map = depth + frame * pixels;
        MG_TRY(mg_video_decode(map, call, latents + (size_t)frame * call->latent_floats, err));
        for (int64_t i = 0; i < pixels; i++)
            map[i] = fminf(fmaxf((map[i] + 1.0f) * 0.5f, 0.0f), 1.0f);
    }
    return MG_OK;
}

mg_status mg_video_refine(float *depth, struct mg_video_call *call, struct mg_err *err) {
    const int64_t frames = call->params->snippets.frames;
    float *latents = NULL, *next = NULL;
    int *counts = NULL;
    mg_status status;
    MG_TRY_GOTO(mg_schedule_set_timesteps(call->scheduler, 2 * call->params->refinement_steps, err));
    MG_TRY_GOTO(mg_alloc_floats(&latents, frames, call->latent_floats, "latents", err));
    MG_TRY_GOTO(mg_alloc_floats(&next, frames, call->latent_floats, "latents", err));
    MG_TRY_GOTO(mg_alloc((void **)&counts, (size_t)frames * sizeof *counts, "counts of snippets", err));
    MG_TRY_GOTO(encode_with_noise(latents, depth, call, err));
    MG_TRY_GOTO(denoise(&latents, &next, counts, call, err));
    MG_TRY_GOTO(decode_all(depth, latents, call, err));
done:
    mg_free(latents);
    mg_free(next);
    mg_free(counts);
    return status;
}
