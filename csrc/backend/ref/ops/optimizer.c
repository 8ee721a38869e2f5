/* optimizer.c: reference of a step of Adam, of the gradient's norm and of moving averages. */
#include "../ref.h"

void mg_ref_adam(const struct mg_context *context, float *weight, float *gradient, float *m, float *v, int64_t count,
                 const struct mg_adam *p) {
    (void)context;
    for (int64_t i = 0; i < count; i++) {
        double w = weight[i], g = (double)gradient[i] * p->gradient_factor;
        if (!p->decoupled)
            g += p->decay * w;
        else
            w -= (double)p->learning_rate * p->decay * w;
        m[i] = (float)(m[i] + (1.0 - p->beta1) * (g - m[i]));
        v[i] = (float)((double)p->beta2 * v[i] + (1.0 - p->beta2) * g * g);
        w -= p->learning_rate / p->correction1 * m[i] / (sqrt(v[i]) / sqrt(p->correction2) + p->epsilon);
        weight[i] = (float)w;
        gradient[i] = 0.0f;
    }
}

double mg_ref_sum_of_squares(const struct mg_context *context, const float *x, int64_t count) {
    (void)context;
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

void mg_ref_average(const struct mg_context *context, float *average, const float *x, int64_t count, float keep,
                    float take) {
    (void)context;
    for (int64_t i = 0; i < count; i++)
        average[i] = (float)((double)keep * average[i] + (double)take * x[i]);
}
