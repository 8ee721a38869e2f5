/* optimizer.h: Adam's arithmetic. Included by kernels.h; reached through the table by ops/optimizer.c. The compilers turn
 * these loops into vectors by themselves, roots and all; lanes do not meet, so the width changes nothing. */
#ifndef MG_OPTIMIZER_H
#define MG_OPTIMIZER_H
#include "doubles.h"

static void MG_KERNEL(adam)(float *restrict weight, float *restrict gradient, float *restrict m, float *restrict v,
                            int64_t count, const struct mg_adam *p) {
    const float keep = p->decoupled ? 1.0f - p->learning_rate * p->decay : 1.0f;
    const float decay = p->decoupled ? 0.0f : p->decay, factor = p->gradient_factor, epsilon = p->epsilon;
    const float beta2 = p->beta2, share1 = 1.0f - p->beta1, share2 = 1.0f - p->beta2;
    const float step = p->learning_rate / p->correction1, scale = 1.0f / sqrtf(p->correction2);
    for (int64_t i = 0; i < count; i++) {
        const float g = gradient[i] * factor + decay * weight[i];
        m[i] += share1 * (g - m[i]);
        v[i] = beta2 * v[i] + share2 * g * g;
        weight[i] = keep * weight[i] - step * m[i] / (sqrtf(v[i]) * scale + epsilon);
        gradient[i] = 0.0f;
    }
}

static double MG_KERNEL(sum_of_squares)(const float *x, int64_t count) {
    double sum = 0.0;
    mg_vd low = {0}, high = {0};
    int64_t i = 0;
    for (; i + MG_LANES <= count; i += MG_LANES) {
        const mg_vd a = mg_widened(x + i), b = mg_widened(x + i + MG_LANES / 2);
        low += a * a;
        high += b * b;
    }
    low += high;
    for (int lane = 0; lane < MG_LANES / 2; lane++)
        sum += low[lane];
    for (; i < count; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}
#endif
