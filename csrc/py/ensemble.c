/* ensemble.c: functions that merge arrays. Added to the module by module.c;
 * marigold_c/pipelines/ensembling.py checks shapes and wraps them. */
#include "binding.h"

static PyObject *raise_from(PyObject *module, const struct mg_err *err) {
    return mgpy_raise(PyModule_GetState(module), err);
}

/* (merged, uncertainty or None), or the exception of err. */
static PyObject *pair(PyObject *module, mg_status status, PyArrayObject *out, PyArrayObject *uncertainty,
                      const struct mg_err *err) {
    if (status == MG_OK)
        return Py_BuildValue("NN", out, uncertainty ? (PyObject *)uncertainty : Py_NewRef(Py_None));
    mgpy_release(out);
    mgpy_release(uncertainty);
    return raise_from(module, err);
}

static bool allocate(PyArrayObject **out, PyArrayObject **uncertainty, int ndim, const npy_intp *dims,
                     const npy_intp *uncertainty_dims, bool output_uncertainty) {
    *uncertainty = NULL;
    *out = mgpy_new_floats(ndim, dims);
    if (*out && output_uncertainty && !(*uncertainty = mgpy_new_floats(ndim, uncertainty_dims)))
        Py_CLEAR(*out);
    return *out != NULL;
}

/* Lets signal handlers run while the solver works; it holds no GIL. */
static int poll_signals(void *user) {
    (void)user;
    PyGILState_STATE gil = PyGILState_Ensure();
    const int raised = PyErr_CheckSignals() != 0;
    PyGILState_Release(gil);
    return raised;
}

static PyObject *ensemble_depth(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"depth",
                            "output_uncertainty",
                            "scale_invariant",
                            "shift_invariant",
                            "reduction",
                            "solver",
                            "regularizer_strength",
                            "max_iter",
                            "tol",
                            "max_res",
                            "num_threads",
                            NULL};
    struct mg_ensemble_depth_params p;
    struct mg_err err;
    PyObject *depth_object;
    const char *reduction = "median", *solver = "closed-form";
    int output_uncertainty = 0, scale = 1, shift = 1;
    mg_ensemble_depth_params_init(&p);
    long long max_res = p.max_res;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$pppssdidLi:ensemble_depth", names, &depth_object,
                                     &output_uncertainty, &scale, &shift, &reduction, &solver, &p.regularizer_strength,
                                     &p.max_iter, &p.tol, &max_res, &p.num_threads))
        return NULL;
    p.scale_invariant = scale;
    p.shift_invariant = shift;
    p.max_res = max_res;
    p.poll = poll_signals;
    if (mg_reduction_from_name(&p.reduction, reduction, &err) != MG_OK ||
        mg_solver_from_name(&p.solver, solver, &err) != MG_OK)
        return raise_from(module, &err);
    PyArrayObject *depth = mgpy_float_array(depth_object, 3, "depth", "E, H, W"), *out, *uncertainty;
    if (!depth)
        return NULL;
    const npy_intp *d = PyArray_DIMS(depth);
    mg_status status = MG_OK;
    const bool allocated = allocate(&out, &uncertainty, 2, d + 1, d + 1, output_uncertainty);
    if (allocated) {
        float *spread = uncertainty ? mgpy_floats(uncertainty) : NULL;
        Py_BEGIN_ALLOW_THREADS status =
            mg_ensemble_depth(mgpy_floats(out), spread, mgpy_floats(depth), d[0], d[1], d[2], &p, &err);
        Py_END_ALLOW_THREADS
    }
    Py_DECREF(depth);
    return allocated ? pair(module, status, out, uncertainty, &err) : NULL;
}

static PyObject *ensemble_normals(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"normals", "output_uncertainty", "reduction", "num_threads", NULL};
    PyObject *normals_object;
    const char *reduction_name = "closest";
    int output_uncertainty = 0, num_threads = 0;
    mg_reduction reduction;
    struct mg_err err;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$psi:ensemble_normals", names, &normals_object,
                                     &output_uncertainty, &reduction_name, &num_threads))
        return NULL;
    if (mg_reduction_from_name(&reduction, reduction_name, &err) != MG_OK)
        return raise_from(module, &err);
    PyArrayObject *normals = mgpy_float_array(normals_object, 4, "normals", "E, 3, H, W"), *out, *uncertainty;
    if (!normals)
        return NULL;
    const npy_intp *d = PyArray_DIMS(normals);
    if (!mgpy_check_shape(normals, (int64_t[]){d[0], 3, d[2], d[3]}, "normals")) {
        Py_DECREF(normals);
        return NULL;
    }
    mg_status status = MG_OK;
    const bool allocated =
        allocate(&out, &uncertainty, 3, (npy_intp[]){3, d[2], d[3]}, (npy_intp[]){1, d[2], d[3]}, output_uncertainty);
    if (allocated) {
        float *spread = uncertainty ? mgpy_floats(uncertainty) : NULL;
        Py_BEGIN_ALLOW_THREADS status = mg_ensemble_normals(mgpy_floats(out), spread, mgpy_floats(normals), d[0], d[2],
                                                            d[3], reduction, num_threads, &err);
        Py_END_ALLOW_THREADS
    }
    Py_DECREF(normals);
    return allocated ? pair(module, status, out, uncertainty, &err) : NULL;
}

