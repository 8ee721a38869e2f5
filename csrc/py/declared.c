/* declared.c: declared_weights of marigold_c._C, and a pipeline's weights, which are declared in the same way. */
#include <string.h>

#include "binding.h"

/* A dict that is being filled; what goes wrong is left as Python's exception. */
static void add(void *user, const char *key, const int64_t *shape, int ndim) {
    PyObject *dict = user, *tuple = PyErr_Occurred() ? NULL : PyTuple_New(ndim);
    for (int d = 0; tuple && d < ndim; d++)
        PyTuple_SetItem(tuple, d, PyLong_FromLongLong(shape[d]));
    if (tuple && !PyErr_Occurred())
        PyDict_SetItemString(dict, key, tuple);
    Py_XDECREF(tuple);
}

static PyObject *declared_weights(PyObject *module, PyObject *args) {
    const char *component, *config, *name;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "ss#s:declared_weights", &component, &config, &length, &name))
        return NULL;
    PyObject *dict = PyDict_New();
    struct mg_err *err = PyMem_Calloc(1, sizeof *err);
    mg_status status = MG_OK;
    if (dict && err)
        status = mg_declared_weights(component, config, (size_t)length, name, add, dict, err);
    else
        PyErr_NoMemory();
    if (status)
        mgpy_raise(PyModule_GetState(module), err);
    PyMem_Free(err);
    if (PyErr_Occurred())
        Py_CLEAR(dict);
    return dict;
}

PyObject *mgpy_pipeline_weights(PyObject *object, PyObject *args) {
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    const char *component;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "s:weights", &component) || mgpy_refuse_busy(self->call, self->kind))
        return NULL;
    PyObject *dict = PyDict_New();
    /* With the GIL held: `add` makes Python objects. */
    if (dict && mg_pipeline_weights(self->handle, component, add, dict, &err) != MG_OK)
        mgpy_raise(mgpy_state_of(object), &err);
    if (PyErr_Occurred())
        Py_CLEAR(dict);
    return dict;
}

/* The weight that is looked for among those of a component. */
struct wanted {
    const char *key;
    int ndim; /* -1 while it was not found */
    npy_intp dims[NPY_MAXDIMS];
};

static void look(void *user, const char *key, const int64_t *shape, int ndim) {
    struct wanted *wanted = user;
    if (strcmp(key, wanted->key))
        return;
    wanted->ndim = ndim;
    for (int d = 0; d < ndim; d++)
        wanted->dims[d] = (npy_intp)shape[d];
}

PyObject *mgpy_pipeline_read_weight(PyObject *object, PyObject *args) {
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    const char *component;
    struct wanted wanted = {.ndim = -1};
    struct mgpy_call call;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "ss:read_weight", &component, &wanted.key) || mgpy_refuse_busy(self->call, self->kind))
        return NULL;
    if (mg_pipeline_weights(self->handle, component, look, &wanted, &err) != MG_OK)
        return mgpy_raise(mgpy_state_of(object), &err);
    if (wanted.ndim < 0)
        return PyErr_Format(PyExc_ValueError, "there is no weight %s", wanted.key);
    PyArrayObject *out = mgpy_new_floats(wanted.ndim, wanted.dims);
    if (out && mgpy_call_begin(self, &call, NULL)) {
        const mg_status status = mg_pipeline_read_weight(mgpy_floats(out), self->handle, component, wanted.key, &err);
        if (!mgpy_call_end(self, &call, status, &err))
            Py_CLEAR(out);
    } else {
        Py_CLEAR(out);
    }
    return (PyObject *)out;
}

PyMethodDef mgpy_declared_functions[] = {{"declared_weights", declared_weights, METH_VARARGS,
                                          "declared_weights(component, config, name) -> dict: the shape of each weight "
                                          "that the component \"unet\", \"vae\" or\n"
                                          "\"text_encoder\" of this configuration (JSON; `name` for messages) has."},
                                         {NULL, NULL, 0, NULL}};
