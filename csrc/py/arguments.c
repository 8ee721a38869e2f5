/* arguments.c: what several methods of Pipeline take alike: a scheduler, an image's geometry; and arrays of results. */
#include <string.h>

#include "binding.h"

bool mgpy_take_scheduler(mg_scheduler **out, PyObject *object, const struct mgpy_state *state) {
    *out = NULL;
    if (object == Py_None)
        return true;
    if (!PyObject_TypeCheck(object, state->scheduler_type)) {
        PyErr_Format(PyExc_TypeError, "`scheduler` must be a Scheduler; got %R", (PyObject *)Py_TYPE(object));
        return false;
    }
    struct mgpy_scheduler *scheduler = (struct mgpy_scheduler *)object;
    if (mgpy_refuse_busy(scheduler->user, "scheduler"))
        return false;
    *out = scheduler->handle;
    return true;
}

void mgpy_mark_scheduler(PyObject *object, const void *user) {
    if (object != Py_None)
        ((struct mgpy_scheduler *)object)->user = user;
}

bool mgpy_take_geometry(struct mg_geometry *out, const struct mgpy_pipeline *self, int64_t h, int64_t w,
                        int64_t resolution, mg_preset preset, const struct mgpy_state *state) {
    struct mg_pipeline_info info;
    struct mg_err err;
    mg_pipeline_get_info(self->handle, &info);
    if (resolution < 0)
        resolution = info.default_processing_resolution < 0 ? 0 : info.default_processing_resolution;
    if (mg_geometry_of(out, h, w, resolution, info.vae_scale, preset, &err) == MG_OK)
        return true;
    mgpy_raise(state, &err);
    return false;
}

PyArrayObject *mgpy_take_latents(PyObject *object, const char *name, int64_t n, int64_t channels,
                                 const struct mg_geometry *geometry) {
    const int64_t shape[4] = {n, channels, geometry->latent_h, geometry->latent_w};
    PyArrayObject *array = mgpy_float_array(object, 4, name, "N, C, h, w");
    if (array && !mgpy_check_shape(array, shape, name))
        Py_CLEAR(array);
    return array;
}

bool mgpy_take_dilations(struct mg_snippets *snippets, int64_t list[MG_MAX_DILATIONS], PyObject *object) {
    PyObject *tuple = PySequence_Tuple(object);
    if (!tuple)
        return false;
    const Py_ssize_t count = PyTuple_Size(tuple);
    for (Py_ssize_t i = 0; i < count && i < MG_MAX_DILATIONS && !PyErr_Occurred(); i++)
        list[i] = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
    Py_DECREF(tuple);
    snippets->dilations = list;
    snippets->num_dilations = count <= MG_MAX_DILATIONS ? (int)count : MG_MAX_DILATIONS + 1;
    return !PyErr_Occurred();
}

PyObject *mgpy_copied_array(const void *data, int ndim, const npy_intp *dims, int type) {
    if (!data)
        Py_RETURN_NONE;
    PyArrayObject *array = (PyArrayObject *)PyArray_SimpleNew(ndim, (npy_intp *)dims, type);
    if (array)
        memcpy(PyArray_DATA(array), data, (size_t)PyArray_NBYTES(array));
    return (PyObject *)array;
}
