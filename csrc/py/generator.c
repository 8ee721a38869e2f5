/* generator.c: the type Generator, torch's CPU random numbers. Made by module.c. */
#include <string.h>

#include "binding.h"

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
    struct mgpy_generator *self = (struct mgpy_generator *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->seed = seed;
    if (mg_generator_create(&self->handle, seed, &err) != MG_OK) {
        struct mgpy_state *state = mgpy_state_of((PyObject *)self);
        if (state)
            mgpy_raise(state, &err);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void generator_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    mg_generator_destroy(((struct mgpy_generator *)object)->handle);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *generator_manual_seed(PyObject *object, PyObject *seed_object) {
    struct mgpy_generator *self = (struct mgpy_generator *)object;
    if (!read_seed(&self->seed, seed_object) || mgpy_refuse_busy(self->user, "generator"))
        return NULL;
    mg_generator_seed(self->handle, self->seed);
    return Py_NewRef(object);
}

static PyObject *generator_initial_seed(PyObject *object, PyObject *Py_UNUSED(unused)) {
    return PyLong_FromUnsignedLongLong(((struct mgpy_generator *)object)->seed);
}

/* randn(2, 3) and randn((2, 3)), as torch. */
static PyObject *generator_randn(PyObject *object, PyObject *args) {
    struct mgpy_generator *self = (struct mgpy_generator *)object;
    PyArray_Dims shape = {NULL, 0};
    PyArrayObject *out = NULL;
    PyObject *sizes = args;
    if (PyTuple_GET_SIZE(args) == 1)
        sizes = PyTuple_GET_ITEM(args, 0);
    if (!PyArray_IntpConverter(sizes, &shape))
        return NULL;
    for (int i = 0; i < shape.len; i++)
        if (shape.ptr[i] < 0) {
            PyErr_Format(PyExc_ValueError, "`shape` %R has a negative size", sizes);
            goto done;
        }
    if (mgpy_refuse_busy(self->user, "generator"))
        goto done;
    out = mgpy_new_floats(shape.len, shape.ptr);
    if (!out)
        goto done;
    self->user = out;
    Py_BEGIN_ALLOW_THREADS mg_generator_randn(self->handle, mgpy_floats(out), (size_t)PyArray_SIZE(out));
    Py_END_ALLOW_THREADS self->user = NULL;
done:
    PyDimMem_FREE(shape.ptr);
    return (PyObject *)out;
}

/* bytes, as torch.Generator.get_state() has them in a tensor. */
static PyObject *generator_get_state(PyObject *object, PyObject *Py_UNUSED(unused)) {
    struct mgpy_generator *self = (struct mgpy_generator *)object;
    if (mgpy_refuse_busy(self->user, "generator"))
        return NULL;
    PyObject *out = PyBytes_FromStringAndSize(NULL, MG_GENERATOR_STATE_BYTES);
    if (out) {
        mg_generator_get_state(self->handle, (uint8_t *)PyBytes_AS_STRING(out));
        memcpy(PyBytes_AS_STRING(out), &self->seed, sizeof self->seed);
    }
    return out;
}

static PyObject *generator_set_state(PyObject *object, PyObject *state) {
    struct mgpy_generator *self = (struct mgpy_generator *)object;
    Py_buffer view;
    struct mg_err err;
    if (mgpy_refuse_busy(self->user, "generator") || PyObject_GetBuffer(state, &view, PyBUF_SIMPLE) != 0)
        return NULL;
    mg_status status = MG_OK;
    if (view.len != MG_GENERATOR_STATE_BYTES)
        PyErr_Format(PyExc_ValueError, "a generator's state has %d bytes; got %zd", MG_GENERATOR_STATE_BYTES, view.len);
    else if ((status = mg_generator_set_state(self->handle, view.buf, &err)) == MG_OK)
        memcpy(&self->seed, view.buf, sizeof self->seed);
    else {
        struct mgpy_state *module = mgpy_state_of(object);
        if (module)
            mgpy_raise(module, &err);
    }
    PyBuffer_Release(&view);
    return PyErr_Occurred() ? NULL : Py_NewRef(object);
}

static PyMethodDef generator_methods[] = {
    {"randn", generator_randn, METH_VARARGS, "randn(shape): float32 array of the next normal random numbers."},
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
