/* packed_ext.c: weight layouts and packed files, for tests/test_convert.py. */
#include "../../csrc/backend/backend.h"
#include "../../csrc/io/crc32.h"
#include "test_ext.h"

static bool read_layout(struct mg_weight_layout *out, const char *text) {
    if (mg_layout_read(out, text))
        return true;
    PyErr_Format(PyExc_ValueError, "no layout: %s", text);
    return false;
}

static PyObject *bytes_of(const struct mg_tensor *shape, struct mg_weight_layout layout) {
    const size_t bytes = mg_packed_bytes(layout, shape);
    if (bytes > PY_SSIZE_T_MAX)
        return PyErr_NoMemory();
    return PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
}

/* repack(float32 bytes, (K, C, R, S), layout, other layout, threads)
 * -> (packed, packed by way of the other layout, unpacked from the other layout) */
static PyObject *repack(PyObject *self, PyObject *args) {
    Py_buffer source;
    const char *text, *other_text;
    struct mg_weight_layout layout, other;
    struct mg_tensor shape = {.dtype = MG_F32, .ndim = 4};
    PyObject *direct = NULL, *first = NULL, *second = NULL, *plain = NULL, *result = NULL;
    int threads;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*(LLLL)ssi", &source, &shape.dim[0], &shape.dim[1], &shape.dim[2], &shape.dim[3],
                          &text, &other_text, &threads))
        return NULL;
    if (!read_layout(&layout, text) || !read_layout(&other, other_text))
        goto done;
    if ((size_t)source.len != mg_tensor_bytes(&shape)) {
        PyErr_SetString(PyExc_ValueError, "the source has not the bytes of the shape");
        goto done;
    }
    if (!(direct = bytes_of(&shape, layout)) || !(first = bytes_of(&shape, other)) ||
        !(second = bytes_of(&shape, layout)) || !(plain = PyBytes_FromStringAndSize(NULL, source.len)))
        goto done;
    mg_pack_weight(PyBytes_AS_STRING(direct), layout, &shape, source.buf, MG_F32, threads);
    mg_pack_weight(PyBytes_AS_STRING(first), other, &shape, source.buf, MG_F32, threads);
    mg_repack_weight(PyBytes_AS_STRING(second), layout, &shape, PyBytes_AS_STRING(first), other, threads);
    mg_unpack_weight((float *)PyBytes_AS_STRING(plain), &shape, PyBytes_AS_STRING(first), other, threads);
    result = PyTuple_Pack(3, direct, second, plain);
done:
    Py_XDECREF(direct);
    Py_XDECREF(first);
    Py_XDECREF(second);
    Py_XDECREF(plain);
    PyBuffer_Release(&source);
    return result;
}

/* layout_text(text) -> the text of the layout that it names, None if it names none */
static PyObject *layout_text(PyObject *self, PyObject *args) {
    const char *text;
    struct mg_weight_layout layout;
    char buffer[MG_LAYOUT_TEXT];
    (void)self;
    if (!PyArg_ParseTuple(args, "s", &text))
        return NULL;
    if (!mg_layout_read(&layout, text))
        Py_RETURN_NONE;
    return PyUnicode_FromString(mg_layout_text(buffer, layout));
}

/* crc32(bytes, before) */
static PyObject *crc32_of(PyObject *self, PyObject *args) {
    struct mg_crc32 crc;
    const char *data;
    Py_ssize_t bytes;
    unsigned before;
    (void)self;
    if (!PyArg_ParseTuple(args, "y#I", &data, &bytes, &before))
        return NULL;
    mg_crc32_init(&crc);
    return PyLong_FromUnsignedLong(mg_crc32_add(&crc, before, data, (size_t)bytes));
}

PyMethodDef mg_test_packed_methods[] = {
    {"repack", repack, METH_VARARGS, "repack(float32 bytes, (K, C, R, S), layout, other layout, threads)"},
    {"layout_text", layout_text, METH_VARARGS, "layout_text(text) -> text or None"},
    {"crc32", crc32_of, METH_VARARGS, "crc32(bytes, before) -> checksum"},
    {NULL, NULL, 0, NULL},
};
