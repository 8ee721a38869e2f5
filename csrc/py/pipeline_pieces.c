/* pipeline_pieces.c: Pipeline.vae_encode, vae_decode, unet and the text embedding, for work stage by stage. */
#include <string.h>

#include "binding.h"

static struct mg_pipeline_info info_of(const struct mgpy_pipeline *self) {
    struct mg_pipeline_info info;
    mg_pipeline_get_info(self->handle, &info);
    return info;
}

/* (N, channels, H, W) of `object`; NULL with ValueError if the channels differ. */
static PyArrayObject *planes(PyObject *object, int channels, const char *name) {
    PyArrayObject *array = mgpy_float_array(object, 4, name, "N, C, H, W");
    if (!array)
        return NULL;
    const npy_intp *d = PyArray_DIMS(array);
    if (!mgpy_check_shape(array, (int64_t[]){d[0], channels, d[2], d[3]}, name))
        Py_CLEAR(array);
    return array;
}

PyObject *mgpy_pipeline_vae_encode(PyObject *object, PyObject *x_object) {
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    const struct mg_pipeline_info info = info_of(self);
    struct mgpy_call call;
    struct mg_err err;
    PyArrayObject *x = planes(x_object, 3, "x"), *out = NULL;
    if (!x)
        return NULL;
    const npy_intp *d = PyArray_DIMS(x);
    out = mgpy_new_floats(4, (npy_intp[]){d[0], info.latent_channels, d[2] / info.vae_scale, d[3] / info.vae_scale});
    if (out && mgpy_call_begin(self, &call, NULL)) {
        mg_status status =
            mg_pipeline_vae_encode(mgpy_floats(out), self->handle, mgpy_floats(x), d[0], d[2], d[3], &err);
        if (!mgpy_call_end(self, &call, status, &err))
            Py_CLEAR(out);
    } else {
        Py_CLEAR(out);
    }
    Py_DECREF(x);
    return (PyObject *)out;
}

PyObject *mgpy_pipeline_vae_decode(PyObject *object, PyObject *z_object) {
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    const struct mg_pipeline_info info = info_of(self);
    struct mgpy_call call;
    struct mg_err err;
    PyArrayObject *z = planes(z_object, info.latent_channels, "z"), *out = NULL;
    if (!z)
        return NULL;
    const npy_intp *d = PyArray_DIMS(z);
    if (d[2] > INT32_MAX || d[3] > INT32_MAX)
        PyErr_SetString(PyExc_ValueError, "`z` is too large");
    else
        out = mgpy_new_floats(4, (npy_intp[]){d[0], 3, d[2] * info.vae_scale, d[3] * info.vae_scale});
    if (out && mgpy_call_begin(self, &call, NULL)) {
        mg_status status =
            mg_pipeline_vae_decode(mgpy_floats(out), self->handle, mgpy_floats(z), d[0], d[2], d[3], &err);
        if (!mgpy_call_end(self, &call, status, &err))
            Py_CLEAR(out);
    } else {
        Py_CLEAR(out);
    }
    Py_DECREF(z);
    return (PyObject *)out;
}

/* One embedding for all samples, or one for each. */
static PyArrayObject *text_of(PyObject *object, int64_t samples, int64_t channels) {
    PyArrayObject *text = mgpy_float_array(object, 3, "encoder_hidden_states", "N, tokens, channels");
    if (!text)
        return NULL;
    const npy_intp *d = PyArray_DIMS(text);
    if (!mgpy_check_shape(text, (int64_t[]){d[0] == 1 ? 1 : samples, d[1], channels}, "encoder_hidden_states"))
        Py_CLEAR(text);
    return text;
}

PyObject *mgpy_pipeline_unet(PyObject *object, PyObject *args) {
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    const struct mg_pipeline_info info = info_of(self);
    PyObject *sample_object, *timesteps_object, *text_object;
    PyArrayObject *sample = NULL, *timesteps = NULL, *text = NULL, *out = NULL;
    struct mgpy_call call;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "OOO:unet", &sample_object, &timesteps_object, &text_object) ||
        !(sample = planes(sample_object, info.unet_in_channels, "sample")))
        return NULL;
    const npy_intp *d = PyArray_DIMS(sample);
    if (!(timesteps = mgpy_float_array(timesteps_object, 1, "timestep", "N")) ||
        !mgpy_check_shape(timesteps, (int64_t[]){d[0]}, "timestep") ||
        !(text = text_of(text_object, d[0], info.text_channels)) ||
        !(out = mgpy_new_floats(4, (npy_intp[]){d[0], info.unet_out_channels, d[2], d[3]})))
        goto done;
    if (!mgpy_call_begin(self, &call, NULL)) {
        Py_CLEAR(out);
        goto done;
    }
    mg_status status =
        mg_pipeline_unet(mgpy_floats(out), self->handle, mgpy_floats(sample), d[0], d[2], d[3], mgpy_floats(timesteps),
                         mgpy_floats(text), PyArray_DIM(text, 0), PyArray_DIM(text, 1), &err);
    if (!mgpy_call_end(self, &call, status, &err))
        Py_CLEAR(out);
done:
    mgpy_release(sample);
    mgpy_release(timesteps);
    mgpy_release(text);
    return (PyObject *)out;
}

PyObject *mgpy_pipeline_empty_text_embedding(PyObject *object, PyObject *Py_UNUSED(unused)) {
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    const struct mg_pipeline_info info = info_of(self);
    PyArrayObject *out = mgpy_new_floats(3, (npy_intp[]){1, info.text_tokens, info.text_channels});
    if (out)
        memcpy(mgpy_floats(out), mg_pipeline_empty_text_embedding(self->handle),
               (size_t)(info.text_tokens * info.text_channels) * sizeof(float));
    return (PyObject *)out;
}
