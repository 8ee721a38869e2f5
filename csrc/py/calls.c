/* calls.c: the GIL around a call on a pipeline. It is released once per public call; the engine's callbacks take it
 * back for a moment: poll to let signal handlers run (Ctrl-C), progress to call a Python function. */
#include <time.h>

#include "binding.h"

/* Taking the GIL waits for the thread that holds it, so between operations of microseconds it is not taken every time. */
enum { POLL_INTERVAL_NS = 20 * 1000 * 1000 };

static int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool mgpy_refuse_busy(const void *user, const char *what) {
    if (user)
        PyErr_Format(PyExc_RuntimeError, "this %s is already running in another thread; use a second one", what);
    return user != NULL;
}

bool mgpy_call_begin(struct mgpy_pipeline *self, struct mgpy_call *call, PyObject *progress) {
    if (mgpy_refuse_busy(self->call, self->kind))
        return false;
    *call = (struct mgpy_call){.progress = progress == Py_None ? NULL : progress,
                               .next_poll_ns = monotonic_ns() + POLL_INTERVAL_NS};
    self->call = call;
    call->thread = PyEval_SaveThread();
    return true;
}

/* Results depend on how much memory was free then, which their caller is to know. False: the warning is an error. */
static bool tell_of_tiles(const struct mgpy_pipeline *self) {
    struct mg_pipeline_info info;
    if (!self->handle)
        return true;
    mg_pipeline_get_info(self->handle, &info);
    return !info.vae_tiled || info.vae_tiling != MG_VAE_TILING_AUTO ||
           PyErr_WarnEx(PyExc_UserWarning,
                        "memory did not hold the image whole: the autoencoder worked in tiles, whose results are near "
                        "to those of the whole (vae_tiling=True and False decide)",
                        1) == 0;
}

bool mgpy_call_end(struct mgpy_pipeline *self, struct mgpy_call *call, mg_status status, const struct mg_err *err) {
    PyEval_RestoreThread(call->thread);
    self->call = NULL;
    if (call->raised)
        return false;
    if (status == MG_OK)
        return tell_of_tiles(self);
    struct mgpy_state *state = mgpy_state_of((PyObject *)self);
    if (state)
        mgpy_raise(state, err);
    return false;
}

int mgpy_poll(void *user) {
    struct mgpy_call *call = ((struct mgpy_pipeline *)user)->call;
    if (call->raised || atomic_load(&call->cancelled))
        return 1;
    if (monotonic_ns() < call->next_poll_ns)
        return 0;
    PyEval_RestoreThread(call->thread);
    call->raised = PyErr_CheckSignals() != 0;
    call->thread = PyEval_SaveThread();
    call->next_poll_ns = monotonic_ns() + POLL_INTERVAL_NS;
    return call->raised;
}

void mgpy_progress(void *user, int done, int total) {
    struct mgpy_call *call = ((struct mgpy_pipeline *)user)->call;
    if (call->raised || !call->progress)
        return;
    PyEval_RestoreThread(call->thread);
    PyObject *result = PyObject_CallFunction(call->progress, "ii", done, total);
    call->raised = result == NULL;
    Py_XDECREF(result);
    call->thread = PyEval_SaveThread();
}
