/* encode.c: images to the latents that a run, a completion and a video begin with. Calls autoencode.c, image/preprocess.c. */
#include "pipeline.h"

static mg_status encode_each(float *latents, float *x, struct mg_pipeline *p, const struct mg_image *images,
                             const struct mg_geometry *g, mg_resample resample, struct mg_err *err) {
    const size_t pixel_bytes[] = {[MG_PIXEL_U8] = 1, [MG_PIXEL_U16] = 2, [MG_PIXEL_F32] = 4};
    const size_t bytes = (size_t)(images->h * images->w * images->c) * pixel_bytes[images->type];
    const size_t latent = (size_t)(g->latent_h * g->latent_w * p->vae.latent_channels);
    const struct mg_stage_key key = {
        .stage = MG_STAGE_ENCODE, .n = 1, .h = g->padded_h, .w = g->padded_w, .factor = (float)p->vae.scaling_factor};
    for (int64_t n = 0; n < images->n; n++) {
        struct mg_image one = *images;
        one.n = 1;
        one.data = (const char *)images->data + (size_t)n * bytes;
        MG_TRY(mg_preprocess(x, &one, g, resample, err));
        MG_TRY(mg_autoencode(latents + (size_t)n * latent, x, p, &key, err));
    }
    return MG_OK;
}

mg_status mg_encode_images(float *latents, struct mg_pipeline *p, const struct mg_image *images,
                           const struct mg_geometry *g, mg_resample resample, struct mg_err *err) {
    float *x;
    MG_TRY(mg_alloc_floats(&x, p->vae.image_channels, (size_t)(g->padded_h * g->padded_w), "the resized image", err));
    const mg_status status = encode_each(latents, x, p, images, g, resample, err);
    mg_free(x);
    return status;
}

mg_status mg_pipeline_encode(float *out, mg_pipeline *pipeline, const struct mg_image *image,
                             int64_t processing_resolution, mg_resample resample, struct mg_err *err) {
    struct mg_geometry geometry;
    MG_TRY(mg_geometry_of(&geometry, image->h, image->w, processing_resolution, pipeline->vae.scale,
                          MG_PRESET_DIFFUSERS, err));
    MG_TRY(mg_pipeline_enter(pipeline, err));
    const mg_status status = mg_encode_images(out, pipeline, image, &geometry, resample, err);
    mg_pipeline_leave(pipeline);
    return status;
}
