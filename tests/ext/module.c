/* module.c: marigold_c._testing, the engine's internals for the test suite. Each AREA_ext.c adds the functions of its
 * area; this file joins them and translates errors. Not part of the package that users install. */
#include "test_ext.h"

extern PyMethodDef mg_test_io_methods[], mg_test_numeric_methods[], mg_test_ops_methods[], mg_test_nn_methods[],
    mg_test_graph_methods[], mg_test_ensemble_methods[], mg_test_packed_methods[], mg_test_gradient_methods[],
    mg_test_group_methods[], mg_test_optimizer_methods[], mg_test_busy_methods[], mg_test_threads_methods[],
    mg_test_completion_methods[], mg_test_loss_methods[];

static PyObject *package_exception(const char *name) {
    PyObject *module = PyImport_ImportModule("marigold_c.errors");
    if (!module)
        return NULL;
    PyObject *exception = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return exception;
}

static PyObject *raise_package_exception(const char *name, const char *message) {
    PyObject *exception = package_exception(name);
    if (exception) {
        PyErr_SetString(exception, message);
        Py_DECREF(exception);
    }
    return NULL;
}

PyObject *mg_test_raise(const struct mg_err *err) {
    switch (err->status) {
    case MG_ERR_CHECKPOINT:
        return raise_package_exception("CheckpointError", err->message);
    case MG_ERR_DEVICE:
        return raise_package_exception("DeviceError", err->message);
    case MG_ERR_IO: {
        PyObject *arguments = Py_BuildValue("(is)", err->os_errno, err->message);
        if (arguments) {
            PyErr_SetObject(PyExc_OSError, arguments);
            Py_DECREF(arguments);
        }
        return NULL;
    }
    case MG_ERR_ARGUMENT:
        PyErr_SetString(PyExc_ValueError, err->message);
        return NULL;
    case MG_ERR_UNSUPPORTED:
        PyErr_SetString(PyExc_NotImplementedError, err->message);
        return NULL;
    case MG_ERR_MEMORY:
        PyErr_SetString(PyExc_MemoryError, err->message);
        return NULL;
    case MG_ERR_CANCELLED:
        PyErr_SetString(PyExc_KeyboardInterrupt, err->message);
        return NULL;
    default:
        PyErr_SetString(PyExc_RuntimeError, err->message);
        return NULL;
    }
}

static int module_exec(PyObject *module) {
    PyMethodDef *areas[] = {mg_test_io_methods,         mg_test_numeric_methods,  mg_test_ops_methods,
                            mg_test_nn_methods,         mg_test_graph_methods,    mg_test_ensemble_methods,
                            mg_test_packed_methods,     mg_test_gradient_methods, mg_test_group_methods,
                            mg_test_optimizer_methods,  mg_test_busy_methods,     mg_test_threads_methods,
                            mg_test_completion_methods, mg_test_loss_methods};
    for (size_t i = 0; i < sizeof areas / sizeof areas[0]; i++)
        if (PyModule_AddFunctions(module, areas[i]))
            return -1;
    return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};
static struct PyModuleDef module_definition = {PyModuleDef_HEAD_INIT, .m_name = "marigold_c._testing",
                                               .m_doc = "Internals for tests.", .m_slots = module_slots};

PyMODINIT_FUNC PyInit__testing(void) { return PyModuleDef_Init(&module_definition); }
