/* test_ext.h: what the parts of the test-only extension share. They see the engine's internals; the package does not
 * contain them. */
#ifndef MG_TEST_EXT_H
#define MG_TEST_EXT_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../../csrc/core/core.h"

/* Raises the Python exception of err->status; returns NULL. */
PyObject *mg_test_raise(const struct mg_err *err);

#endif
