/* resize.c: torch.nn.functional.interpolate on planes: every mode is a separable weighted sum, so a table of taps for
 * each axis and two passes do all of them. */
#include <math.h>
#include <string.h>

#include "../core/core.h"

/* Positions are float32, as in torch: beyond this size those of neighbours are the same, and a window may hold no pixel. */
enum { MOST_FILTERED = 1 << 23 };

/* Output i is the sum of weights[i*stride + j] * in[first[i] + j], j < count[i]. */
struct axis {
    int64_t size, stride;
    int64_t *first, *count;
    float *weights;
    void *memory;
};

struct resize_mode {
    const char *name;
    int taps;       /* 0: as many as the window covers */
    bool antialias; /* may be asked for */
    void (*fill)(struct axis *a, int64_t i, int64_t in, float scale);
};

static float cubic(float x, float a) {
    x = fabsf(x);
    if (x < 1.0f)
        return ((a + 2.0f) * x - (a + 3.0f)) * x * x + 1.0f;
    return x < 2.0f ? (((x - 5.0f) * x + 8.0f) * x - 4.0f) * a : 0.0f;
}

static float triangle(float x) {
    x = fabsf(x);
    return x < 1.0f ? 1.0f - x : 0.0f;
}

static float antialiased_cubic(float x) { return cubic(x, -0.5f); }

static void set_tap(struct axis *a, int64_t i, int64_t at, int64_t in) {
    a->first[i] = at < in ? at : in - 1;
    a->count[i] = 1;
    a->weights[i * a->stride] = 1.0f;
}

static void fill_nearest(struct axis *a, int64_t i, int64_t in, float scale) {
    set_tap(a, i, (int64_t)floorf((float)i * scale), in);
}

static void fill_nearest_exact(struct axis *a, int64_t i, int64_t in, float scale) {
    set_tap(a, i, (int64_t)floorf(((float)i + 0.5f) * scale), in);
}

static void fill_bilinear(struct axis *a, int64_t i, int64_t in, float scale) {
    float at = ((float)i + 0.5f) * scale - 0.5f;
    at = at > 0.0f ? at : 0.0f;
    int64_t left = (int64_t)at < in ? (int64_t)at : in - 1;
    float right_weight = at - (float)left;
    a->first[i] = left;
    a->count[i] = left + 1 < in ? 2 : 1;
    a->weights[i * a->stride] = a->count[i] == 2 ? 1.0f - right_weight : 1.0f;
    a->weights[i * a->stride + 1] = right_weight;
}

/* Taps outside repeat the border pixel: their weights are added to its. */
static void fill_bicubic(struct axis *a, int64_t i, int64_t in, float scale) {
    float at = ((float)i + 0.5f) * scale - 0.5f, base = floorf(at), part = at - base;
    int64_t low = (int64_t)base - 1, first = low < 0 ? 0 : low > in - 1 ? in - 1 : low;
    int64_t high = low + 3 < 0 ? 0 : low + 3 > in - 1 ? in - 1 : low + 3;
    float *weights = a->weights + i * a->stride;
    a->first[i] = first;
    a->count[i] = high - first + 1;
    memset(weights, 0, 4 * sizeof *weights);
    for (int64_t j = 0; j < 4; j++) {
        int64_t tap = low + j < first ? first : low + j > high ? high : low + j;
        weights[tap - first] += cubic(part + 1.0f - (float)j, -0.75f);
    }
}

static void fill_area(struct axis *a, int64_t i, int64_t in, float scale) {
    (void)scale;
    int64_t begin = i * in / a->size, end = ((i + 1) * in + a->size - 1) / a->size;
    a->first[i] = begin;
    a->count[i] = end - begin;
    for (int64_t j = 0; j < end - begin; j++)
        a->weights[i * a->stride + j] = 1.0f / (float)(end - begin);
}

static void fill_filter(struct axis *a, int64_t i, int64_t in, float scale, float support, float (*filter)(float)) {
    const float stretch = scale >= 1.0f ? scale : 1.0f, reach = support * stretch, centre = scale * ((float)i + 0.5f);
    int64_t begin = (int64_t)(centre - reach + 0.5f), end = (int64_t)(centre + reach + 0.5f);
    begin = begin > 0 ? begin : 0;
    end = end < in ? end : in;
    float *weights = a->weights + i * a->stride, total = 0.0f;
    for (int64_t j = 0; j < end - begin; j++)
        total += weights[j] = filter(((float)(j + begin) - centre + 0.5f) * (1.0f / stretch));
    for (int64_t j = 0; j < end - begin && total != 0.0f; j++)
        weights[j] /= total;
    a->first[i] = begin;
    a->count[i] = end - begin;
}

static void fill_antialiased_bilinear(struct axis *a, int64_t i, int64_t in, float scale) {
    fill_filter(a, i, in, scale, 1.0f, triangle);
}

static void fill_antialiased_bicubic(struct axis *a, int64_t i, int64_t in, float scale) {
    fill_filter(a, i, in, scale, 2.0f, antialiased_cubic);
}

