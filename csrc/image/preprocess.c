/* preprocess.c: a photograph as the VAE wants it, in the order of one of the two references. diffusers'
 * MarigoldImageProcessor.preprocess: to [0, 1], to three channels, 2x-1, resize, pad. prs-eth/Marigold: resize pixels
 * of 0..255 and round, then to [-1, 1]; no padding. */
#include <math.h>
#include <string.h>

#include "planes.h"

mg_status mg_preset_from_name(mg_preset *out, const char *name, struct mg_err *err) {
    static const char *const names[] = {[MG_PRESET_DIFFUSERS] = "diffusers", [MG_PRESET_PAPER] = "paper"};
    for (int i = 0; i <= MG_PRESET_PAPER; i++)
        if (!strcmp(name, names[i])) {
            *out = (mg_preset)i;
            return MG_OK;
        }
    return mg_fail(err, MG_ERR_ARGUMENT, "`preset` must be \"diffusers\" or \"paper\"; got \"%s\"", name);
}

static mg_status check_sizes(int64_t h, int64_t w, int64_t processing_resolution, int64_t vae_scale, mg_preset preset,
                             struct mg_err *err) {
    const int64_t limit = 1 << 24;
    if (vae_scale < 1 || vae_scale > limit)
        return mg_fail(err, MG_ERR_ARGUMENT, "sides cannot be padded to multiples of %lld; 1 to %lld",
                       (long long)vae_scale, (long long)limit);
    if (h < 1 || w < 1 || h > limit || w > limit)
        return mg_fail(err, MG_ERR_ARGUMENT, "an image of %lld x %lld; sides from 1 to %lld are read", (long long)w,
                       (long long)h, (long long)limit);
    if (processing_resolution < 0 || processing_resolution > limit)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "processing_resolution is %lld; it must be 0 for the image's own resolution, or positive",
                       (long long)processing_resolution);
    if (preset == MG_PRESET_DIFFUSERS && processing_resolution % vae_scale)
        return mg_fail(err, MG_ERR_ARGUMENT, "processing_resolution is %lld; it must be a multiple of %lld",
                       (long long)processing_resolution, (long long)vae_scale);
    return MG_OK;
}

/* diffusers floors the exact quotient; the paper's code truncates a product in double, which can fall just below it. */
static void resized_size(struct mg_geometry *g, int64_t processing_resolution) {
    const int64_t longest = g->h > g->w ? g->h : g->w;
    const double factor = (double)processing_resolution / (double)longest;
    g->resized_h = g->h;
    g->resized_w = g->w;
    if (processing_resolution && g->preset == MG_PRESET_PAPER) {
        g->resized_h = (int64_t)((double)g->h * factor);
        g->resized_w = (int64_t)((double)g->w * factor);
    } else if (processing_resolution) {
        g->resized_h = g->h * processing_resolution / longest;
        g->resized_w = g->w * processing_resolution / longest;
    }
}

mg_status mg_geometry_of(struct mg_geometry *out, int64_t h, int64_t w, int64_t processing_resolution,
                         int64_t vae_scale, mg_preset preset, struct mg_err *err) {
    MG_TRY(check_sizes(h, w, processing_resolution, vae_scale, preset, err));
    struct mg_geometry g = {.preset = preset, .h = h, .w = w};
    const bool pad = preset == MG_PRESET_DIFFUSERS;
    resized_size(&g, processing_resolution);
    g.padded_h = pad ? (g.resized_h + vae_scale - 1) / vae_scale * vae_scale : g.resized_h;
    g.padded_w = pad ? (g.resized_w + vae_scale - 1) / vae_scale * vae_scale : g.resized_w;
    g.latent_h = g.padded_h / vae_scale;
    g.latent_w = g.padded_w / vae_scale;
    g.output_h = pad ? g.resized_h : g.latent_h * vae_scale;
    g.output_w = pad ? g.resized_w : g.latent_w * vae_scale;
    if (!g.latent_h || !g.latent_w)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "extreme aspect ratio: an image of %lld x %lld would be resized to %lld x %lld%s", (long long)w,
                       (long long)h, (long long)g.resized_w, (long long)g.resized_h,
                       pad ? "" : ", which is less than one latent cell");
    *out = g;
    return MG_OK;
}

