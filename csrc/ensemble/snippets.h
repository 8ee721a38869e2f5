/* snippets.h: which maps show which frames of a video. Private to ensemble. */
#ifndef MG_SNIPPETS_OF_FRAMES_H
#define MG_SNIPPETS_OF_FRAMES_H
#include "../core/core.h"

/* One map of a frame: of snippet `snippet`, of all dilations one after the other; it is map `map` of all. */
struct mg_frame_map {
    int64_t snippet, map;
};

/* The maps of a frame, at most num_dilations * length of them, in the order of dilations and positions. Returns how many. */
int64_t mg_snippets_of_frame(struct mg_frame_map *out, const struct mg_snippets *snippets, int64_t frame);

/* ---- align_snippets.c ---- */
/* Scale and shift of every snippet; samples (maps, stride), of which `pixels` of each count and the rest is zero. */
mg_status mg_align_snippets(double *scale, double *shift, const double *samples, int64_t pixels, int64_t stride,
                            const struct mg_snippets *snippets, const struct mg_ensemble_snippets_params *params,
                            struct mg_err *err);
/* The stride that samples of so many pixels need. */
int64_t mg_samples_stride(int64_t pixels);
#endif
