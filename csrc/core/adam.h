/* adam.h: one step of Adam (arXiv 1412.6980) for a number, as torch.optim.Adam takes it, for the few unknowns of what is aligned or
 * guided. Weights in training have an optimiser of their own (backend.h). Knows nothing. */
#ifndef MG_ADAM_H
#define MG_ADAM_H
#include <math.h>

struct mg_scalar_adam {
    double rate, beta1, beta2;
    double first_left, root_of_second_left; /* 1 - beta1^step, and the root of 1 - beta2^step */
};

/* step: from 1. */
static inline struct mg_scalar_adam mg_scalar_adam_of(double rate, double beta1, double beta2, int step) {
    return (struct mg_scalar_adam){rate, beta1, beta2, 1.0 - pow(beta1, step), sqrt(1.0 - pow(beta2, step))};
}

/* How far the number moves; m and v are its moments. */
static inline double mg_scalar_adam_step(const struct mg_scalar_adam *a, double *m, double *v, double gradient) {
    *m += (1.0 - a->beta1) * (gradient - *m);
    *v += (1.0 - a->beta2) * (gradient * gradient - *v);
    return -a->rate / a->first_left * *m / (sqrt(*v) / a->root_of_second_left + 1e-8);
}
#endif
