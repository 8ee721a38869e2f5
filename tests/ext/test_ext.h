/* test_ext.h: what the parts of the test-only extension share. They see the engine's internals; the package does not
 * contain them. */
#ifndef MG_TEST_EXT_H
#define MG_TEST_EXT_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../../csrc/graph/graph.h"

/* Raises the Python exception of err->status; returns NULL. */
PyObject *mg_test_raise(const struct mg_err *err);

/* ---- ops_ext.c ---- */
/* Records the forward operation `name` with its parameters as a dict; MG_NONE with the graph's error or a Python exception. */
mg_value mg_test_build_op(struct mg_graph *graph, const char *name, const mg_value *in, PyObject *params);
/* Whether an array of `ndim` axes in this slot is a weight. */
bool mg_test_is_weight(const char *name, int slot, int ndim);

#endif