static mg_status check_range(const struct mg_image *image, struct mg_err *err) {
    const int64_t count = image->n * image->h * image->w * image->c;
    const float *values = image->data;
    float low = INFINITY, high = -INFINITY;
    if (image->type != MG_PIXEL_F32)
        return MG_OK;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(values[i]))
            return mg_fail(err, MG_ERR_ARGUMENT,
                           "image data must be finite: the value at row %lld, column %lld of image %lld is %g",
                           (long long)(i / image->c / image->w % image->h), (long long)(i / image->c % image->w),
                           (long long)(i / image->c / image->w / image->h), (double)values[i]);
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    if (low < 0.0f || high > 1.0f)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "image data is partially outside of the [0, 1] range: its values span [%g, %g]", (double)low,
                       (double)high);
    return MG_OK;
}

static mg_status check_image(const struct mg_image *image, const struct mg_geometry *g, mg_resample mode,
                             struct mg_err *err) {
    size_t floats;
    if (image->c != 1 && image->c != 3)
        return mg_fail(err, MG_ERR_ARGUMENT, "the image has %lld channels; 1 or 3 are read", (long long)image->c);
    if (!image->data || image->n < 1 || image->h != g->h || image->w != g->w)
        return mg_fail(err, MG_ERR_ARGUMENT, "%lld images of %lld x %lld do not fit a geometry of %lld x %lld",
                       (long long)image->n, (long long)image->w, (long long)image->h, (long long)g->w, (long long)g->h);
    if ((unsigned)mode > MG_RESAMPLE_AREA)
        return mg_fail(err, MG_ERR_ARGUMENT, "the resampling mode %d is unknown", (int)mode);
    const int64_t h = g->padded_h > g->h ? g->padded_h : g->h, w = g->padded_w > g->w ? g->padded_w : g->w;
    if (!mg_size_mul(&floats, (size_t)h, (size_t)w) || !mg_size_mul(&floats, floats, (size_t)image->n) ||
        !mg_size_mul(&floats, floats, 3 * sizeof(float)))
        return mg_fail(err, MG_ERR_MEMORY, "%lld images of %lld x %lld cannot be addressed", (long long)image->n,
                       (long long)w, (long long)h);
    return check_range(image, err);
}

/* The paper's resized pixels: 8-bit images stay 8-bit images (rounded half to even, as torch.round); all to [-1, 1]. */
static void normalise_bytes(float *x, size_t count, bool round) {
    for (size_t i = 0; i < count; i++) {
        float value = round ? rintf(x[i]) : x[i];
        value = value < 0.0f ? 0.0f : value > 255.0f ? 255.0f : value; /* bicubic overshoots */
        x[i] = value / 255.0f * 2.0f - 1.0f;
    }
}

static void pad_by_replication(float *out, const float *in, const struct mg_geometry *g, int64_t planes) {
    for (int64_t p = 0; p < planes; p++)
        for (int64_t y = 0; y < g->padded_h; y++, out += g->padded_w) {
            const float *row = in + (p * g->resized_h + (y < g->resized_h ? y : g->resized_h - 1)) * g->resized_w;
            memcpy(out, row, (size_t)g->resized_w * sizeof(float));
            for (int64_t x = g->resized_w; x < g->padded_w; x++)
                out[x] = row[g->resized_w - 1];
        }
}

mg_status mg_preprocess(float *out, const struct mg_image *image, const struct mg_geometry *geometry, mg_resample mode,
                        struct mg_err *err) {
    float *planes = NULL, *resized = NULL;
    const struct mg_geometry *g = geometry;
    const size_t count = (size_t)image->n * 3;
    const bool antialias = mode == MG_RESAMPLE_BILINEAR || mode == MG_RESAMPLE_BICUBIC;
    mg_status status;
    MG_TRY(check_image(image, g, mode, err));
    MG_TRY_GOTO(mg_alloc((void **)&planes, count * (size_t)(g->h * g->w) * sizeof(float), "the image", err));
    mg_planes_of_image(planes, image, g->preset == MG_PRESET_PAPER);
    if (g->resized_h != g->h || g->resized_w != g->w) {
        MG_TRY_GOTO(mg_alloc((void **)&resized, count * (size_t)(g->resized_h * g->resized_w) * sizeof(float),
                             "the resized image", err));
        MG_TRY_GOTO(
            mg_resize(resized, planes, image->n, 3, g->h, g->w, g->resized_h, g->resized_w, mode, antialias, err));
    }
    status = MG_OK;
    pad_by_replication(out, resized ? resized : planes, g, (int64_t)count);
    if (g->preset == MG_PRESET_PAPER)
        normalise_bytes(out, count * (size_t)(g->padded_h * g->padded_w), image->type == MG_PIXEL_U8);
done:
    mg_free(planes);
    mg_free(resized);
    return status;
}