static const struct resize_mode modes[] = {
    [MG_RESAMPLE_NEAREST] = {"nearest", 1, false, fill_nearest},
    [MG_RESAMPLE_NEAREST_EXACT] = {"nearest-exact", 1, false, fill_nearest_exact},
    [MG_RESAMPLE_BILINEAR] = {"bilinear", 2, true, fill_bilinear},
    [MG_RESAMPLE_BICUBIC] = {"bicubic", 4, true, fill_bicubic},
    [MG_RESAMPLE_AREA] = {"area", 0, false, fill_area},
};
static const struct resize_mode antialiased[] = {
    [MG_RESAMPLE_BILINEAR] = {"bilinear", 0, true, fill_antialiased_bilinear},
    [MG_RESAMPLE_BICUBIC] = {"bicubic", 0, true, fill_antialiased_bicubic},
};

mg_status mg_resample_from_name(mg_resample *out, const char *name, const char *argument, struct mg_err *err) {
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (!strcmp(modes[i].name, name)) {
            *out = (mg_resample)i;
            return MG_OK;
        }
    return mg_fail(err, MG_ERR_ARGUMENT, "%s is \"%.40s\"; allowed: nearest, nearest-exact, bilinear, bicubic, area",
                   argument, name);
}

static mg_status make_axis(struct axis *a, const struct resize_mode *mode, int64_t in, int64_t out,
                           struct mg_err *err) {
    const float scale = (float)in / (float)out;
    const int64_t widest = (int64_t)(2.0f * 2.0f * (scale > 1.0f ? scale : 1.0f)) + 3;
    *a = (struct axis){.size = out, .stride = mode->taps ? mode->taps : widest < in + 1 ? widest : in + 1};
    size_t bytes, each = 2 * sizeof(int64_t) + (size_t)a->stride * sizeof(float);
    if (!mg_size_mul(&bytes, (size_t)out, each))
        return mg_fail(err, MG_ERR_MEMORY, "resizing to %lld cannot be addressed", (long long)out);
    MG_TRY(mg_alloc(&a->memory, bytes, "a table of resize weights", err));
    a->first = a->memory;
    a->count = a->first + out;
    a->weights = (float *)(a->count + out);
    for (int64_t i = 0; i < out; i++)
        mode->fill(a, i, in, scale);
    return MG_OK;
}

static void resize_rows(float *out, const float *in, const struct axis *x, int64_t in_w, int64_t rows) {
    for (int64_t y = 0; y < rows; y++, in += in_w)
        for (int64_t i = 0; i < x->size; i++) {
            const float *from = in + x->first[i], *weights = x->weights + i * x->stride;
            float sum = from[0] * weights[0];
            for (int64_t j = 1; j < x->count[i]; j++)
                sum += from[j] * weights[j];
            *out++ = sum;
        }
}

static void resize_columns(float *out, const float *in, const struct axis *y, int64_t w) {
    for (int64_t i = 0; i < y->size; i++, out += w) {
        const float *weights = y->weights + i * y->stride, *from = in + y->first[i] * w;
        for (int64_t x = 0; x < w; x++)
            out[x] = from[x] * weights[0];
        for (int64_t j = 1; j < y->count[i]; j++)
            for (int64_t x = 0; x < w; x++)
                out[x] += from[j * w + x] * weights[j];
    }
}

mg_status mg_resize(float *out, const float *in, int64_t n, int64_t c, int64_t in_h, int64_t in_w, int64_t out_h,
                    int64_t out_w, mg_resample mode, bool antialias, struct mg_err *err) {
    struct axis x = {0}, y = {0};
    float *rows = NULL;
    size_t row_bytes;
    mg_status status;
    if (n < 1 || c < 1 || in_h < 1 || in_w < 1 || out_h < 1 || out_w < 1)
        return mg_fail(err, MG_ERR_ARGUMENT, "resizing [%lld, %lld, %lld, %lld] to %lld x %lld: sizes must be positive",
                       (long long)n, (long long)c, (long long)in_h, (long long)in_w, (long long)out_h,
                       (long long)out_w);
    if ((unsigned)mode > MG_RESAMPLE_AREA)
        return mg_fail(err, MG_ERR_ARGUMENT, "the resampling mode %d is unknown", (int)mode);
    if (antialias && !modes[mode].antialias)
        return mg_fail(err, MG_ERR_ARGUMENT, "antialias is not defined for the mode \"%s\"", modes[mode].name);
    if (antialias && (in_h > MOST_FILTERED || in_w > MOST_FILTERED || out_h > MOST_FILTERED || out_w > MOST_FILTERED))
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "resizing %lld x %lld to %lld x %lld: with antialias, sides have at most %d", (long long)in_h,
                       (long long)in_w, (long long)out_h, (long long)out_w, MOST_FILTERED);
    if (!mg_size_mul(&row_bytes, (size_t)in_h, (size_t)out_w) || !mg_size_mul(&row_bytes, row_bytes, sizeof(float)))
        return mg_fail(err, MG_ERR_MEMORY, "resizing %lld rows to a width of %lld cannot be addressed", (long long)in_h,
                       (long long)out_w);
    const struct resize_mode *table = antialias ? antialiased : modes;
    MG_TRY_GOTO(make_axis(&x, &table[mode], in_w, out_w, err));
    MG_TRY_GOTO(make_axis(&y, &table[mode], in_h, out_h, err));
    MG_TRY_GOTO(mg_alloc((void **)&rows, row_bytes, "resized rows", err));
    for (int64_t plane = 0; plane < n * c; plane++) {
        resize_rows(rows, in + plane * in_h * in_w, &x, in_w, in_h);
        resize_columns(out + plane * out_h * out_w, rows, &y, out_w);
    }
done:
    mg_free(x.memory);
    mg_free(y.memory);
    mg_free(rows);
    return status;
}
