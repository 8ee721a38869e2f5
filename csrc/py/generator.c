/* generator.c: the type Generator, torch's CPU random numbers. */
#include <string.h>

#include "binding.h"

static PyObject *raised(PyObject *self, const struct mg_err *err) {
    struct mgpy_state *state = mgpy_state_of(self);
    return state ? mgpy_raise(state, err) : NULL;
}

/* As torch: any integer of 64 bits, negative ones modulo 2^64. */
static bool read_seed(uint64_t *out, PyObject *object) {
    PyObject *index = PyNumber_Index(object);
    if (!index)
        return false;
    *out = PyLong_AsUnsignedLongLong(index);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        *out = (uint64_t)PyLong_AsLongLong(index);
    }
    Py_DECREF(index);
    if (!PyErr_Occurred())
        return true;
    PyErr_SetString(PyExc_ValueError, "a seed must fit in 64 bits");
    return false;
}

static PyObject *generator_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"seed", NULL};
    PyObject *seed_object;
    uint64_t seed;
    struct mg_err err;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Generator", names, &seed_object) ||
        !read_seed(&seed, seed_object))
        return NULL;
    struct mgpy_generator *self = (struct mgpy_generator *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->seed = seed;
    if (mg_generator_create(&self->handle, seed, &err) != MG_OK) {
        raised((PyObject *)self, &err);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void generator_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    mg_generator_destroy(((struct mgpy_generator *)object)->handle);
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyObject *generator_manual_seed(PyObject *object, PyObject *seed_object) {
    struct mgpy_generator *self = (struct mgpy_generator *)object;
    uint64_t seed;
    struct mg_err err;
    if (!read_seed(&seed, seed_object))
        return NULL;
    if (mg_generator_seed(self->handle, seed, &err) != MG_OK)
        return raised(object, &err);
    self->seed = seed;
    return Py_NewRef(object);
}

static PyObject *generator_initial_seed(PyObject *object, PyObject *Py_UNUSED(unused)) {
    return PyLong_FromUnsignedLongLong(((struct mgpy_generator *)object)->seed);
}

struct shape {
    npy_intp dim[NPY_MAXDIMS];
    int ndim;
};

/* A shape given as (2, 3) or as 2, 3, as torch takes it. */
static bool read_shape(struct shape *shape, PyObject *args) {
    PyObject *sizes = PyTuple_Size(args) == 1 ? PyTuple_GetItem(args, 0) : args;
    shape->ndim = PyArray_IntpFromSequence(sizes, shape->dim, NPY_MAXDIMS);
    if (shape->ndim < 0)
        return false;
    if (shape->ndim > NPY_MAXDIMS) {
        PyErr_Format(PyExc_ValueError, "`shape` has %d axes; NumPy has %d at most", shape->ndim, NPY_MAXDIMS);
        return false;
    }
    for (int i = 0; i < shape->ndim; i++)
        if (shape->dim[i] < 0) {
            PyErr_Format(PyExc_ValueError, "`shape` %R has a negative size", sizes);
            return false;
        }
    return true;
}

typedef mg_status fill_fn(mg_generator *generator, float *out, size_t count, struct mg_err *err);

static PyObject *draw(PyObject *object, PyObject *args, fill_fn *fill) {
    struct mgpy_generator *self = (struct mgpy_generator *)object;
    struct shape shape;
    PyArrayObject *out = NULL;
    struct mg_err err;
    if (!read_shape(&shape, args))
        return NULL;
    if ((out = mgpy_new_floats(shape.ndim, shape.dim))) {
        mg_status status;
        Py_BEGIN_ALLOW_THREADS status = fill(self->handle, mgpy_floats(out), (size_t)PyArray_SIZE(out), &err);
        Py_END_ALLOW_THREADS if (status != MG_OK) {
            Py_CLEAR(out);
            raised(object, &err);
        }
    }
    return (PyObject *)out;
}

static PyObject *generator_randn(PyObject *object, PyObject *args) { return draw(object, args, mg_generator_randn); }

static PyObject *generator_rand(PyObject *object, PyObject *args) { return draw(object, args, mg_generator_rand); }

static PyObject *generator_randint(PyObject *object, PyObject *args) {
    struct mgpy_generator *self = (struct mgpy_generator *)object;
    long long high;
    PyObject *sizes;
    struct shape shape;
    PyArrayObject *out = NULL;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "LO:randint", &high, &sizes))
        return NULL;
    if (high < 1 || high > 1 << 28)
        return PyErr_Format(PyExc_ValueError, "`high` is %lld; expected 1 to 2**28", high);
    PyObject *shape_args = PyTuple_Pack(1, sizes);
    if (!shape_args || !read_shape(&shape, shape_args)) {
        Py_XDECREF(shape_args);
        return NULL;
    }
    Py_DECREF(shape_args);
    out = (PyArrayObject *)PyArray_SimpleNew(shape.ndim, shape.dim, NPY_INT64);
    if (out && mg_generator_randint(self->handle, PyArray_DATA(out), (size_t)PyArray_SIZE(out), (uint32_t)high, &err) !=
                   MG_OK) {
        Py_CLEAR(out);
        raised(object, &err);
    }
    return (PyObject *)out;
}

