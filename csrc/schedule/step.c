/* step.c: the arithmetic of every scheduler's step, on arrays in the host's memory. Fused products, so that a step gives the same
 * bits on every processor. */
#include <math.h>

#include "scheduler.h"

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define WITH_FUSED_PRODUCTS __attribute__((target_clones("avx512f", "fma", "default")))
#else
#define WITH_FUSED_PRODUCTS
#endif

WITH_FUSED_PRODUCTS
static void combine(float *sample, const float *output, size_t count, const struct mg_step_coefficients *k) {
    const float by_sample = k->sample_factor, by_output = k->model_factor;
    for (size_t i = 0; i < count; i++)
        sample[i] = fmaf(by_sample, sample[i], by_output * output[i]);
}

WITH_FUSED_PRODUCTS
static void combine_with_estimate(float *restrict sample, float *restrict estimate, const float *restrict output,
                                  size_t count, const struct mg_step_coefficients *k) {
    const struct mg_step_coefficients by = *k;
    for (size_t i = 0; i < count; i++) {
        /* What is not asked for may be anything. */
        const float x = sample[i],
                    last = by.last_estimate_factor != 0.0f ? by.last_estimate_factor * estimate[i] : 0.0f;
        estimate[i] = fmaf(by.origin_sample_factor, x, by.origin_model_factor * output[i]);
        sample[i] = fmaf(by.sample_factor, x, fmaf(by.model_factor, output[i], last));
    }
}

WITH_FUSED_PRODUCTS
static void add(float *sample, const float *noise, size_t count, float factor) {
    for (size_t i = 0; i < count; i++)
        sample[i] = fmaf(factor, noise[i], sample[i]);
}

void mg_scheduler_step(float *sample, float *estimate, const float *output, const float *noise, size_t count,
                       const struct mg_step_coefficients *coefficients) {
    if (estimate)
        combine_with_estimate(sample, estimate, output, count, coefficients);
    else
        combine(sample, output, count, coefficients);
    if (coefficients->noise_factor != 0.0f)
        add(sample, noise, count, coefficients->noise_factor);
}
