/* ensemble_ext.c: the alignment of depth ensembles for the tests: scales and shifts before anything is merged, and the
 * eigenvectors behind them. */
#include "../../csrc/ensemble/ensemble.h"
#include "test_ext.h"

/* align_depth(float32 bytes (E, elements), E, with_shift, solver, reduction, regularizer_strength, max_iter, tol,
 * num_threads) -> float32 bytes: E scales, then E shifts (0 without shift). */
static PyObject *align_depth(PyObject *module, PyObject *args) {
    Py_buffer depth;
    long long members;
    int with_shift;
    const char *solver, *reduction;
    struct mg_ensemble_depth_params p;
    static struct mg_err err; /* 32 KiB; calls hold the GIL */
    (void)module;
    mg_ensemble_depth_params_init(&p);
    if (!PyArg_ParseTuple(args, "y*Lpssdidi:align_depth", &depth, &members, &with_shift, &solver, &reduction,
                          &p.regularizer_strength, &p.max_iter, &p.tol, &p.num_threads))
        return NULL;
    const int64_t floats = depth.len / (Py_ssize_t)sizeof(float);
    PyObject *out = PyBytes_FromStringAndSize(NULL, 2 * members * (Py_ssize_t)sizeof(float));
    mg_status status = mg_solver_from_name(&p.solver, solver, &err);
    if (status == MG_OK)
        status = mg_reduction_from_name(&p.reduction, reduction, &err);
    if (out && status == MG_OK) {
        float *scale = (float *)PyBytes_AS_STRING(out), *shift = scale + members;
        for (int64_t i = 0; i < members; i++)
            shift[i] = 0.0f;
        status = (p.solver == MG_SOLVER_REFERENCE ? mg_align_reference : mg_align_closed_form)(
            scale, with_shift ? shift : NULL, depth.buf, members, floats / members, &p, &err);
    }
    PyBuffer_Release(&depth);
    if (out && status != MG_OK) {
        Py_DECREF(out);
        return mg_test_raise(&err);
    }
    return out;
}

/* symmetric_eigen(float64 bytes (n, n), n) -> (float64 bytes (n), float64 bytes (n, n)) */
static PyObject *symmetric_eigen(PyObject *module, PyObject *args) {
    Py_buffer matrix;
    int n;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*i:symmetric_eigen", &matrix, &n))
        return NULL;
    PyObject *copy = PyBytes_FromStringAndSize(matrix.buf, matrix.len);
    PyObject *values = PyBytes_FromStringAndSize(NULL, n * (Py_ssize_t)sizeof(double));
    PyObject *vectors = PyBytes_FromStringAndSize(NULL, matrix.len), *result = NULL;
    PyBuffer_Release(&matrix);
    if (copy && values && vectors) {
        mg_symmetric_eigen((double *)PyBytes_AS_STRING(values), (double *)PyBytes_AS_STRING(vectors),
                           (double *)PyBytes_AS_STRING(copy), n);
        result = PyTuple_Pack(2, values, vectors);
    }
    Py_XDECREF(copy);
    Py_XDECREF(values);
    Py_XDECREF(vectors);
    return result;
}

PyMethodDef mg_test_ensemble_methods[] = {{"align_depth", align_depth, METH_VARARGS, NULL},
                                          {"symmetric_eigen", symmetric_eigen, METH_VARARGS, NULL},
                                          {NULL, NULL, 0, NULL}};
