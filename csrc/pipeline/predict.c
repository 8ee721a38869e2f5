/* predict.c: latents to maps: decoded one by one, padding cut off, ensembled image by image, resized to the input,
 * channels last. */
#include <math.h>
#include <string.h>

#include "../image/planes.h"
#include "run.h"

/* Sizes of one image's maps; planes are h x w. */
struct maps {
    int64_t members, targets, channels, uncertainty_channels;
    int64_t h, w;         /* as decoded, without padding */
    int64_t out_h, out_w; /* as delivered */
};

static struct maps maps_of(const struct mg_run *run) {
    const struct mg_geometry *g = &run->geometry;
    const struct mg_task *task = run->pipeline->task;
    const bool match = run->params->match_input_resolution;
    return (struct maps){.members = run->params->ensemble_size,
                         .targets = run->pipeline->num_targets,
                         .channels = task->prediction_channels,
                         .uncertainty_channels = task->uncertainty_channels,
                         .h = g->output_h,
                         .w = g->output_w,
                         .out_h = match ? g->h : g->output_h,
                         .out_w = match ? g->w : g->output_w};
}

struct buffers {
    float *decoded;               /* one image as decoded, with padding */
    float *cropped;               /* the same without */
    float *members;               /* (E, T, C, h, w) */
    float *ensembled, *deviation; /* (T, C, h, w); NULL without ensembling, without uncertainty */
};

/* ---- decode ---- */
static void crop(float *out, int64_t h, int64_t w, const float *in, int64_t in_h, int64_t in_w, int64_t planes) {
    for (int64_t c = 0; c < planes; c++)
        for (int64_t y = 0; y < h; y++)
            memcpy(out + (c * h + y) * w, in + (c * in_h + y) * in_w, (size_t)w * sizeof(float));
}

/* Decodes the members of one image into out (E, T, C, h, w). */
static mg_status decode_image(float *out, struct buffers *b, const struct mg_run *run, const struct maps *m,
                              int64_t image, struct mg_err *err) {
    const struct mg_geometry *g = &run->geometry;
    const struct mg_pipeline *p = run->pipeline;
    const struct mg_stage_key key = mg_decode_key(run);
    const size_t target_latent = run->latent_floats / (size_t)m->targets;
    const float *latents = run->latents + (size_t)(image * m->members) * run->latent_floats;
    const int64_t scale = p->vae.scale, channels = p->vae.image_channels;
    for (int64_t i = 0; i < m->members * m->targets; i++) {
        MG_TRY(mg_autoencode(b->decoded, latents + (size_t)i * target_latent, run->pipeline, &key, err));
        crop(b->cropped, m->h, m->w, b->decoded, g->latent_h * scale, g->latent_w * scale, channels);
        p->task->head(out + i * m->channels * m->h * m->w, b->cropped, channels, m->h * m->w, &p->head);
    }
    return MG_OK;
}

/* ---- resize and lay out ---- */
static void clip(float *x, int64_t count, float minimum) {
    for (int64_t i = 0; i < count; i++)
        x[i] = x[i] < minimum ? minimum : x[i] > 1.0f ? 1.0f : x[i];
}

/* planes (3, pixels), each vector to unit length. */
static void normalise_directions(float *x, int64_t pixels) {
    for (int64_t i = 0; i < pixels; i++) {
        float *nx = x + i, *ny = nx + pixels, *nz = ny + pixels;
        float length = sqrtf(*nx * *nx + *ny * *ny + *nz * *nz), divisor = length < 1e-6f ? 1e-6f : length;
        *nx /= divisor;
        *ny /= divisor;
        *nz /= divisor;
    }
}

