/* optimizer_ext.c: weights that a device rounds from their masters, for tests/cuda/test_cuda_training.py. */
#include <string.h>

#include "../../csrc/backend/backend.h"
#include "test_ext.h"

/* What the device makes of the weight's master, into `found`, and what mg_pack_weight makes of the weight. */
static mg_status round_both(void *found, void *expected, const struct mg_context *context,
                            struct mg_weight_layout layout, const struct mg_tensor *shape, const float *weight,
                            struct mg_err *err) {
    const struct mg_weight_layout wide = {.panel = layout.panel, .group = 1, .dtype = MG_F32};
    const size_t bytes = mg_packed_bytes(layout, shape), master_bytes = mg_packed_bytes(wide, shape);
    void *master = NULL, *device_master = NULL, *device = NULL;
    mg_status status;
    mg_pack_weight(expected, layout, shape, weight, MG_F32, 1);
    memset(found, 0xff, bytes);
    MG_TRY_GOTO(mg_alloc(&master, master_bytes, "a master", err));
    mg_pack_weight(master, wide, shape, weight, MG_F32, 1);
    MG_TRY_GOTO(mg_context_alloc(&device_master, context, master_bytes, "a master", err));
    MG_TRY_GOTO(mg_context_upload(context, device_master, master, master_bytes, err));
    MG_TRY_GOTO(mg_context_alloc(&device, context, bytes, "a weight", err));
    MG_TRY_GOTO(mg_context_upload(context, device, found, bytes, err));
    context->backend->round_weight(context, device, layout, shape, device_master);
    MG_TRY_GOTO(context->backend->finish(context, err));
    MG_TRY_GOTO(mg_context_download(context, found, device, bytes, err));
done:
    mg_context_free(context, device);
    mg_context_free(context, device_master);
    mg_free(master);
    return status;
}

/* As a convolution of such activations wants its weight. */
static struct mg_weight_layout layout_of(const struct mg_context *context, mg_dtype activations,
                                         const struct mg_tensor *shape) {
    const struct mg_op_shape op = {.kind = MG_OP_CONV2D, .in = {{.dtype = activations, .ndim = 4}, *shape}};
    return context->backend->weight_layout(context, &op, 1);
}

static PyObject *round_weight(PyObject *self, PyObject *args) {
    (void)self;
    const char *device, *precision;
    long long k, c, r, s;
    Py_buffer weight;
    struct mg_context context = {.num_threads = 1};
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "ss(LLLL)y*", &device, &precision, &k, &c, &r, &s, &weight))
        return NULL;
    const struct mg_tensor shape = {.dtype = MG_F32, .ndim = 4, .dim = {k, c, r, s}};
    const mg_dtype activations = !strcmp(precision, "float16") ? MG_F16 : MG_BF16;
    PyObject *found = NULL, *expected = NULL;
    mg_status status = mg_backend_open(&context, device, NULL, &err);
    if (status == MG_OK) {
        const struct mg_weight_layout layout = layout_of(&context, activations, &shape);
        const Py_ssize_t bytes = (Py_ssize_t)mg_packed_bytes(layout, &shape);
        found = PyBytes_FromStringAndSize(NULL, bytes);
        expected = PyBytes_FromStringAndSize(NULL, bytes);
        if (found && expected)
            status = round_both(PyBytes_AS_STRING(found), PyBytes_AS_STRING(expected), &context, layout, &shape,
                                weight.buf, &err);
        context.backend->close(&context);
    }
    PyBuffer_Release(&weight);
    if (status == MG_OK && found && expected)
        return Py_BuildValue("(NN)", found, expected);
    Py_XDECREF(found);
    Py_XDECREF(expected);
    return status == MG_OK ? NULL : mg_test_raise(&err);
}

PyMethodDef mg_test_optimizer_methods[] = {
    {"round_weight", round_weight, METH_VARARGS,
     "round_weight(device, precision, (K, C, R, S), float32 weight) -> (bytes that the device rounds from the master, "
     "bytes of the weight packed at once)"},
    {NULL, NULL, 0, NULL},
};
