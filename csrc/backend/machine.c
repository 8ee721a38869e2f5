/* machine.c: what this machine reaches, measured through the backend. Calls the backend. */
#include "backend.h"

mg_status mg_measure_machine(struct mg_machine_speed *out, int num_threads, const char *isa, double seconds,
                             struct mg_err *err) {
    struct mg_context context = {.num_threads = mg_threads_or_all(num_threads)};
    *out = (struct mg_machine_speed){0};
    MG_TRY(mg_check_threads(num_threads, err));
    if (!(seconds > 0.0 && seconds <= 60.0))
        return mg_fail(err, MG_ERR_ARGUMENT, "seconds is %g; allowed: above 0, up to 60", seconds);
    MG_TRY(mg_backend_find(&context.backend, "cpu", err));
    MG_TRY(context.backend->open(&context, isa, err));
    out->isa = context.isa;
    out->num_threads = context.num_threads;
    mg_status status = context.backend->measure(&context, seconds, out, err);
    context.backend->close(&context);
    return status;
}
