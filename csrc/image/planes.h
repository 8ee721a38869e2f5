/* planes.h: outside of the networks an image or a map is planes (C, H W); pixels with their channels side by side (H W, C) come in
 * and go out by these. Knows core. */
#ifndef MG_PLANES_H
#define MG_PLANES_H
#include "../core/core.h"

/* (C, pixels) -> (pixels, C). */
void mg_pixels_of_planes(float *out, const float *planes, int64_t channels, int64_t pixels);
/* (N, H, W, 1 or 3) of any type -> (N, 3, H, W): grey in all three, 8-bit values as 0 to 255 where `in_bytes`, else [0, 1] as
 * [-1, 1]. */
void mg_planes_of_image(float *out, const struct mg_image *image, bool in_bytes);
#endif
