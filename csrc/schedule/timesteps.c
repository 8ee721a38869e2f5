/* timesteps.c: lists of time steps, and the ways of spacing them over those of training ("Common diffusion noise schedules and
 * sample steps are flawed", arXiv 2305.08891, table 2), in NumPy's arithmetic. */
#include <math.h>
#include <string.h>

#include "scheduler.h"

mg_status mg_timesteps_alloc(struct mg_timesteps *out, int count, int num_sigmas, struct mg_err *err) {
    *out = (struct mg_timesteps){.count = count};
    MG_TRY(mg_alloc((void **)&out->list, (size_t)count * sizeof *out->list, "time steps", err));
    return num_sigmas ? mg_alloc_floats(&out->sigmas, num_sigmas, 1, "noise levels", err) : MG_OK;
}

void mg_timesteps_free(struct mg_timesteps *timesteps) {
    mg_free(timesteps->list);
    mg_free(timesteps->sigmas);
    *timesteps = (struct mg_timesteps){0};
}

int mg_timesteps_trailing(double *out, int num_train, int total, int count) {
    const double begin = num_train, ratio = (double)total / count, delta = (begin - ratio) - begin;
    int found = 0;
    for (int i = 0; i < count; i++) {
        const double timestep = rint(begin + i * delta) - 1.0;
        if (begin + i * delta > 0.0 && timestep >= 0.0)
            out[found++] = timestep;
    }
    return found;
}

void mg_timesteps_linspace(double *out, double last, int count) {
    const double step = count > 1 ? last / (count - 1) : 0.0;
    for (int i = 0; i < count; i++) {
        const int at = count - 1 - i;
        out[i] = at && at == count - 1 ? last : at * step;
    }
}

void mg_timesteps_leading(double *out, int64_t ratio, int64_t offset, int count) {
    for (int i = 0; i < count; i++)
        out[i] = (double)((count - 1 - i) * ratio + offset);
}

void mg_timesteps_by_spacing(struct mg_timesteps *out, const struct mg_scheduler *s, int count) {
    switch (s->spacing) {
    case MG_SPACING_LEADING:
        mg_timesteps_leading(out->list, s->train_timesteps / count, s->steps_offset, count);
        break;
    case MG_SPACING_TRAILING:
        out->count = mg_timesteps_trailing(out->list, s->train_timesteps, s->train_timesteps, count);
        break;
    case MG_SPACING_LINSPACE:
        mg_timesteps_linspace(out->list, s->train_timesteps - 1, count);
    }
}
