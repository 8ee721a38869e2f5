/* tensor.c: descriptors of tensors and the conversion of stored types to float32. */
#include <stdio.h>
#include <string.h>

#include "core.h"

static const struct {
    const char *name;
    size_t bytes;
} dtypes[MG_DTYPE_COUNT] = {
    [MG_F32] = {"float32", 4}, [MG_F16] = {"float16", 2}, [MG_BF16] = {"bfloat16", 2}, [MG_I8] = {"int8", 1}};

const char *mg_dtype_name(mg_dtype dtype) { return dtypes[dtype].name; }
size_t mg_dtype_bytes(mg_dtype dtype) { return dtypes[dtype].bytes; }

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float mg_f32_of_f16(mg_f16 x) {
    const uint16_t half = x.bits;
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
    if (exponent == 0x1f)
        return float_of_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent)
        return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    /* Zero or subnormal: a whole number of 2^-24, exact in float32. */
    float magnitude = (float)fraction * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

mg_f16 mg_f16_of_f32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (mg_f16){(uint16_t)(sign | 0x7e00)};
    if (magnitude >= 0x477ff000) /* 65520: half way from the largest to what would come next */
        return (mg_f16){(uint16_t)(sign | 0x7c00)};
    if (magnitude >= 0x38800000) { /* 2^-14: normal. The exponent's bias is 112 less, the fraction has 13 bits less. */
        const uint32_t moved = magnitude - (112u << 23);
        return (mg_f16){(uint16_t)(sign | (moved + 0xfff + (moved >> 13 & 1)) >> 13)};
    }
    /* A whole number of 2^-24: the sum rounds it to the last bit of a float32 between 2^-1 and 1. */
    const float aligned = float_of_bits(magnitude) + 0.5f;
    memcpy(&bits, &aligned, sizeof bits);
    return (mg_f16){(uint16_t)(sign | (bits - 0x3f000000))};
}

void mg_convert_to_f32(float *dst, const void *src, mg_dtype dtype, size_t count) {
    if (dtype == MG_F32) {
        memcpy(dst, src, count * sizeof *dst);
        return;
    }
    /* Tensors in a file may lie at odd addresses: read through memcpy. */
    const unsigned char *from = src;
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, from + 2 * i, sizeof half);
        dst[i] = dtype == MG_F16 ? mg_f32_of_f16((mg_f16){half}) : float_of_bits((uint32_t)half << 16);
    }
}

void mg_convert_from_f32(void *dst, mg_dtype dtype, const float *src, size_t count) {
    if (dtype == MG_F32) {
        memcpy(dst, src, count * sizeof *src);
        return;
    }
    if (dtype == MG_F16) {
        mg_f16 *to = dst;
        for (size_t i = 0; i < count; i++)
            to[i] = mg_f16_of_f32(src[i]);
        return;
    }
    mg_bf16 *to = dst;
    for (size_t i = 0; i < count; i++)
        to[i] = mg_bf16_of_f32(src[i]);
}

int64_t mg_tensor_count(const struct mg_tensor *tensor) {
    int64_t count = 1;
    for (int d = 0; d < tensor->ndim; d++)
        count *= tensor->dim[d];
    return count;
}

size_t mg_tensor_bytes(const struct mg_tensor *tensor) {
    return (size_t)mg_tensor_count(tensor) * mg_dtype_bytes(tensor->dtype);
}

mg_status mg_tensor_check(const struct mg_tensor *tensor, const char *what, struct mg_err *err) {
    char text[MG_SHAPE_TEXT];
    size_t bytes = mg_dtype_bytes(tensor->dtype);
    if (tensor->ndim < 1 || tensor->ndim > MG_MAX_DIMS)
        return mg_fail(err, MG_ERR_ARGUMENT, "%s: %d dimensions; 1 to %d are allowed", what, tensor->ndim, MG_MAX_DIMS);
    for (int d = 0; d < tensor->ndim; d++) {
        if (tensor->dim[d] < 1)
            return mg_fail(err, MG_ERR_ARGUMENT, "%s: shape %s has an empty dimension", what,
                           mg_shape_text(text, tensor->ndim, tensor->dim));
        /* Half of the address space, so that sums and differences of a few offsets cannot overflow either. */
        if (!mg_size_mul(&bytes, bytes, (size_t)tensor->dim[d]) || bytes > (size_t)INT64_MAX / 2)
            return mg_fail(err, MG_ERR_MEMORY, "%s: a tensor of shape %s cannot be addressed", what,
                           mg_shape_text(text, tensor->ndim, tensor->dim));
    }
    return MG_OK;
}

bool mg_tensor_same_shape(const struct mg_tensor *a, const struct mg_tensor *b) {
    return a->ndim == b->ndim && !memcmp(a->dim, b->dim, (size_t)a->ndim * sizeof *a->dim);
}

bool mg_tensor_same_kind(const struct mg_tensor *a, const struct mg_tensor *b) {
    return a->dtype == b->dtype && mg_tensor_same_shape(a, b);
}

const char *mg_shape_text(char buffer[MG_SHAPE_TEXT], int ndim, const int64_t *dim) {
    size_t length = (size_t)snprintf(buffer, MG_SHAPE_TEXT, "[");
    for (int d = 0; d < ndim && length + 1 < MG_SHAPE_TEXT; d++)
        length += (size_t)snprintf(buffer + length, MG_SHAPE_TEXT - length, "%s%lld", d ? ", " : "", (long long)dim[d]);
    if (length + 1 < MG_SHAPE_TEXT)
        snprintf(buffer + length, MG_SHAPE_TEXT - length, "]");
    return buffer;
}
