/* heads.h: what the decoder gives, in planes (channels, pixels), to a map. A NaN stays a NaN. Private to pipeline and train. */
#ifndef MG_HEADS_H
#define MG_HEADS_H
#include <stdbool.h>
#include <stdint.h>

struct mg_head_options {
    /* z of a normal spans [-1, 1]; else the network's [-1, 1] stands for [0, 1], normals that face the camera */
    bool full_z;
    bool clips_channels;         /* depth: each channel is clipped before their mean is taken, not after */
    bool stretches;              /* depth: the map's least value becomes 0 and its greatest 1; a constant map 0 */
    bool leaves_unclipped;       /* normals: only their length is changed */
    bool leaves_depth_unclipped; /* depth: the mean over the channels is stretched as it is */
};
/* (1, pixels): the mean over the channels clipped to [-1, 1], then (y + 1) / 2. */
void mg_depth_head(float *out, const float *decoded, int64_t channels, int64_t pixels,
                   const struct mg_head_options *options);
/* (3, pixels): clipped to [-1, 1], then of unit length; vectors shorter than 1e-6 are divided by 1e-6. channels is 3. */
void mg_normals_head(float *out, const float *decoded, int64_t channels, int64_t pixels,
                     const struct mg_head_options *options);
/* (channels, pixels): clipped to [-1, 1], then (y + 1) / 2. */
void mg_intrinsics_head(float *out, const float *decoded, int64_t channels, int64_t pixels,
                        const struct mg_head_options *options);
#endif
