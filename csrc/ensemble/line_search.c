/* line_search.c: how far to go along a direction: two searches for a step that satisfies the strong Wolfe conditions.
 *
 * The first is that of Moré and Thuente (ACM TOMS 20, 1994; MINPACK-2's dcsrch and dcstep), the second brackets and zooms
 * (Nocedal and Wright, Numerical Optimization, algorithms 3.5 and 3.6). Their constants are those that scipy uses. */
#include <math.h>

#include "ensemble.h"

static const double sufficient_decrease = 1e-4, curvature = 0.9;

struct point {
    double step, value, slope;
};

static double largest3(double a, double b, double c) { return fmax(fabs(a), fmax(fabs(b), fabs(c))); }
static double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }
static double sign_of(double x) { return (x > 0) - (x < 0); }

static mg_status evaluate_at(struct point *at, const struct mg_line *line, double step, struct mg_err *err) {
    at->step = step;
    return line->at(&at->value, &at->slope, step, line->user, err);
}

/* ---- Moré and Thuente ---- */
struct bracket {
    struct point best, other; /* the step with the least value so far, and the other end of the interval */
    bool closed;              /* a minimiser lies between them */
};

/* The minimiser of the cubic through two points with their slopes, as a step from `from` towards `to`. flip: its gamma is
 * negative. guard: gamma is zero rather than imaginary. */
struct cubic {
    double gamma, ratio;
};
static struct cubic cubic_step(const struct point *from, const struct point *to, double theta_value, bool flip,
                               bool guard) {
    const double s = largest3(theta_value, from->slope, to->slope);
    double radicand = theta_value / s * (theta_value / s) - from->slope / s * (to->slope / s);
    double gamma = s * sqrt(guard ? fmax(0.0, radicand) : radicand);
    if (flip)
        gamma = -gamma;
    const double p = gamma - from->slope + theta_value, q = gamma - from->slope + gamma + to->slope;
    return (struct cubic){gamma, p / q};
}

static double theta_of(const struct point *a, const struct point *b) {
    return 3.0 * (a->value - b->value) / (b->step - a->step) + a->slope + b->slope;
}

/* The four cases of the paper: the next step to try. */
static double next_step(struct bracket *b, const struct point *now, double low, double high) {
    const struct point *best = &b->best, *other = &b->other;
    const double opposite = sign_of(now->slope) * sign_of(best->slope);
    if (now->value > best->value) { /* 1: higher: a minimum lies between */
        struct cubic c = cubic_step(best, now, theta_of(best, now), now->step < best->step, false);
        double cubic = best->step + c.ratio * (now->step - best->step);
        double secant = (best->value - now->value) / (now->step - best->step) + best->slope;
        double quadratic = best->step + best->slope / secant / 2.0 * (now->step - best->step);
        b->closed = true;
        return fabs(cubic - best->step) <= fabs(quadratic - best->step) ? cubic : cubic + (quadratic - cubic) / 2.0;
    }
    const double secant = now->step + now->slope / (now->slope - best->slope) * (best->step - now->step);
    if (opposite < 0.0) { /* 2: lower, slopes of opposite sign: a minimum lies between */
        struct cubic c = cubic_step(now, best, theta_of(best, now), now->step > best->step, false);
        double cubic = now->step + c.ratio * (best->step - now->step);
        b->closed = true;
        return fabs(cubic - now->step) > fabs(secant - now->step) ? cubic : secant;
    }
    if (fabs(now->slope) < fabs(best->slope)) { /* 3: lower and flatter */
        struct cubic c = cubic_step(now, best, theta_of(best, now), now->step > best->step, true);
        double cubic = now->step > best->step ? high : low;
        if (c.ratio < 0.0 && c.gamma != 0.0)
            cubic = now->step + c.ratio * (best->step - now->step);
        const bool nearer = fabs(cubic - now->step) < fabs(secant - now->step);
        if (!b->closed)
            return clamp(fabs(cubic - now->step) > fabs(secant - now->step) ? cubic : secant, low, high);
        double step = nearer ? cubic : secant, limit = now->step + 0.66 * (other->step - now->step);
        return now->step > best->step ? fmin(limit, step) : fmax(limit, step);
    }
    if (b->closed) { /* 4: lower and not flatter */
        struct cubic c = cubic_step(
            now, other, 3.0 * (now->value - other->value) / (other->step - now->step) + other->slope + now->slope,
            now->step > other->step, false);
        return now->step + c.ratio * (other->step - now->step);
    }
    return now->step > best->step ? high : low;
}

/* Narrows the interval by the point just seen and returns the next step. */
static double update(struct bracket *b, const struct point *now, double low, double high) {
    const double opposite = sign_of(now->slope) * sign_of(b->best.slope);
    const double step = next_step(b, now, low, high);
    if (now->value > b->best.value) {
        b->other = *now;
    } else {
        if (opposite < 0.0)
            b->other = b->best;
        b->best = *now;
    }
    return step;
}

/* In the first stage the line's slope at 0 is taken off, so that the interval closes in on a point of decrease. */
static struct point tilted(struct point p, double slope) {
    return (struct point){p.step, p.value - p.step * slope, p.slope - slope};
}

static double update_tilted(struct bracket *b, const struct point *now, double slope, double low, double high) {
    struct bracket flat = {tilted(b->best, slope), tilted(b->other, slope), b->closed};
    const struct point flat_now = tilted(*now, slope);
    const double step = update(&flat, &flat_now, low, high);
    *b = (struct bracket){tilted(flat.best, -slope), tilted(flat.other, -slope), flat.closed};
    return step;
}

