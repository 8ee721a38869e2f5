/* images.c: functions on image arrays: resize, preprocess, geometry, colour maps. Added to the module by module.c. */
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
        mgpy_release(out);
        return raise_from(module, &err);
    }
    return Py_BuildValue("NN", out, geometry_tuple(&geometry));
}

/* An array (count, 3) of bytes. */
static PyArrayObject *new_colours(PyArrayObject *values) {
    return (PyArrayObject *)PyArray_SimpleNew(2, ((npy_intp[]){PyArray_DIM(values, 0), 3}), NPY_UINT8);
}

static PyObject *images_colormap_linear(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *values_object, *stops_object;
    if (!PyArg_ParseTuple(args, "OO:colormap_linear", &values_object, &stops_object))
        return NULL;
    PyArrayObject *out = NULL, *stops = NULL, *values = mgpy_float_array(values_object, 1, "values", "count");
    if (values && (stops = mgpy_float_array(stops_object, 2, "stops", "stops, 3")) &&
        mgpy_check_shape(stops, (int64_t[]){PyArray_DIM(stops, 0), 3}, "stops") && (out = new_colours(values))) {
        Py_BEGIN_ALLOW_THREADS;
        mg_colormap_linear(PyArray_DATA(out), mgpy_floats(values), PyArray_DIM(values, 0), mgpy_floats(stops),
                           PyArray_DIM(stops, 0));
        Py_END_ALLOW_THREADS;
    }
    mgpy_release(stops);
    mgpy_release(values);
    return (PyObject *)out;
}

static PyObject *images_colormap_listed(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *values_object, *table_object;
    if (!PyArg_ParseTuple(args, "OO:colormap_listed", &values_object, &table_object))
        return NULL;
    PyArrayObject *out = NULL, *table = (PyArrayObject *)PyArray_FROM_OTF(table_object, NPY_UINT8, NPY_ARRAY_CARRAY_RO);
    if (!table)
        return NULL;
    PyArrayObject *values = mgpy_float_array(values_object, 1, "values", "count");
    if (values && (PyArray_NDIM(table) != 2 || PyArray_DIM(table, 0) < 4 || PyArray_DIM(table, 1) != 3))
        PyErr_SetString(PyExc_ValueError, "`table` must have shape (colours + 3, 3)");
    else if (values && (out = new_colours(values))) {
        Py_BEGIN_ALLOW_THREADS;
        mg_colormap_listed(PyArray_DATA(out), mgpy_floats(values), PyArray_DIM(values, 0), PyArray_DATA(table),
                           PyArray_DIM(table, 0) - 3);
        Py_END_ALLOW_THREADS;
    }
    Py_DECREF(table);
    mgpy_release(values);
    return (PyObject *)out;
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
    {"colormap_linear", images_colormap_linear, METH_VARARGS,
     "colormap_linear(values, stops): (count,) values in [0, 1] as bytes (count, 3), between colours (stops, 3) in\n"
     "[0, 1]."},
    {"colormap_listed", images_colormap_listed, METH_VARARGS,
     "colormap_listed(values, table): (count,) values in [0, 1] as bytes (count, 3), each one of the table's colours;\n"
     "its last three rows are those of values below 0, above 1, and of what is no number."},
    {NULL, NULL, 0, NULL}};