/* The strengths of N samples: one number for all, or N. */
static PyArrayObject *read_strengths(PyObject *object, npy_intp n) {
    PyArrayObject *given =
        (PyArrayObject *)PyArray_FROM_OTF(object, NPY_FLOAT32, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST);
    if (!given || (PyArray_NDIM(given) == 1 && PyArray_DIM(given, 0) == n))
        return given;
    if (PyArray_NDIM(given) != 0) {
        PyErr_Format(PyExc_ValueError, "`strength` must be a number or one for each of the %zd samples", (Py_ssize_t)n);
        Py_DECREF(given);
        return NULL;
    }
    PyArrayObject *all = mgpy_new_floats(1, &n);
    for (npy_intp k = 0; all && k < n; k++)
        mgpy_floats(all)[k] = mgpy_floats(given)[0];
    Py_DECREF(given);
    return all;
}

static PyObject *generator_multi_resolution_noise(PyObject *object, PyObject *args) {
    struct mgpy_generator *self = (struct mgpy_generator *)object;
    npy_intp shape[4];
    PyObject *strength_object;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "(nnnn)O:multi_resolution_noise", &shape[0], &shape[1], &shape[2], &shape[3],
                          &strength_object))
        return NULL;
    for (int i = 0; i < 4; i++)
        if (shape[i] < 1)
            return PyErr_Format(PyExc_ValueError, "`shape` (%zd, %zd, %zd, %zd) must be positive", shape[0], shape[1],
                                shape[2], shape[3]);
    PyArrayObject *strength = read_strengths(strength_object, shape[0]), *out = NULL;
    if (strength && (out = mgpy_new_floats(4, shape))) {
        mg_status status;
        Py_BEGIN_ALLOW_THREADS status = mg_multi_resolution_noise(mgpy_floats(out), shape[0], shape[1], shape[2],
                                                                  shape[3], mgpy_floats(strength), self->handle, &err);
        Py_END_ALLOW_THREADS if (status != MG_OK) {
            Py_CLEAR(out);
            raised(object, &err);
        }
    }
    mgpy_release(strength);
    return (PyObject *)out;
}

/* bytes, as torch.Generator.get_state() has them in a tensor. */
static PyObject *generator_get_state(PyObject *object, PyObject *Py_UNUSED(unused)) {
    struct mgpy_generator *self = (struct mgpy_generator *)object;
    struct mg_err err;
    PyObject *out = PyBytes_FromStringAndSize(NULL, MG_GENERATOR_STATE_BYTES);
    if (out && mg_generator_get_state(self->handle, (uint8_t *)PyBytes_AsString(out), &err) != MG_OK) {
        Py_CLEAR(out);
        raised(object, &err);
    }
    if (out)
        memcpy(PyBytes_AsString(out), &self->seed, sizeof self->seed);
    return out;
}

static PyObject *generator_set_state(PyObject *object, PyObject *state) {
    struct mgpy_generator *self = (struct mgpy_generator *)object;
    Py_buffer view;
    struct mg_err err;
    if (PyObject_GetBuffer(state, &view, PyBUF_SIMPLE) != 0)
        return NULL;
    mg_status status = MG_OK;
    if (view.len != MG_GENERATOR_STATE_BYTES)
        PyErr_Format(PyExc_ValueError, "a generator's state has %d bytes; got %zd", MG_GENERATOR_STATE_BYTES, view.len);
    else if ((status = mg_generator_set_state(self->handle, view.buf, &err)) == MG_OK)
        memcpy(&self->seed, view.buf, sizeof self->seed);
    else
        raised(object, &err);
    PyBuffer_Release(&view);
    return PyErr_Occurred() ? NULL : Py_NewRef(object);
}

static PyMethodDef generator_methods[] = {
    {"randn", generator_randn, METH_VARARGS, "randn(shape): float32 array of the next normal random numbers."},
    {"rand", generator_rand, METH_VARARGS, "rand(shape): float32 array of the next numbers uniform in [0, 1)."},
    {"randint", generator_randint, METH_VARARGS,
     "randint(high, shape): int64 array of the next whole numbers from 0 to high - 1."},
    {"multi_resolution_noise", generator_multi_resolution_noise, METH_VARARGS,
     "multi_resolution_noise((N, C, H, W), strength): the noise of Marigold's fine-tuning (arXiv 2312.02145): randn, "
     "plus\n"
     "fields of lower resolutions times strength (a number in [0, 1], or one for each sample) to the power of the "
     "level,\n"
     "divided by the standard deviation of the whole batch."},
    {"manual_seed", generator_manual_seed, METH_O, "manual_seed(seed): start again from this seed; returns self."},
    {"get_state", generator_get_state, METH_NOARGS, "The state as bytes, in the layout of torch.Generator."},
    {"set_state", generator_set_state, METH_O, "set_state(state): continue from these bytes; returns self."},
    {"initial_seed", generator_initial_seed, METH_NOARGS, "The seed."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot generator_slots[] = {
    {Py_tp_doc, "Generator(seed): the random numbers of torch.Generator(\"cpu\").manual_seed(seed), to 2e-6."},
    {Py_tp_new, generator_new},
    {Py_tp_dealloc, generator_dealloc},
    {Py_tp_methods, generator_methods},
    {0, NULL}};

PyType_Spec mgpy_generator_spec = {.name = "marigold_c._C.Generator",
                                   .basicsize = sizeof(struct mgpy_generator),
                                   .flags = Py_TPFLAGS_DEFAULT,
                                   .slots = generator_slots};
