/* completion.h: what the files of this room share. Depth completion by guidance (Marigold-DC, arXiv 2412.13389): while a depth map is
 * denoised, each step's preview of it, decoded, is compared with the measured points, and the gradient of that moves the latent,
 * a scale and a shift. points.c has the points, guidance.c the gradient and the steps of one member, completion.c the whole.
 * Private to completion. */
#ifndef MG_COMPLETION_H
#define MG_COMPLETION_H
#include "../pipeline/pipeline.h"
#include "../schedule/scheduler.h"

/* A measured point, and where it is in a decoded image: between four pixels, as bilinear resizing without antialiasing has it. */
struct mg_point {
    int64_t at[4];
    double share[4];
    double metres;
};

struct mg_points {
    struct mg_point *list;
    int64_t count;
    double nearest, farthest; /* metres */
};

/* metres = scale^2 (farthest - nearest) * depth + shift^2 nearest, depth in [0, 1]: so both stay positive. */
struct mg_affine {
    double scale, shift;
};

/* ---- points.c ---- */
/* The points of a map (H, W) of the geometry's image. decoded_w: of a decoded row, with its padding. MG_ERR_ARGUMENT: no two points,
 * all at one depth, a depth that is negative or not finite. The list is to be freed. */
mg_status mg_points_find(struct mg_points *out, const float *sparse_depth, const struct mg_geometry *geometry,
                         int64_t decoded_w, struct mg_err *err);
/* The factor and the offset from depth in [0, 1] to metres. */
struct mg_affine mg_points_metres(const struct mg_points *points, const struct mg_affine *roots);
/* mean |e| + mean e^2 of the points of a decoded image, planes (3, pixels), and its gradients, those by the image everywhere. */
double mg_points_loss(float *gradient, struct mg_affine *by_roots, const float *decoded, int64_t pixels,
                      const struct mg_points *points, const struct mg_affine *roots);

/* ---- guidance.c ---- */
/* What the steps of all members share. */
struct mg_guidance {
    struct mg_pipeline *pipeline;
    struct mg_points points;
    int64_t latent_h, latent_w, pixels; /* pixels: of a decoded image */
    size_t latent_floats;
    mg_recompute recompute;
    double latent_rate, affine_rate; /* of Adam */
    float *image_latent;
    float *decoded, *decoded_gradient;      /* (3, pixels) */
    float *output, *preview, *from_preview; /* latents: the network's output, the clean estimate, the gradient by it */
    float *gradient;                        /* by the noisy latent */
    float *m, *v;                           /* Adam's moments of it */
};

/* What one preview says. */
struct mg_preview_loss {
    double loss;
    struct mg_affine by_roots;
};

/* Memory for latents of that size; freed by mg_guidance_free, also after a failure. */
mg_status mg_guidance_alloc(struct mg_guidance *g, struct mg_err *err);
void mg_guidance_free(struct mg_guidance *g);
/* Instead of MG_RECOMPUTE_AUTO, the first of the others that memory holds. */
mg_status mg_guidance_choose_recompute(struct mg_guidance *g, struct mg_err *err);
/* guidance->output and guidance->gradient, and the loss of the preview at a time step. */
mg_status mg_guidance_gradient(struct mg_preview_loss *out, struct mg_guidance *g, const float *sample,
                               const struct mg_affine *roots, float timestep, const struct mg_clean_estimate *estimate,
                               struct mg_err *err);
/* Takes one member from noise to a clean latent along the scheduler's time steps; roots begin at 1. tell: NULL, or called after
 * each step. */
mg_status mg_guidance_member(float *sample, struct mg_affine *roots, struct mg_guidance *g,
                             const mg_scheduler *scheduler, void (*tell)(void *user), void *user, struct mg_err *err);
#endif
