/* norm.h: kernels of group and layer normalisation. Included by elements.h once per element type; reached through the
 * table by ops/groupnorm.c and ops/layernorm.c.
 *
 * The statistics of a group run over up to 10^7 values, whose mean may be far larger than their spread: sums are kept
 * in double, of differences from a value of the same channel. Rows of layer normalisation are short, and are passed
 * twice.
 */
/* Rows summed in registers before the sums in memory are touched. So few float32 sums of bfloat16 numbers lose nothing that
 * matters, and the more rows, the less the additions in double cost. */
enum { MG_ELEMENT_KERNEL(ROWS_AT_ONCE) = sizeof(MG_ELEMENT) == 2 ? 32 : 8 };

/* The sums of one vector of channels over `rows` rows, at most ROWS_AT_ONCE. Going down a column hides the stream from the
 * processor's prefetchers, so the same column of later rows is asked for by hand; that address may lie past the end,
 * which a prefetch tolerates. */
static inline void MG_ELEMENT_KERNEL(channel_sums_vector)(double *sum, double *sum_of_squares, const MG_ELEMENT *x,
                                                          const float *shift, int64_t rows, int64_t channels) {
    if (sizeof(MG_ELEMENT) == 2) {
        float lane[2 * MG_LANES];
        mg_vf s = {0}, q = {0};
        for (int64_t r = 0; r < rows; r++, x += channels) {
            __builtin_prefetch(x + MG_ELEMENT_KERNEL(ROWS_AT_ONCE) * channels);
            const mg_vf d = mg_get(x) - mg_load(shift);
            s += d;
            q += d * d;
        }
        mg_store(lane, s);
        mg_store(lane + MG_LANES, q);
        mg_add_to(sum, mg_widened(lane));
        mg_add_to(sum + MG_LANES / 2, mg_widened(lane + MG_LANES / 2));
        mg_add_to(sum_of_squares, mg_widened(lane + MG_LANES));
        mg_add_to(sum_of_squares + MG_LANES / 2, mg_widened(lane + MG_LANES + MG_LANES / 2));
        return;
    }
    mg_vd shift0 = mg_widened(shift), shift1 = mg_widened(shift + MG_LANES / 2);
    mg_vd s0 = {0}, s1 = {0}, q0 = {0}, q1 = {0};
    for (int64_t r = 0; r < rows; r++, x += channels) {
        __builtin_prefetch(x + MG_ELEMENT_KERNEL(ROWS_AT_ONCE) * channels);
        mg_vd d0 = mg_get_widened(x) - shift0, d1 = mg_get_widened(x + MG_LANES / 2) - shift1;
        s0 += d0;
        s1 += d1;
        q0 += d0 * d0;
        q1 += d1 * d1;
    }
    mg_add_to(sum, s0);
    mg_add_to(sum + MG_LANES / 2, s1);
    mg_add_to(sum_of_squares, q0);
    mg_add_to(sum_of_squares + MG_LANES / 2, q1);
}

static void MG_ELEMENT_KERNEL(channel_sums)(double *sum, double *sum_of_squares, const void *from, const float *shift,
                                            int64_t rows, int64_t channels) {
    const MG_ELEMENT *x = from;
    for (int64_t r = 0; r < rows; r += MG_ELEMENT_KERNEL(ROWS_AT_ONCE)) {
        int64_t some = rows - r < MG_ELEMENT_KERNEL(ROWS_AT_ONCE) ? rows - r : MG_ELEMENT_KERNEL(ROWS_AT_ONCE);
        const MG_ELEMENT *block = x + r * channels;
        int64_t c = 0;
        for (; c + MG_LANES <= channels; c += MG_LANES)
            MG_ELEMENT_KERNEL(channel_sums_vector)(sum + c, sum_of_squares + c, block + c, shift + c, some, channels);
        for (; c < channels; c++)
            for (int64_t i = 0; i < some; i++) {
                double d = (double)mg_get_one(block + i * channels + c) - (double)shift[c];
                sum[c] += d;
                sum_of_squares[c] += d * d;
            }
    }
}

