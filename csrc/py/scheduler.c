/* scheduler.c: the type Scheduler, of the class that its configuration names. */
#include <string.h>

#include "binding.h"

static PyObject *scheduler_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"config_json", NULL};
    const char *text;
    Py_ssize_t bytes;
    struct mg_err err;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s#:Scheduler", names, &text, &bytes))
        return NULL;
    struct mgpy_scheduler *self = (struct mgpy_scheduler *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    if (mg_scheduler_create(&self->handle, text, (size_t)bytes, &err) != MG_OK) {
        struct mgpy_state *state = mgpy_state_of((PyObject *)self);
        if (state)
            mgpy_raise(state, &err);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void scheduler_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    mg_scheduler_destroy(((struct mgpy_scheduler *)object)->handle);
    PyObject_Free(object);
    Py_DECREF(type);
}

/* The handle, or NULL with RuntimeError while a run in another thread works on it. */
static mg_scheduler *idle_handle(PyObject *object) {
    struct mgpy_scheduler *self = (struct mgpy_scheduler *)object;
    return mgpy_refuse_busy(self->user, "scheduler") ? NULL : self->handle;
}

static PyObject *scheduler_set_timesteps(PyObject *object, PyObject *args) {
    int steps;
    struct mg_err err;
    mg_scheduler *handle;
    if (!PyArg_ParseTuple(args, "i:set_timesteps", &steps) || !(handle = idle_handle(object)))
        return NULL;
    if (mg_scheduler_set_timesteps(handle, steps, &err) != MG_OK) {
        struct mgpy_state *state = mgpy_state_of(object);
        return state ? mgpy_raise(state, &err) : NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *scheduler_step_of(PyObject *object, PyObject *args) {
    double timestep;
    int step;
    struct mg_err err;
    mg_scheduler *handle;
    if (!PyArg_ParseTuple(args, "d:step_of", &timestep) || !(handle = idle_handle(object)))
        return NULL;
    if (mg_scheduler_step_of(&step, handle, timestep, &err) != MG_OK) {
        struct mgpy_state *state = mgpy_state_of(object);
        return state ? mgpy_raise(state, &err) : NULL;
    }
    return PyLong_FromLong(step);
}

static PyObject *scheduler_step_coefficients(PyObject *object, PyObject *args) {
    struct mg_step_options options;
    int step, has_last_estimate;
    struct mg_err err;
    struct mg_step_coefficients k;
    mg_scheduler *handle;
    if (!PyArg_ParseTuple(args, "idp:step_coefficients", &step, &options.eta, &has_last_estimate) ||
        !(handle = idle_handle(object)))
        return NULL;
    options.has_last_estimate = has_last_estimate;
    if (mg_scheduler_step_coefficients(&k, handle, step, &options, &err) != MG_OK) {
        struct mgpy_state *state = mgpy_state_of(object);
        return state ? mgpy_raise(state, &err) : NULL;
    }
    return Py_BuildValue("ddddddd", (double)k.input_factor, (double)k.sample_factor, (double)k.model_factor,
                         (double)k.noise_factor, (double)k.last_estimate_factor, (double)k.origin_sample_factor,
                         (double)k.origin_model_factor);
}

static PyObject *scheduler_timesteps(PyObject *object, void *Py_UNUSED(closure)) {
    mg_scheduler *handle = idle_handle(object);
    if (!handle)
        return NULL;
    int count = 0;
    const double *steps = mg_scheduler_timesteps(handle, &count);
    const bool whole = mg_scheduler_has_whole_timesteps(handle);
    npy_intp shape[1] = {steps ? count : 0};
    PyArrayObject *out = (PyArrayObject *)PyArray_SimpleNew(1, shape, whole ? NPY_INT64 : NPY_FLOAT32);
    for (int i = 0; out && i < shape[0]; i++) {
        if (whole)
            ((int64_t *)PyArray_DATA(out))[i] = (int64_t)steps[i];
        else
            ((float *)PyArray_DATA(out))[i] = (float)steps[i];
    }
    return (PyObject *)out;
}

static PyObject *scheduler_alphas_cumprod(PyObject *object, void *Py_UNUSED(closure)) {
    const mg_scheduler *handle = ((struct mgpy_scheduler *)object)->handle;
    npy_intp shape[1] = {mg_scheduler_num_train_timesteps(handle)};
    PyArrayObject *out = mgpy_new_floats(1, shape);
    if (out)
        memcpy(PyArray_DATA(out), mg_scheduler_alphas_cumprod(handle), (size_t)shape[0] * sizeof(float));
    return (PyObject *)out;
}

static PyObject *scheduler_class_name(PyObject *object, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(mg_scheduler_class_name(((struct mgpy_scheduler *)object)->handle));
}

static PyObject *scheduler_init_noise_sigma(PyObject *object, void *Py_UNUSED(closure)) {
    return PyFloat_FromDouble(mg_scheduler_init_noise_sigma(((struct mgpy_scheduler *)object)->handle));
}

static PyMethodDef scheduler_methods[] = {
    {"set_timesteps", scheduler_set_timesteps, METH_VARARGS, "set_timesteps(num_inference_steps)"},
    {"step_of", scheduler_step_of, METH_VARARGS, "step_of(timestep): its place among the time steps."},
    {"step_coefficients", scheduler_step_coefficients, METH_VARARGS,
     "step_coefficients(step, eta, has_last_estimate): the factor of the network's input; those of sample, model "
     "output, "
     "noise and last estimate in the next sample; those of sample and model output in the estimate of the clean "
     "sample."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef scheduler_getters[] = {
    {"timesteps", scheduler_timesteps, NULL,
     "In order of use, int64 or, if they are real numbers, float32; empty before set_timesteps.", NULL},
    {"alphas_cumprod", scheduler_alphas_cumprod, NULL, "float32, one for each training time step.", NULL},
    {"class_name", scheduler_class_name, NULL, NULL, NULL},
    {"init_noise_sigma", scheduler_init_noise_sigma, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot scheduler_slots[] = {{Py_tp_doc, "Scheduler(config_json): the text of a scheduler_config.json."},
                                        {Py_tp_new, scheduler_new},
                                        {Py_tp_dealloc, scheduler_dealloc},
                                        {Py_tp_methods, scheduler_methods},
                                        {Py_tp_getset, scheduler_getters},
                                        {0, NULL}};

PyType_Spec mgpy_scheduler_spec = {.name = "marigold_c._C.Scheduler",
                                   .basicsize = sizeof(struct mgpy_scheduler),
                                   .flags = Py_TPFLAGS_DEFAULT,
                                   .slots = scheduler_slots};
