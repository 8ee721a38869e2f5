/* autoencode.c: images to latents and back through the VAE: whole, or in tiles where that is asked for or memory does not hold the
 * whole. Calls vae_tiles.c, stages.c, core's host_memory.c. */
#include "../core/host_memory.h"
#include "pipeline.h"

/* Part of the free memory that is left to others: to weights that are not there yet, and what does not fit between blocks. */
enum { SPARED = 8 };

mg_status mg_pipeline_set_vae_tiling(mg_pipeline *p, mg_vae_tiling tiling, int64_t tile_size, struct mg_err *err) {
    const int64_t scale = p->vae.scale, step = MG_VAE_TILE_OVERLAPS * scale;
    if (tile_size < step || tile_size % step || tile_size > MG_LARGEST_VAE_TILE)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "tiles of the VAE of %lld pixels; they must be a multiple of %lld, up to %d",
                       (long long)tile_size, (long long)step, MG_LARGEST_VAE_TILE);
    MG_TRY(mg_pipeline_enter(p, err));
    p->vae_tiling = tiling;
    p->vae_tile = tile_size / scale;
    mg_pipeline_leave(p);
    return MG_OK;
}

mg_status mg_memory_holds(bool *out, const struct mg_context *context, size_t bytes, struct mg_err *err) {
    size_t left;
    if (context->memory)
        MG_TRY(context->memory->available(&left, context, err));
    else
        left = mg_host_memory("");
    /* What activations have now is made anew. */
    *out = bytes <= left - left / SPARED + context->activation_bytes + context->workspace_bytes;
    return MG_OK;
}

static mg_status choose(bool *tiled, struct mg_pipeline *p, const struct mg_stage_key *whole, struct mg_err *err) {
    const int64_t most = p->vae_tile * (whole->stage == MG_STAGE_ENCODE ? p->vae.scale : 1);
    *tiled = p->vae_tiling != MG_VAE_TILING_OFF && (whole->h > most || whole->w > most);
    if (!*tiled || p->vae_tiling == MG_VAE_TILING_ON)
        return MG_OK;
    bool whole_fits = mg_stage_is_planned(p, whole);
    if (!whole_fits) {
        size_t needed;
        MG_TRY(mg_stage_bytes(&needed, p, whole, err));
        MG_TRY(mg_memory_holds(&whole_fits, &p->context, needed, err));
    }
    *tiled = !whole_fits;
    return MG_OK;
}

mg_status mg_autoencode_reserve(struct mg_pipeline *p, const struct mg_stage_key *whole, struct mg_err *err) {
    struct mg_stage_key key = *whole;
    struct mg_plan *plan;
    bool tiled;
    MG_TRY(choose(&tiled, p, whole, err));
    if (tiled)
        key = mg_vae_largest_tile(p, whole);
    return mg_stage_plan(&plan, p, &key, err);
}

mg_status mg_autoencode(float *out, const float *in, struct mg_pipeline *p, const struct mg_stage_key *whole,
                        struct mg_err *err) {
    struct mg_plan *plan;
    bool tiled;
    MG_TRY(choose(&tiled, p, whole, err));
    if (tiled) {
        p->vae_tiled = true;
        return mg_vae_tiles_run(out, in, p, whole, err);
    }
    MG_TRY(mg_stage_plan(&plan, p, whole, err));
    return mg_vae_plan_run(out, in, plan, whole->stage, err);
}
