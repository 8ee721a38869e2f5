/* images.c: functions on image arrays: resize, preprocess, geometry. Added to the module by module.c. */
#include "binding.h"

static PyObject *raise_from(PyObject *module, const struct mg_err *err) {
    return mgpy_raise(PyModule_GetState(module), err);
}

static PyObject *geometry_tuple(const struct mg_geometry *g) {
    return Py_BuildValue("LLLLLL", (long long)g->h, (long long)g->w, (long long)g->resized_h, (long long)g->resized_w,
                         (long long)g->padded_h, (long long)g->padded_w);
}

static PyObject *images_geometry(PyObject *module, PyObject *args) {
    long long h, w, resolution, vae_scale;
    const char *preset_name = "diffusers";
    mg_preset preset;
    struct mg_geometry geometry;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "LLLL|s:geometry", &h, &w, &resolution, &vae_scale, &preset_name))
        return NULL;
    if (mg_preset_from_name(&preset, preset_name, &err) != MG_OK ||
        mg_geometry_of(&geometry, h, w, resolution, vae_scale, preset, &err) != MG_OK)
        return raise_from(module, &err);
    return geometry_tuple(&geometry);
}

static PyObject *images_resize(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"image", "size", "mode", "antialias", NULL};
    PyObject *image_object;
    Py_ssize_t h, w;
    const char *mode_name = "bilinear";
    int antialias = 0;
    mg_resample mode;
    struct mg_err err;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O(nn)|sp:resize", names, &image_object, &h, &w, &mode_name,
                                     &antialias))
        return NULL;
    if (mg_resample_from_name(&mode, mode_name, "mode", &err) != MG_OK)
        return raise_from(module, &err);
    if (h < 1 || w < 1)
        return PyErr_Format(PyExc_ValueError, "`size` (%zd, %zd) must be positive", h, w);
    PyArrayObject *image = mgpy_float_array(image_object, 4, "image", "N, C, H, W");
    if (!image)
        return NULL;
    const npy_intp *in = PyArray_DIMS(image);
    PyArrayObject *out = mgpy_new_floats(4, (npy_intp[]){in[0], in[1], h, w});
    mg_status status = MG_OK;
    if (out) {
        Py_BEGIN_ALLOW_THREADS status =
            mg_resize(mgpy_floats(out), mgpy_floats(image), in[0], in[1], in[2], in[3], h, w, mode, antialias, &err);
        Py_END_ALLOW_THREADS
    }
    Py_DECREF(image);
    if (status != MG_OK) {
        Py_CLEAR(out);
        raise_from(module, &err);
    }
    return (PyObject *)out;
}

static PyObject *images_preprocess(PyObject *module, PyObject *args) {
    PyObject *image_object;
    long long resolution, vae_scale;
    const char *mode_name, *preset_name = "diffusers";
    mg_preset preset;
    mg_resample mode;
    struct mg_image image;
    struct mg_geometry geometry;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "OLsL|s:preprocess", &image_object, &resolution, &mode_name, &vae_scale, &preset_name))
        return NULL;
    if (mg_resample_from_name(&mode, mode_name, "resample_method_input", &err) != MG_OK ||
        mg_preset_from_name(&preset, preset_name, &err) != MG_OK)
        return raise_from(module, &err);
    PyArrayObject *pixels = mgpy_image_array(image_object, &image), *out = NULL;
    if (!pixels)
        return NULL;
    mg_status status = mg_geometry_of(&geometry, image.h, image.w, resolution, vae_scale, preset, &err);
    if (status == MG_OK) {
        out = mgpy_new_floats(4, (npy_intp[]){image.n, 3, geometry.padded_h, geometry.padded_w});
        if (!out) {
            Py_DECREF(pixels);
            return NULL;
        }
        Py_BEGIN_ALLOW_THREADS status = mg_preprocess(mgpy_floats(out), &image, &geometry, mode, &err);
        Py_END_ALLOW_THREADS
    }
    Py_DECREF(pixels);
    if (status != MG_OK) {
        Py_XDECREF(out);
        return raise_from(module, &err);
    }
    return Py_BuildValue("NN", out, geometry_tuple(&geometry));
}

PyMethodDef mgpy_image_functions[] = {
    {"resize", (PyCFunction)(void (*)(void))images_resize, METH_VARARGS | METH_KEYWORDS,
     "resize(image, size, mode=\"bilinear\", antialias=False): (N, C, H, W) floats to `size` (height, width), as\n"
     "torch.nn.functional.interpolate with align_corners=False. Modes: nearest, nearest-exact, bilinear, bicubic, "
     "area."},
    {"preprocess", images_preprocess, METH_VARARGS,
     "preprocess(image, processing_resolution, mode, vae_scale, preset=\"diffusers\"): (N, H, W, C) pixels to the "
     "network's input in [-1, 1], "
     "and\n"
     "its geometry."},
    {"geometry", images_geometry, METH_VARARGS,
     "geometry(h, w, processing_resolution, vae_scale, preset=\"diffusers\"): (h, w, resized_h, resized_w, padded_h, "
     "padded_w)."},
    {NULL, NULL, 0, NULL}};
