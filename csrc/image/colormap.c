/* colormap.c: maps of one number a pixel as colours. The rounding is part of the result: setup.py compiles this file
 * without fused multiplications, so that every machine gives the same bytes. Called through marigold.h. */
#include "../core/core.h"

enum { UNDER, OVER, BAD }; /* rows behind the colours */

/* A number in [0, 1]; what is none is 0. */
static float unit(float value) { return value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f; }

void mg_colormap_linear(uint8_t *out, const float *values, int64_t count, const float *stops, int64_t stop_count) {
    for (int64_t i = 0; i < count; i++) {
        float position = unit(values[i]) * (float)(stop_count - 1);
        int32_t left = (int32_t)position;
        float weight = position - (float)left;
        const float *a = stops + 3 * (int64_t)left, *b = left + 1 < stop_count ? a + 3 : a;
        for (int c = 0; c < 3; c++)
            out[3 * i + c] = (uint8_t)(unit((1.0f - weight) * a[c] + weight * b[c]) * 255.0f);
    }
}

void mg_colormap_listed(uint8_t *out, const float *values, int64_t count, const uint8_t *table, int64_t size) {
    for (int64_t i = 0; i < count; i++) {
        float position = values[i] * (float)size;
        int64_t row;
        if (position == (float)size) /* 1 is the last colour, not beyond it */
            row = size - 1;
        else if (position >= 0.0f)
            row = position < (float)size ? (int64_t)position : size + OVER;
        else
            row = position < 0.0f ? size + UNDER : size + BAD;
        for (int c = 0; c < 3; c++)
            out[3 * i + c] = table[3 * row + c];
    }
}
