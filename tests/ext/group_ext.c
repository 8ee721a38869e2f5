/* group_ext.c: sums over the devices of several processes, for tests/cuda/test_cuda_group.py. */
#include <string.h>

#include "../../csrc/backend/backend.h"
#include "test_ext.h"

static PyObject *group_name(PyObject *self, PyObject *args) {
    (void)self;
    const struct mg_backend *backend;
    const char *device;
    char name[MG_GROUP_NAME];
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "s", &device))
        return NULL;
    if (mg_backend_find(&backend, device, &err) != MG_OK || backend->group_name(name, &err) != MG_OK)
        return mg_test_raise(&err);
    return PyBytes_FromStringAndSize(name, sizeof name);
}

/* Joins, sums the numbers twice, and leaves when all have come to `meet`: nobody frees what another still reads. */
static mg_status sum_twice(float *numbers, int64_t count, struct mg_context *context, const char *device,
                           const char *name, int rank, int size, PyObject *meet, struct mg_err *err) {
    const size_t bytes = (size_t)count * sizeof(float);
    void *group = NULL, *memory = NULL;
    mg_status status;
    MG_TRY(mg_backend_open(context, device, NULL, err));
    MG_TRY_GOTO(mg_context_alloc(&memory, context, bytes, "numbers", err));
    MG_TRY_GOTO(mg_context_upload(context, memory, numbers, bytes, err));
    MG_TRY_GOTO(context->backend->join(&group, context, name, rank, size, err));
    for (int time = 0; time < 2; time++)
        MG_TRY_GOTO(context->backend->sum(context, group, memory, count, err));
    MG_TRY_GOTO(mg_context_download(context, numbers, memory, bytes, err));
    PyObject *met = PyObject_CallNoArgs(meet);
    if (!met)
        status = mg_fail(err, MG_ERR_DEVICE, "the other processes did not come");
    Py_XDECREF(met);
done:
    if (group)
        context->backend->leave(context, group);
    mg_context_free(context, memory);
    context->backend->close(context);
    return status;
}

static PyObject *sum_over_group(PyObject *self, PyObject *args) {
    (void)self;
    const char *device;
    int rank, size;
    PyObject *meet;
    Py_buffer name, numbers;
    struct mg_context context = {.num_threads = 1};
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "sy*iiw*O", &device, &name, &rank, &size, &numbers, &meet))
        return NULL;
    mg_status status = MG_ERR_ARGUMENT;
    if (name.len != MG_GROUP_NAME)
        mg_fail(&err, status, "the name of a group has %d bytes", MG_GROUP_NAME);
    else
        status = sum_twice(numbers.buf, numbers.len / (Py_ssize_t)sizeof(float), &context, device, name.buf, rank, size,
                           meet, &err);
    PyBuffer_Release(&name);
    PyBuffer_Release(&numbers);
    if (status != MG_OK)
        return mg_test_raise(&err);
    Py_RETURN_NONE;
}

PyMethodDef mg_test_group_methods[] = {
    {"group_name", group_name, METH_VARARGS, "group_name(device) -> bytes"},
    {"sum_over_group", sum_over_group, METH_VARARGS,
     "sum_over_group(device, name, rank, size, numbers, meet): numbers, float32, become their sum over all processes, "
     "twice; meet() returns when all have called it."},
    {NULL, NULL, 0, NULL},
};
