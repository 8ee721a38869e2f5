/* errors.c: mg_err -> Python exception. */
#include <string.h>

#include "binding.h"

static PyObject *exception_class(const struct mgpy_state *state, mg_status status) {
    switch (status) {
    case MG_ERR_ARGUMENT:
        return PyExc_ValueError;
    case MG_ERR_CHECKPOINT:
        return state->checkpoint_error;
    case MG_ERR_UNSUPPORTED:
        return PyExc_NotImplementedError;
    case MG_ERR_DEVICE:
        return state->device_error;
    case MG_ERR_MEMORY:
        return PyExc_MemoryError;
    case MG_ERR_IO:
        return PyExc_OSError;
    case MG_ERR_NOT_FINITE:
        return state->not_finite_error;
    case MG_ERR_CANCELLED:
        return PyExc_KeyboardInterrupt;
    default:
        return PyExc_RuntimeError;
    }
}

PyObject *mgpy_raise(const struct mgpy_state *state, const struct mg_err *err) {
    /* A signal handler's own exception says more than "cancelled". */
    if (PyErr_Occurred())
        return NULL;
    PyObject *class = exception_class(state, err->status);
    /* Messages quote names out of files, which need not be UTF-8. */
    PyObject *message = PyUnicode_DecodeUTF8(err->message, (Py_ssize_t)strlen(err->message), "replace");
    if (!message)
        return NULL;
    if (err->status == MG_ERR_IO && err->os_errno) {
        /* OSError(errno, text) becomes FileNotFoundError, PermissionError, ... by itself. */
        PyObject *exception = PyObject_CallFunction(class, "iO", err->os_errno, message);
        if (exception) {
            PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
            Py_DECREF(exception);
        }
    } else {
        PyErr_SetObject(class, message);
    }
    Py_DECREF(message);
    return NULL;
}
