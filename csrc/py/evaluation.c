/* evaluation.c: fitting predictions to ground truths and comparing both. Added to the module by module.c;
 * marigold_c/evaluation/alignment.py and metrics.py check arguments and wrap them. */
#include "binding.h"

static PyObject *raise_from(PyObject *module, const struct mg_err *err) {
    return mgpy_raise(PyModule_GetState(module), err);
}

/* What is compared: two arrays of one shape, and a mask of bytes or none. */
struct comparison {
    PyArrayObject *prediction, *target, *mask;
};

static void release(struct comparison *c) {
    Py_CLEAR(c->prediction);
    Py_CLEAR(c->target);
    Py_CLEAR(c->mask);
}

/* The mask has `mask_ndim` axes: all of the arrays', or all but the last. */
static bool read_comparison(struct comparison *out, PyObject *prediction, PyObject *target, PyObject *mask, int ndim,
                            int mask_ndim, const char *layout) {
    int64_t shape[4];
    *out = (struct comparison){0};
    if (!(out->prediction = mgpy_float_array(prediction, ndim, "prediction", layout)) ||
        !(out->target = mgpy_float_array(target, ndim, "target", layout)))
        goto failed;
    for (int i = 0; i < ndim; i++)
        shape[i] = PyArray_DIM(out->prediction, i);
    if (!mgpy_check_shape(out->target, shape, "target"))
        goto failed;
    if (mask != Py_None) {
        out->mask = (PyArrayObject *)PyArray_FROMANY(mask, NPY_BOOL, mask_ndim, mask_ndim,
                                                     NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED | NPY_ARRAY_FORCECAST);
        if (!out->mask || !mgpy_check_shape(out->mask, shape, "mask"))
            goto failed;
    }
    return true;
failed:
    release(out);
    return false;
}

static const uint8_t *mask_bytes(const struct comparison *c) { return c->mask ? PyArray_DATA(c->mask) : NULL; }

static PyObject *align_least_squares(PyObject *module, PyObject *args) {
    PyObject *prediction, *target, *mask, *result = NULL;
    struct comparison c;
    const char *space_name;
    long long max_resolution;
    int num_threads = 0;
    mg_space space;
    double scale, shift;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "OOOsL|i:align_least_squares", &prediction, &target, &mask, &space_name,
                          &max_resolution, &num_threads))
        return NULL;
    if (mg_space_from_name(&space, space_name, &err) != MG_OK)
        return raise_from(module, &err);
    if (!read_comparison(&c, prediction, target, mask, 2, 2, "H, W"))
        return NULL;
    const npy_intp *d = PyArray_DIMS(c.prediction);
    PyArrayObject *out = mgpy_new_floats(2, d);
    if (out) {
        mg_status status;
        Py_BEGIN_ALLOW_THREADS status =
            mg_align_least_squares(mgpy_floats(out), &scale, &shift, mgpy_floats(c.prediction), mgpy_floats(c.target),
                                   mask_bytes(&c), d[0], d[1], space, max_resolution, num_threads, &err);
        Py_END_ALLOW_THREADS result =
            status == MG_OK ? Py_BuildValue("Odd", out, scale, shift) : raise_from(module, &err);
    }
    mgpy_release(out);
    release(&c);
    return result;
}

static PyObject *align_ransac(PyObject *module, PyObject *args) {
    PyObject *prediction, *target, *mask, *result = NULL;
    struct comparison c;
    const char *space_name;
    long long max_resolution;
    unsigned long long seed;
    int num_threads = 0;
    mg_space space;
    double scale, shift;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "OOOsLK|i:align_ransac", &prediction, &target, &mask, &space_name, &max_resolution,
                          &seed, &num_threads))
        return NULL;
    if (mg_space_from_name(&space, space_name, &err) != MG_OK)
        return raise_from(module, &err);
    if (!read_comparison(&c, prediction, target, mask, 2, 2, "H, W"))
        return NULL;
    const npy_intp *d = PyArray_DIMS(c.prediction);
    PyArrayObject *out = mgpy_new_floats(2, d);
    if (out) {
        mg_status status;
        Py_BEGIN_ALLOW_THREADS status =
            mg_align_ransac(mgpy_floats(out), &scale, &shift, mgpy_floats(c.prediction), mgpy_floats(c.target),
                            mask_bytes(&c), d[0], d[1], space, max_resolution, seed, num_threads, &err);
        Py_END_ALLOW_THREADS result =
            status == MG_OK ? Py_BuildValue("Odd", out, scale, shift) : raise_from(module, &err);
    }
    mgpy_release(out);
    release(&c);
    return result;
}

