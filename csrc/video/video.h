/* video.h: what the files of this room share. Depth of a video by RollingDepth (arXiv 2411.19189): video.c is the whole call,
 * snippet.c passes one snippet through the networks, refine.c denoises the aligned video once more. Private to video. */
#ifndef MG_VIDEO_H
#define MG_VIDEO_H
#include "../pipeline/pipeline.h"
#include "../schedule/scheduler.h"

struct mg_video_call {
    const struct mg_video_params *params;
    struct mg_pipeline *pipeline;
    mg_scheduler *scheduler;
    size_t latent_floats;                   /* of a frame */
    int64_t pixels;                         /* of a decoded image, with its padding */
    float *image_latents, *sample, *output; /* of the frames of a snippet */
    float *decoded;                         /* (3, pixels) */
    int done, total;                        /* passes of the UNet */
};

/* ---- snippet.c ---- */
/* The UNet's output for a snippet, call->output, of call->sample; then the step of the schedule, which changes the sample. */
mg_status mg_video_step(struct mg_video_call *call, int64_t first, int64_t dilation, int step, struct mg_err *err);
/* A latent to the mean of the decoded channels, unclipped, (output_h, output_w). */
mg_status mg_video_decode(float *out, struct mg_video_call *call, const float *latent, struct mg_err *err);

/* ---- refine.c ---- */
/* How many passes of the UNet it takes; sets the scheduler's time steps. */
mg_status mg_video_refinement_passes(int *out, struct mg_video_call *call, struct mg_err *err);
/* depth (frames, output_h, output_w) in [0, 1], in place. */
mg_status mg_video_refine(float *depth, struct mg_video_call *call, struct mg_err *err);
#endif
