/* refine.c: a refinement's part of a run: the coarse maps encoded, and one pass of the boosting UNet over a batch, tile by tile, the
 * outputs blended. Calls encode.c, tiles.c, stages.c. */
#include <string.h>

#include "run.h"

static mg_status check_pixels(const char *name, int64_t pixels, int64_t least, int64_t scale, struct mg_err *err) {
    if (pixels < least || pixels % scale)
        return mg_fail(err, MG_ERR_ARGUMENT, "%s is %lld; it must be a multiple of %lld, and %lld or more", name,
                       (long long)pixels, (long long)scale, (long long)least);
    return MG_OK;
}

mg_status mg_refine_start(struct mg_run *run, struct mg_err *err) {
    const struct mg_refinement *r = &run->params->refinement;
    const mg_pipeline *p = run->pipeline;
    const int64_t scale = p->vae.scale, half = r->tile_size / (2 * scale) * scale;
    const int64_t overlap = r->tile_overlap == -1 ? half : r->tile_overlap;
    if (!p->boosting.is_open)
        return mg_fail(err, MG_ERR_ARGUMENT, "%s was opened without its boosting_unet, which refines", p->source.path);
    MG_TRY(check_pixels("tile_size", r->tile_size, scale, scale, err));
    MG_TRY(check_pixels("tile_overlap", overlap, 0, scale, err));
    if (overlap >= r->tile_size)
        return mg_fail(err, MG_ERR_ARGUMENT, "tile_overlap is %lld; it must be less than tile_size, %lld",
                       (long long)overlap, (long long)r->tile_size);
    run->tiles = mg_tiles_of(run->geometry.latent_h, run->geometry.latent_w, r->tile_size / scale, overlap / scale);
    return MG_OK;
}

/* A coarse map is enlarged, repeated in three channels and padded as a grey image is. */
mg_status mg_refine_encode(struct mg_run *run, struct mg_err *err) {
    const struct mg_refinement *r = &run->params->refinement;
    struct mg_geometry geometry = run->geometry;
    geometry.h = r->coarse_h;
    geometry.w = r->coarse_w;
    const struct mg_image maps = {
        .data = r->coarse, .type = MG_PIXEL_F32, .n = run->params->image.n, .h = r->coarse_h, .w = r->coarse_w, .c = 1};
    MG_TRY(mg_alloc_floats(&run->coarse_latents, maps.n, run->image_latent_floats, "coarse latents", err));
    return mg_encode_images(run->coarse_latents, run->pipeline, &maps, &geometry, MG_RESAMPLE_BILINEAR, err);
}

mg_status mg_refine_alloc(struct mg_refine_buffers *b, const struct mg_run *run, int64_t batch, struct mg_err *err) {
    const size_t cells = (size_t)(run->tiles.h * run->tiles.w);
    const int64_t image = batch * run->pipeline->vae.latent_channels;
    const int64_t sample = batch * run->pipeline->unet.out_channels;
    MG_TRY(mg_alloc_floats(&b->image, image, cells, "a tile", err));
    MG_TRY(mg_alloc_floats(&b->coarse, image, cells, "a tile", err));
    MG_TRY(mg_alloc_floats(&b->sample, sample, cells, "a tile", err));
    MG_TRY(mg_alloc_floats(&b->output, sample, cells, "a tile", err));
    MG_TRY(mg_alloc_floats(&b->total, run->tiles.canvas_h, (size_t)run->tiles.canvas_w, "weights of tiles", err));
    mg_tiles_weigh(b->total, &run->tiles);
    return MG_OK;
}

void mg_refine_free(struct mg_refine_buffers *b) {
    mg_free(b->image);
    mg_free(b->coarse);
    mg_free(b->sample);
    mg_free(b->output);
    mg_free(b->total);
}

mg_status mg_refine_pass(float *output, struct mg_run *run, const struct mg_refine_buffers *b,
                         const struct mg_refine_inputs *in, int64_t count, void (*tell)(void *user), void *user,
                         struct mg_err *err) {
    const struct mg_stage_key key = mg_denoise_key(run, count);
    const struct mg_tiles *tiles = &run->tiles;
    const int64_t image = count * run->pipeline->vae.latent_channels;
    const int64_t sample = count * run->pipeline->unet.out_channels;
    float timestep = in->timestep;
    struct mg_plan *plan;
    MG_TRY(mg_stage_plan(&plan, run->pipeline, &key, err));
    memset(output, 0, (size_t)count * run->latent_floats * sizeof *output);
    for (int64_t tile = 0; tile < mg_tiles_count(tiles); tile++) {
        mg_tile_cut(b->image, in->image, image, tiles, tile);
        mg_tile_cut(b->coarse, in->coarse, image, tiles, tile);
        mg_tile_cut(b->sample, in->sample, sample, tiles, tile);
        const struct mg_binding inputs[] = {
            {"timestep", &timestep}, {"image_latent", b->image}, {"coarse_latent", b->coarse}, {"sample", b->sample}};
        MG_TRY(mg_plan_run(plan, inputs, 4, &(struct mg_binding){"output", b->output}, 1, err));
        mg_tile_blend(output, b->output, sample, b->total, tiles, tile);
        tell(user);
    }
    return MG_OK;
}