/* maps (T, channels, h, w) -> out (T, out_h, out_w, channels). `predictions` tells maps from their uncertainty. */
static mg_status deliver(float *out, const float *maps, const struct mg_run *run, const struct maps *m,
                         int64_t channels, bool predictions, struct mg_err *err) {
    const struct mg_task *task = run->pipeline->task;
    const bool paper = run->geometry.preset == MG_PRESET_PAPER, match = run->params->match_input_resolution;
    const bool smooth = run->resample_output == MG_RESAMPLE_BILINEAR || run->resample_output == MG_RESAMPLE_BICUBIC;
    const int64_t pixels = m->out_h * m->out_w;
    float *full = NULL;
    mg_status status;
    MG_TRY_GOTO(mg_alloc_floats(&full, channels, (size_t)pixels, "predictions", err));
    for (int64_t t = 0; t < m->targets; t++) {
        const float *map = maps + t * channels * m->h * m->w;
        if (match)
            MG_TRY_GOTO(mg_resize(full, map, 1, channels, m->h, m->w, m->out_h, m->out_w, run->resample_output,
                                  paper && smooth, err));
        else
            memcpy(full, map, (size_t)(channels * pixels) * sizeof(float));
        if (predictions && paper)
            clip(full, channels * pixels, task->minimum);
        else if (predictions && match && task->are_directions)
            normalise_directions(full, pixels);
        mg_pixels_of_planes(out + t * pixels * channels, full, channels, pixels);
    }
    status = MG_OK;
done:
    mg_free(full);
    return status;
}

/* ---- one image, all images ---- */
static mg_status alloc_buffers(struct buffers *b, const struct mg_run *run, const struct maps *m, struct mg_err *err) {
    const size_t pixels = (size_t)(m->h * m->w);
    MG_TRY(mg_alloc_floats(&b->decoded, 1, run->decoded_floats, "a decoded image", err));
    MG_TRY(mg_alloc_floats(&b->cropped, run->pipeline->vae.image_channels, pixels, "a decoded image", err));
    MG_TRY(mg_alloc_floats(&b->members, m->members * m->targets * m->channels, pixels, "predictions", err));
    if (m->members > 1)
        MG_TRY(mg_alloc_floats(&b->ensembled, m->targets * m->channels, pixels, "ensembled predictions", err));
    if (run->params->output_uncertainty)
        MG_TRY(mg_alloc_floats(&b->deviation, m->targets * m->uncertainty_channels, pixels, "uncertainty", err));
    return MG_OK;
}

static mg_status predict_image(struct mg_result *out, struct buffers *b, const struct mg_run *run, const struct maps *m,
                               int64_t image, struct mg_err *err) {
    const int64_t pixels = m->out_h * m->out_w;
    const float *final = b->members;
    MG_TRY(decode_image(b->members, b, run, m, image, err));
    if (m->members > 1) {
        struct mg_ensemble_depth_params params = run->params->ensemble;
        params.num_threads = run->pipeline->context.num_threads;
        params.poll = run->pipeline->context.poll;
        params.poll_user = run->pipeline->context.poll_user;
        if (params.reduction == MG_REDUCE_DEFAULT)
            params.reduction = run->pipeline->task->reduction;
        MG_TRY(run->pipeline->task->ensemble(b->ensembled, b->deviation, b->members, m->members,
                                             m->targets * m->channels, m->h, m->w, &params, err));
        final = b->ensembled;
    }
    MG_TRY(deliver(out->prediction + image * m->targets * m->channels * pixels, final, run, m, m->channels, true, err));
    if (out->uncertainty)
        MG_TRY(deliver(out->uncertainty + image * m->targets * m->uncertainty_channels * pixels, b->deviation, run, m,
                       m->uncertainty_channels, false, err));
    return MG_OK;
}

mg_status mg_run_predict(struct mg_result *out, const struct mg_run *run, struct mg_err *err) {
    const struct maps m = maps_of(run);
    const int64_t images = run->params->image.n, maps = images * m.targets;
    const size_t pixels = (size_t)(m.out_h * m.out_w);
    struct buffers b = {0};
    mg_status status;
    MG_TRY_GOTO(alloc_buffers(&b, run, &m, err));
    MG_TRY_GOTO(mg_alloc_floats(&out->prediction, maps * m.channels, pixels, "predictions", err));
    memcpy(out->prediction_shape, (int64_t[4]){maps, m.out_h, m.out_w, m.channels}, sizeof out->prediction_shape);
    if (run->params->output_uncertainty) {
        MG_TRY_GOTO(mg_alloc_floats(&out->uncertainty, maps * m.uncertainty_channels, pixels, "uncertainty", err));
        memcpy(out->uncertainty_shape, (int64_t[4]){maps, m.out_h, m.out_w, m.uncertainty_channels},
               sizeof out->uncertainty_shape);
    }
    for (int64_t image = 0; image < images; image++)
        MG_TRY_GOTO(predict_image(out, &b, run, &m, image, err));
done:
    mg_free(b.decoded);
    mg_free(b.cropped);
    mg_free(b.members);
    mg_free(b.ensembled);
    mg_free(b.deviation);
    return status;
}
