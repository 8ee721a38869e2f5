/* heads.c: the heads of the tasks, from a decoded image to a map. Plain passes over planes. */
#include <math.h>

#include "heads.h"

static float clip_to_unit(float x) { return x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x; }

static void stretch(float *map, int64_t pixels) {
    float least = INFINITY, greatest = -INFINITY;
    for (int64_t i = 0; i < pixels; i++) {
        least = map[i] < least ? map[i] : least;
        greatest = map[i] > greatest ? map[i] : greatest;
    }
    for (int64_t i = 0; i < pixels; i++)
        map[i] = greatest > least ? (map[i] - least) / (greatest - least) : 0.0f * map[i];
}

void mg_depth_head(float *out, const float *decoded, int64_t channels, int64_t pixels,
                   const struct mg_head_options *options) {
    for (int64_t i = 0; i < pixels; i++) {
        float sum = 0.0f;
        for (int64_t c = 0; c < channels; c++) {
            const float x = decoded[c * pixels + i];
            sum += options->clips_channels ? clip_to_unit(x) : x;
        }
        const float mean = sum / (float)channels;
        out[i] = ((options->leaves_depth_unclipped ? mean : clip_to_unit(mean)) + 1.0f) * 0.5f;
    }
    if (options->stretches)
        stretch(out, pixels);
}

void mg_normals_head(float *out, const float *decoded, int64_t channels, int64_t pixels,
                     const struct mg_head_options *options) {
    (void)channels;
    for (int64_t i = 0; i < pixels; i++) {
        float v[3];
        for (int c = 0; c < 3; c++)
            v[c] = options->leaves_unclipped ? decoded[c * pixels + i] : clip_to_unit(decoded[c * pixels + i]);
        const float x = v[0], y = v[1], component = v[2];
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