static PyObject *align_median(PyObject *module, PyObject *args) {
    PyObject *prediction, *target, *mask, *result = NULL;
    struct comparison c;
    long long max_resolution;
    int num_threads = 0;
    double scale;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "OOOL|i:align_median", &prediction, &target, &mask, &max_resolution, &num_threads) ||
        !read_comparison(&c, prediction, target, mask, 2, 2, "H, W"))
        return NULL;
    const npy_intp *d = PyArray_DIMS(c.prediction);
    PyArrayObject *out = mgpy_new_floats(2, d);
    if (out) {
        mg_status status;
        Py_BEGIN_ALLOW_THREADS status =
            mg_align_median(mgpy_floats(out), &scale, mgpy_floats(c.prediction), mgpy_floats(c.target), mask_bytes(&c),
                            d[0], d[1], max_resolution, num_threads, &err);
        Py_END_ALLOW_THREADS result = status == MG_OK ? Py_BuildValue("Od", out, scale) : raise_from(module, &err);
    }
    mgpy_release(out);
    release(&c);
    return result;
}

static PyObject *depth_metrics(PyObject *module, PyObject *args) {
    PyObject *prediction, *target, *mask;
    struct comparison c;
    int num_threads = 0;
    struct mg_depth_metrics m;
    struct mg_err err;
    mg_status status;
    if (!PyArg_ParseTuple(args, "OOO|i:depth_metrics", &prediction, &target, &mask, &num_threads) ||
        !read_comparison(&c, prediction, target, mask, 2, 2, "H, W"))
        return NULL;
    Py_BEGIN_ALLOW_THREADS status = mg_depth_metrics(&m, mgpy_floats(c.prediction), mgpy_floats(c.target),
                                                     mask_bytes(&c), PyArray_SIZE(c.prediction), num_threads, &err);
    Py_END_ALLOW_THREADS release(&c);
    if (status != MG_OK)
        return raise_from(module, &err);
    return Py_BuildValue("{s:d,s:d,s:d,s:d,s:d,s:d,s:d,s:d,s:d,s:d}", "abs_relative_difference",
                         m.abs_relative_difference, "squared_relative_difference", m.squared_relative_difference,
                         "rmse_linear", m.rmse_linear, "rmse_log", m.rmse_log, "log10", m.log10, "delta1_acc",
                         m.delta1_acc, "delta2_acc", m.delta2_acc, "delta3_acc", m.delta3_acc, "i_rmse", m.i_rmse,
                         "silog_rmse", m.silog_rmse);
}

static PyObject *angular_errors(PyObject *module, PyObject *args) {
    PyObject *prediction, *target, *mask, *result = NULL;
    struct comparison c;
    int num_threads = 0;
    int64_t count = 0;
    struct mg_err err;
    mg_status status;
    if (!PyArg_ParseTuple(args, "OOO|i:angular_errors", &prediction, &target, &mask, &num_threads) ||
        !read_comparison(&c, prediction, target, mask, 3, 2, "H, W, 3"))
        return NULL;
    const npy_intp *d = PyArray_DIMS(c.prediction);
    PyArrayObject *out = NULL;
    npy_intp pixels = d[0] * d[1];
    if (d[2] != 3)
        PyErr_Format(PyExc_ValueError, "`prediction` has %zd channels; vectors have 3", (Py_ssize_t)d[2]);
    else if ((out = mgpy_new_floats(1, &pixels))) {
        Py_BEGIN_ALLOW_THREADS status =
            mg_angular_errors(mgpy_floats(out), &count, mgpy_floats(c.prediction), mgpy_floats(c.target),
                              mask_bytes(&c), pixels, num_threads, &err);
        Py_END_ALLOW_THREADS result = status == MG_OK ? PySequence_GetSlice((PyObject *)out, 0, (Py_ssize_t)count)
                                                      : mgpy_raise(PyModule_GetState(module), &err);
    }
    mgpy_release(out);
    release(&c);
    return result;
}

