/* winograd.h: the transforms of input and output tiles, B^T d B and A^T m A. Included by elements.h once per element
 * type; reached through the table by ops/winograd.c. */

/* The 36 positions of one vector of channels. */
MG_ALWAYS_INLINE void MG_ELEMENT_KERNEL(input_vector)(mg_vf d[36], const void *const pixels[36], int64_t at,
                                                      int64_t count) {
    mg_vf half[6][6];
    for (int j = 0; j < 6; j++) {
        mg_vf column[6], line[6];
        for (int i = 0; i < 6; i++) {
            const MG_ELEMENT *pixel = pixels[i * 6 + j];
            column[i] = count == MG_LANES ? mg_get(pixel + at) : mg_get_part(pixel + at, count);
        }
        MG_KERNEL(input_line)(line, column[0], column[1], column[2], column[3], column[4], column[5]);
        for (int i = 0; i < 6; i++)
            half[i][j] = line[i];
    }
    for (int i = 0; i < 6; i++)
        MG_KERNEL(input_line)(d + 6 * i, half[i][0], half[i][1], half[i][2], half[i][3], half[i][4], half[i][5]);
}

static void MG_ELEMENT_KERNEL(winograd_input)(float *v, int64_t stride, const void *const pixels[36], int64_t c) {
    mg_vf d[36];
    int64_t at = 0;
    for (; at + MG_LANES <= c; at += MG_LANES) {
        MG_ELEMENT_KERNEL(input_vector)(d, pixels, at, MG_LANES);
        for (int q = 0; q < 36; q++)
            mg_store(v + q * stride + at, d[q]);
    }
    if (at < c) {
        MG_ELEMENT_KERNEL(input_vector)(d, pixels, at, c - at);
        for (int q = 0; q < 36; q++)
            mg_store_part(v + q * stride + at, d[q], c - at);
    }
}

/* Up to MG_FIXED_CHANNELS channels in fixed point, one scale for each position: v + q*stride and scales[q*scale_stride]. */
static void MG_ELEMENT_KERNEL(winograd_input_fixed)(int16_t *v, int64_t stride, float *scales, int64_t scale_stride,
                                                    const void *const pixels[36], int64_t begin, int64_t count) {
    mg_vf d[MG_FIXED_CHANNELS / MG_LANES][36];
    mg_vi largest[36];
    for (int q = 0; q < 36; q++)
        largest[q] = (mg_vi){0};
    for (int64_t at = 0, i = 0; at < count; at += MG_LANES, i++) {
        MG_ELEMENT_KERNEL(input_vector)(d[i], pixels, begin + at, count - at < MG_LANES ? count - at : MG_LANES);
        for (int q = 0; q < 36; q++)
            largest[q] = mg_max_bits(largest[q], (mg_vi)mg_abs(d[i][q]));
    }
    for (int q = 0; q < 36; q++) {
        const float factor = mg_fixed_factor(scales + q * scale_stride, mg_max_lanes_bits(largest[q]));
        int16_t *to = v + q * stride;
        int64_t at = 0, i = 0;
        for (; at + MG_LANES <= count; at += MG_LANES, i++)
            mg_store_fixed(to + at, d[i][q] * factor);
        if (at < count)
            mg_store_part_fixed(to + at, d[i][q] * factor, (count - at + 1) / 2 * 2);
    }
}

MG_ALWAYS_INLINE void MG_ELEMENT_KERNEL(output_vector)(void *const pixels[16], const float *m, int64_t stride,
                                                       int64_t at, int64_t count, const float *addend,
                                                       const void *const residual[16], bool relu) {
    mg_vf e[4][6], line[4];
    for (int j = 0; j < 6; j++) {
        mg_vf column[6];
        for (int i = 0; i < 6; i++)
            column[i] = mg_load(m + (i * 6 + j) * stride + at);
        MG_KERNEL(output_line)(line, column[0], column[1], column[2], column[3], column[4], column[5]);
        for (int i = 0; i < 4; i++)
            e[i][j] = line[i];
    }
    mg_vf constant = addend ? mg_load_part(addend + at, count) : mg_splat(0.0f);
    for (int i = 0; i < 4; i++) {
        MG_KERNEL(output_line)(line, e[i][0], e[i][1], e[i][2], e[i][3], e[i][4], e[i][5]);
        for (int j = 0; j < 4; j++) {
            MG_ELEMENT *to = pixels[i * 4 + j];
            if (!to)
                continue;
            mg_vf y = line[j] + constant;
            if (residual) {
                const MG_ELEMENT *from = residual[i * 4 + j];
                y += count == MG_LANES ? mg_get(from + at) : mg_get_part(from + at, count);
            }
            if (relu)
                y = mg_relu(y);
            if (count == MG_LANES)
                mg_put(to + at, y);
            else
                mg_put_part(to + at, y, count);
        }
    }
}

static void MG_ELEMENT_KERNEL(winograd_output)(void *const pixels[16], const float *m, int64_t stride, int64_t count,
                                               const float *addend, const void *const residual[16], bool relu) {
    int64_t at = 0;
    for (; at + MG_LANES <= count; at += MG_LANES)
        MG_ELEMENT_KERNEL(output_vector)(pixels, m, stride, at, MG_LANES, addend, residual, relu);
    if (at < count)
        MG_ELEMENT_KERNEL(output_vector)(pixels, m, stride, at, count - at, addend, residual, relu);
}

/* A dy A^T of one 4x4 tile: v + q*stride receives position q of c channels. */
static void MG_ELEMENT_KERNEL(winograd_gradient)(float *v, int64_t stride, const void *const pixels[16], int64_t c) {
    for (int64_t at = 0; at < c; at += MG_LANES) {
        const int64_t count = c - at < MG_LANES ? c - at : MG_LANES;
        mg_vf half[6][4], line[6];
        for (int j = 0; j < 4; j++) {
            mg_vf column[4];
            for (int i = 0; i < 4; i++)
                column[i] = mg_get_part((const MG_ELEMENT *)pixels[i * 4 + j] + at, count);
            MG_KERNEL(output_gradient_line)(line, column[0], column[1], column[2], column[3]);
            for (int i = 0; i < 6; i++)
                half[i][j] = line[i];
        }
        for (int i = 0; i < 6; i++) {
            MG_KERNEL(output_gradient_line)(line, half[i][0], half[i][1], half[i][2], half[i][3]);
            for (int j = 0; j < 6; j++)
                mg_store_part(v + (i * 6 + j) * stride + at, line[j], count);
        }
    }
}
