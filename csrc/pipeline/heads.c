/* heads.c: the heads of the tasks, from a decoded image to a map. Plain passes over planes. */
#include <math.h>

#include "pipeline.h"

static float clip_to_unit(float x) { return x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x; }

void mg_depth_head(float *out, const float *decoded, int64_t channels, int64_t pixels,
                   const struct mg_head_options *options) {
    (void)options;
    for (int64_t i = 0; i < pixels; i++) {
        float sum = 0.0f;
        for (int64_t c = 0; c < channels; c++)
            sum += decoded[c * pixels + i];
        out[i] = (clip_to_unit(sum / (float)channels) + 1.0f) * 0.5f;
    }
}

void mg_normals_head(float *out, const float *decoded, int64_t channels, int64_t pixels,
                     const struct mg_head_options *options) {
    (void)channels;
    for (int64_t i = 0; i < pixels; i++) {
        const float x = clip_to_unit(decoded[i]), y = clip_to_unit(decoded[pixels + i]);
        const float component = clip_to_unit(decoded[2 * pixels + i]);
        const float z = options->full_z ? component : component * 0.5f + 0.5f;
        const float length = sqrtf(x * x + y * y + z * z), divisor = length < 1e-6f ? 1e-6f : length;
        out[i] = x / divisor;
        out[pixels + i] = y / divisor;
        out[2 * pixels + i] = z / divisor;
    }
}

void mg_intrinsics_head(float *out, const float *decoded, int64_t channels, int64_t pixels,
                        const struct mg_head_options *options) {
    (void)options;
    for (int64_t i = 0; i < channels * pixels; i++)
        out[i] = (clip_to_unit(decoded[i]) + 1.0f) * 0.5f;
}