static PyObject *angle_statistics(PyObject *module, PyObject *object) {
    struct mg_angle_statistics s;
    struct mg_err err;
    mg_status status;
    PyArrayObject *errors = (PyArrayObject *)PyArray_FROMANY(
        object, NPY_FLOAT32, 1, 1, NPY_ARRAY_CARRAY | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_ENSURECOPY);
    if (!errors)
        return NULL;
    Py_BEGIN_ALLOW_THREADS status = mg_angle_statistics(&s, mgpy_floats(errors), PyArray_SIZE(errors), &err);
    Py_END_ALLOW_THREADS Py_DECREF(errors);
    if (status != MG_OK)
        return raise_from(module, &err);
    return Py_BuildValue("{s:d,s:d,s:d,s:d,s:d,s:d,s:d,s:d}", "mean_angular_error", s.mean, "median_angular_error",
                         s.median, "rmse_angular_error", s.rmse, "sub5_error", s.percent_below[0], "sub7_5_error",
                         s.percent_below[1], "sub11_25_error", s.percent_below[2], "sub22_5_error", s.percent_below[3],
                         "sub30_error", s.percent_below[4]);
}

static PyObject *image_psnr(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *prediction, *target, *mask;
    struct comparison c;
    double psnr;
    if (!PyArg_ParseTuple(args, "OOO:psnr", &prediction, &target, &mask) ||
        !read_comparison(&c, prediction, target, mask, 3, 3, "H, W, C"))
        return NULL;
    Py_BEGIN_ALLOW_THREADS psnr =
        mg_psnr(mgpy_floats(c.prediction), mgpy_floats(c.target), mask_bytes(&c), PyArray_SIZE(c.prediction));
    Py_END_ALLOW_THREADS release(&c);
    return PyFloat_FromDouble(psnr);
}

static PyObject *image_ssim(PyObject *module, PyObject *args) {
    PyObject *prediction, *target, *mask;
    struct comparison c;
    int num_threads = 0;
    double ssim;
    struct mg_err err;
    mg_status status;
    if (!PyArg_ParseTuple(args, "OOO|i:ssim", &prediction, &target, &mask, &num_threads) ||
        !read_comparison(&c, prediction, target, mask, 3, 3, "H, W, C"))
        return NULL;
    const npy_intp *d = PyArray_DIMS(c.prediction);
    Py_BEGIN_ALLOW_THREADS status = mg_ssim(&ssim, mgpy_floats(c.prediction), mgpy_floats(c.target), mask_bytes(&c),
                                            d[0], d[1], d[2], num_threads, &err);
    Py_END_ALLOW_THREADS release(&c);
    return status == MG_OK ? PyFloat_FromDouble(ssim) : raise_from(module, &err);
}

PyMethodDef mgpy_evaluation_functions[] = {
    {"align_least_squares", align_least_squares, METH_VARARGS,
     "align_least_squares(prediction, target, mask or None, space, max_resolution, num_threads=0): (aligned, scale, "
     "shift)."},
    {"align_ransac", align_ransac, METH_VARARGS,
     "align_ransac(prediction, target, mask or None, space, max_resolution, seed, num_threads=0): (aligned, scale, "
     "shift)."},
    {"align_median", align_median, METH_VARARGS,
     "align_median(prediction, target, mask or None, max_resolution, num_threads=0): (aligned, scale)."},
    {"depth_metrics", depth_metrics, METH_VARARGS,
     "depth_metrics(prediction, target, mask or None, num_threads=0): numbers by name."},
    {"angular_errors", angular_errors, METH_VARARGS,
     "angular_errors(prediction, target, mask or None, num_threads=0): degrees, of the valid pixels."},
    {"angle_statistics", angle_statistics, METH_O, "angle_statistics(errors): numbers by name."},
    {"psnr", image_psnr, METH_VARARGS, "psnr(prediction, target, mask or None): dB, of (H, W, C) in [0, 1]."},
    {"ssim", image_ssim, METH_VARARGS,
     "ssim(prediction, target, mask or None, num_threads=0): of (H, W, C) in [0, 1]."},
    {NULL, NULL, 0, NULL}};