static PyObject *ensemble_intrinsics(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"targets", "output_uncertainty", "reduction", "num_threads", NULL};
    PyObject *targets_object;
    const char *reduction_name = "median";
    int output_uncertainty = 0, num_threads = 0;
    mg_reduction reduction;
    struct mg_err err;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$psi:ensemble_intrinsics", names, &targets_object,
                                     &output_uncertainty, &reduction_name, &num_threads))
        return NULL;
    if (mg_reduction_from_name(&reduction, reduction_name, &err) != MG_OK)
        return raise_from(module, &err);
    PyArrayObject *targets = mgpy_float_array(targets_object, 5, "targets", "E, T, 3, H, W"), *out, *uncertainty;
    if (!targets)
        return NULL;
    const npy_intp *d = PyArray_DIMS(targets);
    mg_status status = MG_OK;
    const bool allocated = allocate(&out, &uncertainty, 4, d + 1, d + 1, output_uncertainty);
    if (allocated) {
        float *spread = uncertainty ? mgpy_floats(uncertainty) : NULL;
        Py_BEGIN_ALLOW_THREADS status = mg_ensemble_intrinsics(mgpy_floats(out), spread, mgpy_floats(targets), d[0],
                                                               d[1] * d[2] * d[3] * d[4], reduction, num_threads, &err);
        Py_END_ALLOW_THREADS
    }
    Py_DECREF(targets);
    return allocated ? pair(module, status, out, uncertainty, &err) : NULL;
}

static PyObject *ensemble_snippets(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"maps", "frames", "dilations", "iterations", "rate", "num_threads", NULL};
    struct mg_ensemble_snippets_params p;
    struct mg_snippets snippets = {0};
    struct mg_err err;
    int64_t dilations[MG_MAX_DILATIONS];
    PyObject *maps_object, *dilations_object, *result = NULL;
    long long frames;
    mg_ensemble_snippets_params_init(&p);
    p.poll = poll_signals;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OLO|$idi:ensemble_snippets", names, &maps_object, &frames,
                                     &dilations_object, &p.iterations, &p.rate, &p.num_threads) ||
        !mgpy_take_dilations(&snippets, dilations, dilations_object))
        return NULL;
    PyArrayObject *maps = mgpy_float_array(maps_object, 4, "maps", "S, L, H, W"), *out = NULL, *affine = NULL;
    if (!maps)
        return NULL;
    const npy_intp *d = PyArray_DIMS(maps);
    snippets.frames = frames;
    snippets.length = d[1];
    if (mg_check_snippets(&snippets, &err) != MG_OK) {
        raise_from(module, &err);
    } else if (mgpy_check_shape(maps, (int64_t[]){mg_snippets_count(&snippets), d[1], d[2], d[3]}, "maps") &&
               (out = mgpy_new_floats(3, (npy_intp[]){frames, d[2], d[3]})) &&
               (affine = (PyArrayObject *)PyArray_SimpleNew(2, ((npy_intp[]){2, d[0]}), NPY_FLOAT64))) {
        double *numbers = PyArray_DATA(affine);
        mg_status status;
        Py_BEGIN_ALLOW_THREADS status = mg_ensemble_snippets(mgpy_floats(out), numbers, numbers + d[0],
                                                             mgpy_floats(maps), &snippets, d[2], d[3], &p, &err);
        Py_END_ALLOW_THREADS result = status == MG_OK ? Py_BuildValue("OO", out, affine) : raise_from(module, &err);
    }
    mgpy_release(maps);
    mgpy_release(out);
    mgpy_release(affine);
    return result;
}

PyMethodDef mgpy_ensemble_functions[] = {
    {"ensemble_depth", (PyCFunction)(void (*)(void))ensemble_depth, METH_VARARGS | METH_KEYWORDS,
     "ensemble_depth(depth, *, ...): (E, H, W) to ((H, W), uncertainty or None)."},
    {"ensemble_normals", (PyCFunction)(void (*)(void))ensemble_normals, METH_VARARGS | METH_KEYWORDS,
     "ensemble_normals(normals, *, ...): (E, 3, H, W) to ((3, H, W), (1, H, W) or None)."},
    {"ensemble_intrinsics", (PyCFunction)(void (*)(void))ensemble_intrinsics, METH_VARARGS | METH_KEYWORDS,
     "ensemble_intrinsics(targets, *, ...): (E, T, 3, H, W) to ((T, 3, H, W), uncertainty or None)."},
    {"ensemble_snippets", (PyCFunction)(void (*)(void))ensemble_snippets, METH_VARARGS | METH_KEYWORDS,
     "ensemble_snippets(maps, frames, dilations, *, ...): (S, L, H, W) to ((frames, H, W), (2, S) scales and "
     "shifts)."},
    {NULL, NULL, 0, NULL}};
