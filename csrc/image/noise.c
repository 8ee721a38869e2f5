/* noise.c: the noise that Marigold is fine-tuned with (arXiv 2312.02145, section 3.2): random fields of several
 * resolutions on top of each other, so that low frequencies carry noise, too. Calls mg_resize.
 *
 * Random numbers are drawn in the order of torch's code, and what decides about sizes is float32 as there: the same seed
 * gives the same noise. */
#include <math.h>

#include "../core/rng.h"

enum { LEVELS = 10 };

struct level {
    int64_t h, w;
};

/* x^i as torch raises a float32 to a whole number. */
static float power(float x, int i) {
    switch (i) {
    case 0:
        return 1.0f;
    case 1:
        return x;
    case 2:
        return x * x;
    case 3:
        return x * x * x;
    default:
        return (float)pow((double)x, (double)i);
    }
}

static int64_t shrunk(int64_t size, float factor) {
    const int64_t smaller = (int64_t)((float)size / factor);
    return smaller > 1 ? smaller : 1;
}

/* The next level's size, from the last one's: a random factor between 2 and 4, to the power of the level's number. */
static struct level next_level(mg_generator *generator, struct level last, int i) {
    float ratio;
    mg_rng_rand(generator, &ratio, 1);
    const float factor = power(ratio * 2.0f + 2.0f, i);
    return (struct level){shrunk(last.h, factor), shrunk(last.w, factor)};
}

static void add_scaled(float *out, const float *field, const float *strength, int i, int64_t n, int64_t image) {
    for (int64_t k = 0; k < n; k++) {
        const float factor = power(strength[k], i);
        for (int64_t e = k * image; e < (k + 1) * image; e++)
            out[e] += field[e] * factor;
    }
}

/* Divides by the standard deviation of the whole batch, of one degree of freedom less than it has numbers. */
static void normalise(float *noise, int64_t count) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < count; i++)
        sum += noise[i];
    const double mean = sum / (double)count;
    for (int64_t i = 0; i < count; i++)
        squares += (noise[i] - mean) * (noise[i] - mean);
    const float deviation = (float)sqrt(squares / (double)(count - 1));
    for (int64_t i = 0; i < count; i++)
        noise[i] /= deviation;
}

mg_status mg_multi_resolution_noise(float *out, int64_t n, int64_t c, int64_t h, int64_t w, const float *strength,
                                    mg_generator *generator, struct mg_err *err) {
    struct mg_tensor shape = {.dtype = MG_F32, .ndim = 4, .dim = {n, c, h, w}};
    struct level level = {h, w};
    float *field = NULL, *grown = NULL;
    mg_status status = MG_OK;
    MG_TRY(mg_tensor_check(&shape, "noise", err));
    const int64_t count = mg_tensor_count(&shape);
    if (count < 2)
        return mg_fail(err, MG_ERR_ARGUMENT, "noise of one number has no standard deviation to be divided by");
    for (int64_t k = 0; k < n; k++)
        if (!(strength[k] >= 0.0f && strength[k] <= 1.0f))
            return mg_fail(err, MG_ERR_ARGUMENT, "`strength` of sample %lld is %g; expected 0 to 1", (long long)k,
                           (double)strength[k]);
    MG_TRY(mg_generator_enter(generator, &level, err));
    MG_TRY_GOTO(mg_alloc((void **)&field, mg_tensor_bytes(&shape), "a level of noise", err));
    MG_TRY_GOTO(mg_alloc((void **)&grown, mg_tensor_bytes(&shape), "a level of noise", err));

    mg_rng_randn(generator, out, (size_t)count);
    for (int i = 0; i < LEVELS; i++) {
        level = next_level(generator, level, i);
        mg_rng_randn(generator, field, (size_t)(n * c * level.h * level.w));
        MG_TRY_GOTO(mg_resize(grown, field, n, c, level.h, level.w, h, w, MG_RESAMPLE_BILINEAR, false, err));
        add_scaled(out, grown, strength, i, n, c * h * w);
        if (level.h == 1 || level.w == 1)
            break;
    }
    normalise(out, count);
done:
    mg_generator_leave(generator, &level);
    mg_free(field);
    mg_free(grown);
    return status;
}