/* Inlined with a constant activation, so that the loop holds no branch. */
MG_ALWAYS_INLINE void MG_ELEMENT_KERNEL(affine_rows)(MG_ELEMENT *out, const MG_ELEMENT *x, const float *factor,
                                                     const float *offset, int64_t rows, int64_t channels,
                                                     mg_activation activation) {
    for (int64_t r = 0; r < rows; r++, out += channels, x += channels) {
        int64_t c = 0;
        for (; c + MG_LANES <= channels; c += MG_LANES)
            mg_put(out + c,
                   MG_ELEMENT_KERNEL(activated)(mg_get(x + c) * mg_load(factor + c) + mg_load(offset + c), activation));
        if (c < channels) {
            int64_t rest = channels - c;
            mg_vf v = mg_get_part(x + c, rest) * mg_load_part(factor + c, rest) + mg_load_part(offset + c, rest);
            mg_put_part(out + c, MG_ELEMENT_KERNEL(activated)(v, activation), rest);
        }
    }
}

static void MG_ELEMENT_KERNEL(channel_affine)(void *to, const void *from, const float *factor, const float *offset,
                                              int64_t rows, int64_t channels, bool silu) {
    MG_ELEMENT *out = to;
    const MG_ELEMENT *x = from;
    if (silu)
        MG_ELEMENT_KERNEL(affine_rows)(out, x, factor, offset, rows, channels, MG_ACT_SILU);
    else
        MG_ELEMENT_KERNEL(affine_rows)(out, x, factor, offset, rows, channels, MG_ACT_NONE);
}

/* Sums of x - shift over one row, and of its squares; two vectors each, so that additions do not wait for each
 * other. */
static inline void MG_ELEMENT_KERNEL(row_sums)(float *sum, float *sum_of_squares, const MG_ELEMENT *x, float shift,
                                               int64_t channels) {
    mg_vf s0 = {0}, s1 = {0}, q0 = {0}, q1 = {0};
    int64_t c = 0;
    for (; c + 2 * MG_LANES <= channels; c += 2 * MG_LANES) {
        mg_vf d0 = mg_get(x + c) - shift, d1 = mg_get(x + c + MG_LANES) - shift;
        s0 += d0;
        s1 += d1;
        q0 += d0 * d0;
        q1 += d1 * d1;
    }
    for (; c < channels; c += MG_LANES) {
        int64_t rest = channels - c < MG_LANES ? channels - c : MG_LANES;
        mg_vf d = mg_select(mg_first_lanes(rest), mg_get_part(x + c, rest) - shift, (mg_vf){0});
        s0 += d;
        q0 += d * d;
    }
    *sum = mg_sum_lanes(s0 + s1);
    *sum_of_squares = mg_sum_lanes(q0 + q1);
}

/* The first pass finds the mean to a float's precision, the second the rest of it and the variance. */
static void MG_ELEMENT_KERNEL(layernorm)(void *to, const void *from, const float *gamma, const float *beta,
                                         int64_t rows, int64_t channels, float epsilon) {
    MG_ELEMENT *out = to;
    const MG_ELEMENT *x = from;
    const float inverse = 1.0f / (float)channels;
    for (int64_t r = 0; r < rows; r++, out += channels, x += channels) {
        const float first = mg_get_one(x);
        float sum, squares;
        MG_ELEMENT_KERNEL(row_sums)(&sum, &squares, x, first, channels);
        float mean = first + sum * inverse;
        MG_ELEMENT_KERNEL(row_sums)(&sum, &squares, x, mean, channels);
        float rest_of_mean = sum * inverse;
        float variance = squares * inverse - rest_of_mean * rest_of_mean;
        float factor = 1.0f / sqrtf((variance < 0.0f ? 0.0f : variance) + epsilon);
        int64_t c = 0;
        for (; c + MG_LANES <= channels; c += MG_LANES) {
            mg_vf d = (mg_get(x + c) - mean) - rest_of_mean;
            mg_put(out + c, d * factor * mg_load(gamma + c) + mg_load(beta + c));
        }
        if (c < channels) {
            int64_t rest = channels - c;
            mg_vf d = (mg_get_part(x + c, rest) - mean) - rest_of_mean;
            mg_put_part(out + c, d * factor * mg_load_part(gamma + c, rest) + mg_load_part(beta + c, rest), rest);
        }
    }
}
