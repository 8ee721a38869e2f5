/* module.c: marigold_c._C, the binding of the engine (PEP 489, all state per module). */
#include "binding.h"

static PyObject *module_available_threads(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    return PyLong_FromLong(mg_available_threads());
}

static PyObject *module_best_isa(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    return PyUnicode_FromString(mg_best_isa());
}

static PyObject *module_instruction_sets(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    PyObject *list = PyList_New(0);
    const char *name;
    for (int i = 0; list && (name = mg_isa(i)); i++) {
        PyObject *text = PyUnicode_FromString(name);
        if (!text || PyList_Append(list, text))
            Py_CLEAR(list);
        Py_XDECREF(text);
    }
    return list;
}

/* The first call that asks has an exception set. */
static int poll_signals(void *user) {
    PyThreadState **thread = user;
    PyEval_RestoreThread(*thread);
    int raised = PyErr_CheckSignals();
    *thread = PyEval_SaveThread();
    return raised;
}

static PyObject *module_verify_packed(PyObject *module, PyObject *argument) {
    PyObject *path;
    struct mg_err err;
    if (!PyUnicode_FSConverter(argument, &path))
        return NULL;
    PyThreadState *thread = PyEval_SaveThread();
    mg_status status = mg_packed_file_verify(PyBytes_AsString(path), poll_signals, &thread, &err);
    PyEval_RestoreThread(thread);
    Py_DECREF(path);
    if (status != MG_OK)
        return mgpy_raise(PyModule_GetState(module), &err);
    Py_RETURN_NONE;
}

static PyObject *module_family_of_checkpoint(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *class_name;
    int input_latents, replaced;
    if (!PyArg_ParseTuple(args, "sip:family_of_checkpoint", &class_name, &input_latents, &replaced))
        return NULL;
    return Py_BuildValue("z", mg_family_of_checkpoint(class_name, input_latents, replaced));
}

static PyMethodDef module_functions[] = {
    {"available_threads", module_available_threads, METH_NOARGS, "Processors that this process may use."},
    {"verify_packed", module_verify_packed, METH_O, "Compares every checksum of a packed file."},
    {"family_of_checkpoint", module_family_of_checkpoint, METH_VARARGS,
     "family_of_checkpoint(class_name, input_latents, replaced): the family's name, or None."},
    {"instruction_sets", module_instruction_sets, METH_NOARGS,
     "The instruction sets of this processor that the engine knows, the best last."},
    {"best_isa", module_best_isa, METH_NOARGS, "The best instruction set of this processor that the engine knows."},
    {NULL, NULL, 0, NULL}};

static int add_exceptions(struct mgpy_state *state) {
    PyObject *errors = PyImport_ImportModule("marigold_c.errors");
    if (!errors)
        return -1;
    state->checkpoint_error = PyObject_GetAttrString(errors, "CheckpointError");
    state->device_error = PyObject_GetAttrString(errors, "DeviceError");
    state->not_finite_error = PyObject_GetAttrString(errors, "NotFiniteError");
    Py_DECREF(errors);
    return state->checkpoint_error && state->device_error && state->not_finite_error ? 0 : -1;
}

static int add_type(PyObject *module, PyTypeObject **out, PyType_Spec *spec) {
    *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *out ? PyModule_AddType(module, *out) : -1;
}

static int module_exec(PyObject *module) {
    struct mgpy_state *state = PyModule_GetState(module);
    if (mgpy_import_numpy() || add_exceptions(state) ||
        add_type(module, &state->generator_type, &mgpy_generator_spec) ||
        add_type(module, &state->scheduler_type, &mgpy_scheduler_spec) ||
        add_type(module, &state->pipeline_type, &mgpy_pipeline_spec) ||
        add_type(module, &state->trainer_type, &mgpy_trainer_spec) ||
        PyModule_AddFunctions(module, mgpy_image_functions) || PyModule_AddFunctions(module, mgpy_ensemble_functions) ||
        PyModule_AddFunctions(module, mgpy_evaluation_functions) ||
        PyModule_AddFunctions(module, mgpy_machine_functions) || PyModule_AddFunctions(module, mgpy_declared_functions))
        return -1;
    return PyModule_AddStringConstant(module, "__version__", mg_version());
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

PyMODINIT_FUNC PyInit__C(void) {
    mgpy_module.m_methods = module_functions;
    mgpy_module.m_slots = module_slots;
    return PyModuleDef_Init(&mgpy_module);
}
