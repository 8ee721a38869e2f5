/* pointwise.h: kernels that treat every element alike: activations, GEGLU, scaling, sums, and what follows a matrix
 * product. Included by elements.h once per element type. Any count, any alignment, the output may be an input. Each one
 * runs whole vectors and then the rest of the row as a part of one, by the same arithmetic, in float32.
 */

/* Inlined with a constant activation, so that the loop holds no branch. */
MG_ALWAYS_INLINE void MG_ELEMENT_KERNEL(activate_as)(MG_ELEMENT *out, const MG_ELEMENT *x, int64_t count,
                                                     mg_activation activation) {
    int64_t i = 0;
    for (; i + MG_LANES <= count; i += MG_LANES)
        mg_put(out + i, MG_ELEMENT_KERNEL(activated)(mg_get(x + i), activation));
    if (i < count)
        mg_put_part(out + i, MG_ELEMENT_KERNEL(activated)(mg_get_part(x + i, count - i), activation), count - i);
}

static void MG_ELEMENT_KERNEL(activate)(void *to, const void *from, int64_t count, mg_activation activation) {
    MG_ELEMENT *out = to;
    const MG_ELEMENT *x = from;
    switch (activation) {
    case MG_ACT_SILU:
        MG_ELEMENT_KERNEL(activate_as)(out, x, count, MG_ACT_SILU);
        break;
    case MG_ACT_GELU:
        MG_ELEMENT_KERNEL(activate_as)(out, x, count, MG_ACT_GELU);
        break;
    case MG_ACT_QUICK_GELU:
        MG_ELEMENT_KERNEL(activate_as)(out, x, count, MG_ACT_QUICK_GELU);
        break;
    case MG_ACT_RELU:
        MG_ELEMENT_KERNEL(activate_as)(out, x, count, MG_ACT_RELU);
        break;
    case MG_ACT_TANH:
        MG_ELEMENT_KERNEL(activate_as)(out, x, count, MG_ACT_TANH);
        break;
    case MG_ACT_NONE:
        MG_ELEMENT_KERNEL(activate_as)(out, x, count, MG_ACT_NONE);
        break;
    }
}

static void MG_ELEMENT_KERNEL(geglu)(void *to, const void *values, const void *gates, int64_t count) {
    MG_ELEMENT *out = to;
    const MG_ELEMENT *value = values, *gate = gates;
    int64_t i = 0;
    for (; i + MG_LANES <= count; i += MG_LANES)
        mg_put(out + i, mg_get(value + i) * MG_ELEMENT_KERNEL(activated)(mg_get(gate + i), MG_ACT_GELU));
    if (i < count) {
        const mg_vf gelu = MG_ELEMENT_KERNEL(activated)(mg_get_part(gate + i, count - i), MG_ACT_GELU);
        mg_put_part(out + i, mg_get_part(value + i, count - i) * gelu, count - i);
    }
}

static void MG_ELEMENT_KERNEL(scale)(void *to, const void *from, float factor, float offset, int64_t count) {
    MG_ELEMENT *out = to;
    const MG_ELEMENT *x = from;
    int64_t i = 0;
    for (; i + MG_LANES <= count; i += MG_LANES)
        mg_put(out + i, mg_get(x + i) * factor + offset);
    if (i < count)
        mg_put_part(out + i, mg_get_part(x + i, count - i) * factor + offset, count - i);
}

static void MG_ELEMENT_KERNEL(add)(void *to, const void *left, const void *right, int64_t count) {
    MG_ELEMENT *out = to;
    const MG_ELEMENT *a = left, *b = right;
    int64_t i = 0;
    for (; i + MG_LANES <= count; i += MG_LANES)
        mg_put(out + i, mg_get(a + i) + mg_get(b + i));
    if (i < count)
        mg_put_part(out + i, mg_get_part(a + i, count - i) + mg_get_part(b + i, count - i), count - i);
}

/* One row of the epilogue. `activation`, and which of bias and residual are there, are the same for all rows. */
MG_ALWAYS_INLINE void MG_ELEMENT_KERNEL(epilogue_row)(MG_ELEMENT *out, const float *c, int64_t columns,
                                                      const float *bias, mg_activation activation,
                                                      const MG_ELEMENT *residual) {
    int64_t i = 0;
    for (; i + MG_LANES <= columns; i += MG_LANES) {
        mg_vf v = mg_get(c + i);
        if (bias)
            v += mg_get(bias + i);
        v = mg_activate(v, activation);
        if (residual)
            v += mg_get(residual + i);
        mg_put(out + i, v);
    }
    if (i < columns) {
        mg_vf v = mg_get_part(c + i, columns - i);
        if (bias)
            v += mg_get_part(bias + i, columns - i);
        v = mg_activate(v, activation);
        if (residual)
            v += mg_get_part(residual + i, columns - i);
        mg_put_part(out + i, v, columns - i);
    }
}

static void MG_ELEMENT_KERNEL(epilogue)(void *to, int64_t ldo, const float *c, int64_t ldc, int64_t rows,
                                        int64_t columns, const float *bias, mg_activation activation,
                                        const void *residuals, int64_t ldr) {
    MG_ELEMENT *out = to;
    const MG_ELEMENT *residual = residuals;
    for (int64_t r = 0; r < rows; r++) {
        const MG_ELEMENT *residual_row = residual ? residual + r * ldr : NULL;
        if (activation == MG_ACT_NONE)
            MG_ELEMENT_KERNEL(epilogue_row)(out + r * ldo, c + r * ldc, columns, bias, MG_ACT_NONE, residual_row);
        else
            MG_ELEMENT_KERNEL(epilogue_row)(out + r * ldo, c + r * ldc, columns, bias, activation, residual_row);
    }
}

static void MG_ELEMENT_KERNEL(widen)(float *out, const void *from, int64_t count) {
    const MG_ELEMENT *x = from;
    int64_t i = 0;
    for (; i + MG_LANES <= count; i += MG_LANES)
        mg_store(out + i, mg_get(x + i));
    if (i < count)
        mg_store_part(out + i, mg_get_part(x + i, count - i), count - i);
}

static void MG_ELEMENT_KERNEL(narrow)(void *to, const float *x, int64_t count) {
    MG_ELEMENT *out = to;
    int64_t i = 0;
    for (; i + MG_LANES <= count; i += MG_LANES)
        mg_put(out + i, mg_load(x + i));
    if (i < count)
        mg_put_part(out + i, mg_load_part(x + i, count - i), count - i);
}
