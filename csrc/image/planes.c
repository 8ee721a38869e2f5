/* planes.c: pixels to planes, and planes to pixels. */
#include "planes.h"

/* Pixel values of any type as float32 in [0, 1]; integers are divided, as torch does, not multiplied. */
static float unit_pixel_at(const struct mg_image *image, int64_t i) {
    switch (image->type) {
    case MG_PIXEL_U8:
        return (float)((const uint8_t *)image->data)[i] / 255.0f;
    case MG_PIXEL_U16:
        return (float)((const uint16_t *)image->data)[i] / 65535.0f;
    default:
        return ((const float *)image->data)[i];
    }
}

/* The same in [0, 255]. */
static float byte_pixel_at(const struct mg_image *image, int64_t i) {
    return image->type == MG_PIXEL_U8 ? (float)((const uint8_t *)image->data)[i] : unit_pixel_at(image, i) * 255.0f;
}

void mg_planes_of_image(float *out, const struct mg_image *image, bool in_bytes) {
    const int64_t pixels = image->h * image->w;
    for (int64_t n = 0; n < image->n; n++)
        for (int64_t c = 0; c < 3; c++, out += pixels)
            for (int64_t i = 0; i < pixels; i++) {
                const int64_t at = (n * pixels + i) * image->c + (image->c == 1 ? 0 : c);
                out[i] = in_bytes ? byte_pixel_at(image, at) : unit_pixel_at(image, at) * 2.0f - 1.0f;
            }
}

void mg_pixels_of_planes(float *out, const float *planes, int64_t channels, int64_t pixels) {
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < pixels; i++)
            out[i * channels + c] = planes[c * pixels + i];
}