mg_status mg_search_more_thuente(bool *found, double *step, double *value, const struct mg_line *line, double first,
                                 struct mg_err *err) {
    const double least = 1e-100, most = 1e100, precision = 1e-14;
    const double slope = sufficient_decrease * line->slope;
    struct bracket b = {{0.0, line->value, line->slope}, {0.0, line->value, line->slope}, false};
    double low = 0.0, high = 5.0 * first, width = most - least, width_before = 2.0 * width;
    bool first_stage = true;
    *found = false;
    if (!(line->slope < 0.0) || first < least || first > most)
        return MG_OK;
    *step = first;
    for (int iteration = 0; iteration < 99; iteration++) {
        struct point now;
        MG_TRY(evaluate_at(&now, line, *step, err));
        const double wanted = line->value + now.step * slope;
        if (first_stage && now.value <= wanted && now.slope >= 0.0)
            first_stage = false;
        *value = now.value;
        if (now.value <= wanted && fabs(now.slope) <= curvature * -line->slope) {
            *found = true;
            return MG_OK;
        }
        if ((b.closed && (now.step <= low || now.step >= high || high - low <= precision * high)) ||
            (now.step == most && now.value <= wanted && now.slope <= slope) ||
            (now.step == least && (now.value > wanted || now.slope >= slope)))
            return MG_OK;
        const bool tilt = first_stage && now.value <= b.best.value && now.value > wanted;
        *step = tilt ? update_tilted(&b, &now, slope, low, high) : update(&b, &now, low, high);
        if (b.closed) {
            const double span = fabs(b.other.step - b.best.step);
            if (span >= 0.66 * width_before)
                *step = b.best.step + 0.5 * (b.other.step - b.best.step);
            width_before = width;
            width = span;
            low = fmin(b.best.step, b.other.step);
            high = fmax(b.best.step, b.other.step);
        } else {
            low = *step + 1.1 * (*step - b.best.step);
            high = *step + 4.0 * (*step - b.best.step);
        }
        *step = clamp(*step, least, most);
        if (b.closed && (*step <= low || *step >= high || high - low <= precision * high))
            *step = b.best.step;
        if (!isfinite(*step))
            return MG_OK;
    }
    return MG_OK;
}

/* ---- bracket and zoom ---- */

/* Minimiser of the cubic through a (with its slope), b and c; NaN if there is none. */
static double cubic_minimum(const struct point *a, const struct point *b, const struct point *c) {
    const double db = b->step - a->step, dc = c->step - a->step, scale = db * dc * db * dc * (db - dc);
    const double fb = b->value - a->value - a->slope * db, fc = c->value - a->value - a->slope * dc;
    const double cubic = (dc * dc * fb - db * db * fc) / scale;
    const double square = (-dc * dc * dc * fb + db * db * db * fc) / scale;
    return a->step + (-square + sqrt(square * square - 3.0 * cubic * a->slope)) / (3.0 * cubic);
}

static double quadratic_minimum(const struct point *a, const struct point *b) {
    const double db = b->step - a->step, square = (b->value - a->value - a->slope * db) / (db * db);
    return a->step - a->slope / (2.0 * square);
}

/* A step between low and high, not too near either end. */
static double step_between(const struct point *low, const struct point *high, const struct point *before) {
    const double span = high->step - low->step, a = fmin(low->step, high->step), b = fmax(low->step, high->step);
    double step = before ? cubic_minimum(low, high, before) : NAN;
    if (isfinite(step) && !(step > b - 0.2 * span) && !(step < a + 0.2 * span))
        return step;
    step = quadratic_minimum(low, high);
    if (isfinite(step) && !(step > b - 0.1 * span) && !(step < a + 0.1 * span))
        return step;
    return low->step + 0.5 * span;
}

static mg_status zoom(bool *found, double *step, double *value, const struct mg_line *line, struct point low,
                      struct point high, struct mg_err *err) {
    struct point before = {0.0, line->value, line->slope};
    for (int i = 0; i <= 10; i++) {
        struct point now = {.step = step_between(&low, &high, i ? &before : NULL)};
        MG_TRY(line->at(&now.value, NULL, now.step, line->user, err));
        if (now.value > line->value + sufficient_decrease * now.step * line->slope || now.value >= low.value) {
            before = high;
            high = now;
            continue;
        }
        MG_TRY(evaluate_at(&now, line, now.step, err));
        if (fabs(now.slope) <= -curvature * line->slope) {
            *found = true;
            *step = now.step;
            *value = now.value;
            return MG_OK;
        }
        if (now.slope * (high.step - low.step) >= 0.0) {
            before = high;
            high = low;
        } else {
            before = low;
        }
        low = now;
    }
    return MG_OK;
}

mg_status mg_search_bracket_and_zoom(bool *found, double *step, double *value, const struct mg_line *line, double first,
                                     struct mg_err *err) {
    struct point last = {0.0, line->value, line->slope}, now = {.step = first};
    *found = false;
    MG_TRY(line->at(&now.value, NULL, now.step, line->user, err));
    for (int i = 0; i < 10; i++) {
        if (now.step == 0.0 || last.step > 1e100)
            return MG_OK;
        if (now.value > line->value + sufficient_decrease * now.step * line->slope ||
            (now.value >= last.value && i > 0))
            return zoom(found, step, value, line, last, now, err);
        MG_TRY(evaluate_at(&now, line, now.step, err));
        *step = now.step;
        *value = now.value;
        if (fabs(now.slope) <= -curvature * line->slope) {
            *found = true;
            return MG_OK;
        }
        if (now.slope >= 0.0)
            return zoom(found, step, value, line, now, last, err);
        last = now;
        now.step = fmin(2.0 * last.step, 1e100);
        MG_TRY(line->at(&now.value, NULL, now.step, line->user, err));
    }
    *found = true; /* out of patience: the last step goes down, if not far enough */
    *step = now.step;
    *value = now.value;
    return MG_OK;
}
