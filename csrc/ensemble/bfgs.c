/* bfgs.c: quasi-Newton minimisation of a function of a few hundred variables. The update is that of Nocedal and
 * Wright, Numerical Optimization, equation 6.17, from the identity. */
#include <math.h>
#include <string.h>

#include "ensemble.h"

struct state {
    const struct mg_cost_function *cost;
    double *x, *gradient;             /* the current point */
    double *direction;                /* of the search */
    double *trial, *trial_gradient;   /* the point that the line search evaluates */
    double *inverse_hessian, *change; /* n x n; n */
    double value, value_before, trial_step;
};

static double dot(const double *a, const double *b, int n) {
    double sum = 0.0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static double largest(const double *a, int n) {
    double result = 0.0;
    for (int i = 0; i < n; i++)
        result = fmax(result, fabs(a[i]));
    return result;
}

/* The function along the direction; the gradient of the last evaluation is kept for the step that is taken. */
static mg_status evaluate_along(double *value, double *slope, double step, void *user, struct mg_err *err) {
    struct state *s = user;
    const struct mg_cost_function *f = s->cost;
    for (int i = 0; i < f->n; i++)
        s->trial[i] = s->x[i] + step * s->direction[i];
    s->trial_step = slope ? step : NAN;
    MG_TRY(f->evaluate(value, slope ? s->trial_gradient : NULL, s->trial, f->user, err));
    if (slope)
        *slope = dot(s->trial_gradient, s->direction, f->n);
    return MG_OK;
}

static void find_direction(struct state *s) {
    const int n = s->cost->n;
    for (int i = 0; i < n; i++)
        s->direction[i] = -dot(s->inverse_hessian + i * n, s->gradient, n);
}

/* *moved: a step was found and taken; s->trial holds the new x, s->trial_gradient its gradient. */
static mg_status take_step(bool *moved, double *step, struct state *s, struct mg_err *err) {
    const int n = s->cost->n;
    const struct mg_line line = {
        .at = evaluate_along, .user = s, .value = s->value, .slope = dot(s->gradient, s->direction, n)};
    double first = 1.0, value;
    if (line.slope != 0.0) {
        first = fmin(1.0, 1.01 * 2.0 * (s->value - s->value_before) / line.slope);
        if (first < 0.0)
            first = 1.0;
    }
    MG_TRY(mg_search_more_thuente(moved, step, &value, &line, first, err));
    if (!*moved)
        MG_TRY(mg_search_bracket_and_zoom(moved, step, &value, &line, first, err));
    if (!*moved)
        return MG_OK;
    if (s->trial_step != *step) {
        double slope;
        MG_TRY(evaluate_along(&value, &slope, *step, s, err));
    }
    s->value_before = s->value;
    s->value = value;
    return MG_OK;
}

/* H <- (I - r s y^T) H (I - r y s^T) + r s s^T, s the step and y the change of the gradient; work: n. */
static void update_inverse_hessian(struct state *s, double step) {
    const int n = s->cost->n;
    double *y = s->change, *direction = s->direction, *h = s->inverse_hessian, *hy = s->trial;
    for (int i = 0; i < n; i++) {
        y[i] = s->trial_gradient[i] - s->gradient[i];
        direction[i] *= step;
    }
    const double curvature = dot(y, direction, n), r = curvature == 0.0 ? 1000.0 : 1.0 / curvature;
    for (int i = 0; i < n; i++)
        hy[i] = dot(h + i * n, y, n);
    const double factor = r * r * dot(y, hy, n) + r;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            h[i * n + j] += factor * direction[i] * direction[j] - r * (hy[i] * direction[j] + direction[i] * hy[j]);
}

static mg_status minimise(struct state *s, int max_iter, double tol, struct mg_err *err) {
    const int n = s->cost->n;
    MG_TRY(s->cost->evaluate(&s->value, s->gradient, s->x, s->cost->user, err));
    s->value_before = s->value + sqrt(dot(s->gradient, s->gradient, n)) / 2.0;
    for (int i = 0; i < n * n; i++)
        s->inverse_hessian[i] = i % (n + 1) == 0;
    for (int k = 0; k < max_iter && largest(s->gradient, n) > tol; k++) {
        bool moved;
        double step;
        find_direction(s);
        MG_TRY(take_step(&moved, &step, s, err));
        if (!moved)
            break;
        memcpy(s->x, s->trial, (size_t)n * sizeof(double));
        if (!isfinite(s->value) || largest(s->trial_gradient, n) <= tol)
            break;
        update_inverse_hessian(s, step);
        memcpy(s->gradient, s->trial_gradient, (size_t)n * sizeof(double));
    }
    return MG_OK;
}

mg_status mg_bfgs(double *x, const struct mg_cost_function *cost, int max_iter, double tol, struct mg_err *err) {
    const size_t n = (size_t)cost->n;
    double *work;
    MG_TRY(mg_alloc((void **)&work, (n * n + 5 * n) * sizeof(double), "the solver's state", err));
    struct state s = {.cost = cost,
                      .x = x,
                      .gradient = work,
                      .direction = work + n,
                      .trial = work + 2 * n,
                      .trial_gradient = work + 3 * n,
                      .change = work + 4 * n,
                      .inverse_hessian = work + 5 * n};
    mg_status status = minimise(&s, max_iter, tol, err);
    mg_free(work);
    return status;
}
