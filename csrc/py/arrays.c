/* arrays.c: NumPy arrays in and out, with their shapes checked, because the engine sees bare pointers. */
#include <string.h>

#include "binding.h"

float *mgpy_floats(PyArrayObject *array) { return (float *)PyArray_DATA(array); }

void mgpy_release(PyArrayObject *array) { Py_XDECREF((PyObject *)array); }

PyArrayObject *mgpy_new_floats(int ndim, const npy_intp *shape) {
    return (PyArrayObject *)PyArray_SimpleNew(ndim, (npy_intp *)shape, NPY_FLOAT32);
}

/* ValueError with the shape of `array` in it. */
static void refuse_shape(PyArrayObject *array, const char *name, const char *wanted) {
    PyObject *shape = PyObject_GetAttrString((PyObject *)array, "shape");
    if (!shape)
        return;
    PyErr_Format(PyExc_ValueError, "`%s` has shape %R; expected %s", name, shape, wanted);
    Py_DECREF(shape);
}

static bool has_empty_axis(PyArrayObject *array) {
    for (int i = 0; i < PyArray_NDIM(array); i++)
        if (PyArray_DIM(array, i) == 0)
            return true;
    return false;
}

PyArrayObject *mgpy_float_array(PyObject *object, int ndim, const char *name, const char *layout) {
    PyArrayObject *any = (PyArrayObject *)PyArray_FROM_O(object);
    if (!any)
        return NULL;
    if (!(PyArray_ISINTEGER(any) || PyArray_ISFLOAT(any))) {
        PyErr_Format(PyExc_ValueError, "`%s` must be an array of real numbers; got dtype %S", name,
                     (PyObject *)PyArray_DESCR(any));
        Py_DECREF(any);
        return NULL;
    }
    if (PyArray_NDIM(any) != ndim || has_empty_axis(any)) {
        char wanted[96];
        PyOS_snprintf(wanted, sizeof wanted, "(%s), none of them 0", layout);
        refuse_shape(any, name, wanted);
        Py_DECREF(any);
        return NULL;
    }
    PyArrayObject *array = (PyArrayObject *)PyArray_FROM_OTF(
        (PyObject *)any, NPY_FLOAT32, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_FORCECAST);
    Py_DECREF(any);
    return array;
}

PyArrayObject *mgpy_image_array(PyObject *object, struct mg_image *image) {
    PyArrayObject *array = (PyArrayObject *)PyArray_FROM_OF(object, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_NOTSWAPPED);
    if (!array)
        return NULL;
    switch (PyArray_TYPE(array)) {
    case NPY_UINT8:
        image->type = MG_PIXEL_U8;
        break;
    case NPY_UINT16:
        image->type = MG_PIXEL_U16;
        break;
    case NPY_FLOAT32:
        image->type = MG_PIXEL_F32;
        break;
    default:
        PyErr_Format(PyExc_ValueError, "`image` has dtype %S; expected uint8, uint16 or float32",
                     (PyObject *)PyArray_DESCR(array));
        Py_DECREF(array);
        return NULL;
    }
    if (PyArray_NDIM(array) != 4 || has_empty_axis(array) ||
        (PyArray_DIM(array, 3) != 1 && PyArray_DIM(array, 3) != 3)) {
        refuse_shape(array, "image", "(N, H, W, C), none of them 0, C 1 or 3");
        Py_DECREF(array);
        return NULL;
    }
    image->data = PyArray_DATA(array);
    image->n = PyArray_DIM(array, 0);
    image->h = PyArray_DIM(array, 1);
    image->w = PyArray_DIM(array, 2);
    image->c = PyArray_DIM(array, 3);
    return array;
}

bool mgpy_check_shape(PyArrayObject *array, const int64_t *shape, const char *name) {
    const int ndim = PyArray_NDIM(array);
    bool same = true;
    for (int i = 0; i < ndim; i++)
        same = same && PyArray_DIM(array, i) == shape[i];
    if (same)
        return true;
    char wanted[128];
    size_t used = 0;
    for (int i = 0; i < ndim && used < sizeof wanted; i++)
        used += (size_t)PyOS_snprintf(wanted + used, sizeof wanted - used, "%s%lld%s", i ? ", " : "(",
                                      (long long)shape[i], i + 1 < ndim ? "" : ")");
    refuse_shape(array, name, wanted);
    return false;
}
