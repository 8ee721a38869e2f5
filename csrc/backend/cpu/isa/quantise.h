/* quantise.h: rows of activations as unsigned bytes around 128, with a scale each, and back. Included by elements.h once
 * per element type; reached through the table by ops/linear.c and ops/direct.c. */

/* out[count rounded up to 4] = round(x * 127 / largest) + 128, the padding 128; *scale = largest / 127, NaN for a row that is
 * not finite. */
static void MG_ELEMENT_KERNEL(quantise_row)(uint8_t *out, float *scale, const void *from, int64_t count) {
    const MG_ELEMENT *x = from;
    mg_vi largest = {0};
    int64_t at = 0;
    for (; at + MG_LANES <= count; at += MG_LANES)
        largest = mg_max_bits(largest, (mg_vi)mg_abs(mg_get(x + at)));
    if (at < count)
        largest = mg_max_bits(largest, (mg_vi)mg_abs(mg_get_part(x + at, count - at)));
    const float factor = mg_fixed_factor(scale, mg_max_lanes_bits(largest)) * (127.0f / MG_FIXED_VALUE);
    *scale *= MG_FIXED_VALUE / 127.0f;
    for (at = 0; at + MG_LANES <= count; at += MG_LANES)
        mg_store_byte(out + at, mg_get(x + at) * factor + 128.0f, MG_LANES);
    if (at < count)
        mg_store_byte(out + at, mg_get_part(x + at, count - at) * factor + 128.0f, (count - at + 3) / 4 * 4);
}
