/* declared.c: declared_weights of marigold_c._C. */
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

PyMethodDef mgpy_declared_functions[] = {{"declared_weights", declared_weights, METH_VARARGS,
                                          "declared_weights(component, config, name) -> dict: the shape of each weight "
                                          "that the component \"unet\", \"vae\" or\n"
                                          "\"text_encoder\" of this configuration (JSON; `name` for messages) has."},
                                         {NULL, NULL, 0, NULL}};
