/* state.c: what belongs to one import of the module: its exceptions and types, and NumPy's table of functions. */
#define MGPY_IMPORTS_NUMPY
#include "binding.h"

int mgpy_import_numpy(void) {
    import_array1(-1);
    return 0;
}

static int state_traverse(PyObject *module, visitproc visit, void *arg) {
    struct mgpy_state *state = PyModule_GetState(module);
    Py_VISIT(state->checkpoint_error);
    Py_VISIT(state->device_error);
    Py_VISIT(state->not_finite_error);
    Py_VISIT(state->generator_type);
    Py_VISIT(state->scheduler_type);
    Py_VISIT(state->pipeline_type);
    Py_VISIT(state->trainer_type);
    return 0;
}

static int state_clear(PyObject *module) {
    struct mgpy_state *state = PyModule_GetState(module);
    Py_CLEAR(state->checkpoint_error);
    Py_CLEAR(state->device_error);
    Py_CLEAR(state->not_finite_error);
    Py_CLEAR(state->generator_type);
    Py_CLEAR(state->scheduler_type);
    Py_CLEAR(state->pipeline_type);
    Py_CLEAR(state->trainer_type);
    return 0;
}

static void state_free(void *module) { state_clear(module); }

struct PyModuleDef mgpy_module = {PyModuleDef_HEAD_INIT,
                                  .m_name = "marigold_c._C",
                                  .m_doc = "The engine of marigold_c.",
                                  .m_size = sizeof(struct mgpy_state),
                                  .m_traverse = state_traverse,
                                  .m_clear = state_clear,
                                  .m_free = state_free};

/* None of the types can be inherited from, so the type of an object is the module's own. */
struct mgpy_state *mgpy_state_of(PyObject *self) {
    return PyType_GetModuleState(Py_TYPE(self));
}
