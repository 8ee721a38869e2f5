/* loss_ext.c: losses of training by themselves, without a network. */
#include "../../csrc/train/trainer.h"
#include "test_ext.h"

static PyObject *sink_loss(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer depth, target, valid;
    long long h, w;
    double factor;
    if (!PyArg_ParseTuple(args, "y*y*y*LLd", &depth, &target, &valid, &h, &w, &factor))
        return NULL;
    PyObject *slope = PyBytes_FromStringAndSize(NULL, depth.len), *result = NULL;
    if (slope) {
        float *out = (float *)(void *)PyBytes_AS_STRING(slope);
        const double sum = mg_sink_loss(out, depth.buf, target.buf, valid.buf, h, w, factor);
        result = Py_BuildValue("(dLN)", sum, (long long)mg_sink_loss_blocks(valid.buf, h, w), slope);
    }
    PyBuffer_Release(&depth);
    PyBuffer_Release(&target);
    PyBuffer_Release(&valid);
    return result;
}

PyMethodDef mg_test_loss_methods[] = {
    {"sink_loss", sink_loss, METH_VARARGS,
     "sink_loss(depth, target, valid, h, w, factor) -> (sum over blocks, number of blocks, bytes of the gradient)"},
    {NULL, NULL, 0, NULL},
};
