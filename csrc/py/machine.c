/* machine.c: measure_machine of marigold_c._C. */
#include "binding.h"

static PyObject *measure_machine(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"num_threads", "isa", "seconds", NULL};
    int num_threads = 0;
    const char *isa = NULL;
    double seconds = 2.0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$izd", names, &num_threads, &isa, &seconds))
        return NULL;
    struct mg_err *err = PyMem_Calloc(1, sizeof *err);
    if (!err)
        return PyErr_NoMemory();
    struct mg_machine_speed speed;
    mg_status status;
    Py_BEGIN_ALLOW_THREADS;
    status = mg_measure_machine(&speed, num_threads, isa, seconds, err);
    Py_END_ALLOW_THREADS;
    PyObject *result =
        status ? mgpy_raise(PyModule_GetState(module), err)
               : Py_BuildValue("{s:s,s:i,s:d,s:d,s:d,s:d}", "isa", speed.isa, "num_threads", speed.num_threads,
                               "float32", speed.products[MG_SPEED_F32], "bfloat16", speed.products[MG_SPEED_BF16],
                               "int8", speed.products[MG_SPEED_I8], "copy", speed.copy);
    PyMem_Free(err);
    return result;
}

PyMethodDef mgpy_machine_functions[] = {{"measure_machine", (PyCFunction)(void (*)(void))measure_machine,
                                         METH_VARARGS | METH_KEYWORDS,
                                         "measure_machine(*, num_threads=0, isa=None, seconds=2.0) -> dict: operations "
                                         "a second in matrix products of each\n"
                                         "type, bytes read and written a second in copying."},
                                        {NULL, NULL, 0, NULL}};
