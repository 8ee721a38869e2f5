/* io_ext.c: the readers of untrusted files and the memory of a context, for tests/test_io.py and tests/test_core.py. */
#include <string.h>

#include "../../csrc/io/checkpoint.h"
#include "../../csrc/io/json.h"
#include "test_ext.h"

static PyObject *object_of(const struct mg_json *json);

static PyObject *container_of(const struct mg_json *json) {
    PyObject *out = json->type == MG_JSON_OBJECT ? PyDict_New() : PyList_New(0);
    for (size_t i = 0; out && i < json->length; i++) {
        PyObject *child = object_of(&json->children[i]);
        int failed = !child || (json->type == MG_JSON_OBJECT ? PyDict_SetItemString(out, json->keys[i], child)
                                                             : PyList_Append(out, child));
        Py_XDECREF(child);
        if (failed)
            Py_CLEAR(out);
    }
    return out;
}

static PyObject *object_of(const struct mg_json *json) {
    switch (json->type) {
    case MG_JSON_NULL:
        Py_RETURN_NONE;
    case MG_JSON_BOOL:
        return PyBool_FromLong(json->boolean);
    case MG_JSON_NUMBER:
        return json->is_integer ? PyLong_FromLongLong(json->integer) : PyFloat_FromDouble(json->number);
    case MG_JSON_STRING:
        return PyUnicode_DecodeUTF8(json->string, (Py_ssize_t)json->length, "strict");
    default:
        return container_of(json);
    }
}

/* parse_json(bytes) -> object */
static PyObject *parse_json(PyObject *module, PyObject *args) {
    static struct mg_err err;
    const char *text;
    Py_ssize_t bytes;
    const struct mg_json *json;
    struct mg_arena arena;
    (void)module;
    if (!PyArg_ParseTuple(args, "y#", &text, &bytes))
        return NULL;
    mg_arena_init(&arena);
    mg_status status = mg_json_parse(&json, &arena, text, (size_t)bytes, "text", &err);
    PyObject *out = status == MG_OK ? object_of(json) : mg_test_raise(&err);
    mg_arena_free(&arena);
    return out;
}

/* read_json(path) -> object */
static PyObject *read_json(PyObject *module, PyObject *args) {
    static struct mg_err err;
    PyObject *path;
    const struct mg_json *json;
    struct mg_arena arena;
    (void)module;
    if (!PyArg_ParseTuple(args, "O&", PyUnicode_FSConverter, &path))
        return NULL;
    mg_arena_init(&arena);
    mg_status status = mg_json_read_file(&json, &arena, PyBytes_AS_STRING(path), &err);
    PyObject *out = status == MG_OK ? object_of(json) : mg_test_raise(&err);
    mg_arena_free(&arena);
    Py_DECREF(path);
    return out;
}

/* json_text(bytes, room) -> the text that messages show */
static PyObject *json_text(PyObject *module, PyObject *args) {
    static struct mg_err err;
    const char *text;
    Py_ssize_t bytes, room;
    const struct mg_json *json;
    struct mg_arena arena;
    char buffer[256];
    (void)module;
    if (!PyArg_ParseTuple(args, "y#n", &text, &bytes, &room))
        return NULL;
    mg_arena_init(&arena);
    mg_status status = mg_json_parse(&json, &arena, text, (size_t)bytes, "text", &err);
    if (status == MG_OK && (room < 1 || (size_t)room > sizeof buffer))
        status = mg_fail(&err, MG_ERR_ARGUMENT, "room %zd is not 1 to %zu", room, sizeof buffer);
    PyObject *out =
        status != MG_OK ? mg_test_raise(&err) : PyBytes_FromString(mg_json_text(buffer, (size_t)room, json));
    mg_arena_free(&arena);
    return out;
}

/* json_int(bytes, key, minimum, maximum) -> the typed read, -77 where the key is absent */
static PyObject *json_int(PyObject *module, PyObject *args) {
    static struct mg_err err;
    const char *text, *key;
    Py_ssize_t bytes;
    long long minimum, maximum;
    int64_t value;
    const struct mg_json *json;
    struct mg_arena arena;
    (void)module;
    if (!PyArg_ParseTuple(args, "y#sLL", &text, &bytes, &key, &minimum, &maximum))
        return NULL;
    mg_arena_init(&arena);
    mg_status status = mg_json_parse(&json, &arena, text, (size_t)bytes, "text", &err);
    if (status == MG_OK)
        status = mg_json_get_int(&value, json, key, -77, minimum, maximum, "text", &err);
    PyObject *out = status == MG_OK ? PyLong_FromLongLong(value) : mg_test_raise(&err);
    mg_arena_free(&arena);
    return out;
}

/* (dtype, shape, values, raw): float types as float32 bytes, others None; raw is read after the pages were let go. */
static PyObject *tensor_tuple(const struct mg_checkpoint *checkpoint, const struct mg_stored_tensor *tensor) {
    PyObject *shape = PyTuple_New(tensor->ndim), *values = NULL;
    size_t count = 1;
    for (int d = 0; shape && d < tensor->ndim; d++) {
        PyTuple_SET_ITEM(shape, d, PyLong_FromLongLong(tensor->dim[d]));
        count *= (size_t)tensor->dim[d];
    }
    if (tensor->stored_dtype < 0) {
        values = Py_NewRef(Py_None);
    } else if ((values = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * sizeof(float))))) {
        mg_convert_to_f32((float *)(void *)PyBytes_AS_STRING(values), tensor->data, (mg_dtype)tensor->stored_dtype,
                          count);
    }
    mg_checkpoint_release(checkpoint, tensor);
    return Py_BuildValue("(sNNy#)", tensor->dtype_text, shape, values, (const char *)tensor->data,
                         (Py_ssize_t)tensor->bytes);
}

/* read_checkpoint(folder, variant or None) -> {key: (dtype, shape, float32 bytes or None, raw bytes)} */
static PyObject *read_checkpoint(PyObject *module, PyObject *args) {
    static struct mg_err err;
    const char *variant;
    PyObject *folder;
    struct mg_checkpoint checkpoint;
    (void)module;
    if (!PyArg_ParseTuple(args, "O&z", PyUnicode_FSConverter, &folder, &variant))
        return NULL;
    mg_status status = mg_checkpoint_open(&checkpoint, PyBytes_AS_STRING(folder), variant, &err);
    Py_DECREF(folder);
    if (status != MG_OK)
        return mg_test_raise(&err);
    PyObject *out = PyDict_New();
    for (size_t i = 0; out && i < checkpoint.stored.count; i++) {
        const struct mg_stored_tensor *tensor = mg_checkpoint_find(&checkpoint, checkpoint.stored.list[i].key);
        PyObject *value = tensor_tuple(&checkpoint, tensor);
        if (!value || PyDict_SetItemString(out, tensor->key, value))
            Py_CLEAR(out);
        Py_XDECREF(value);
    }
    mg_checkpoint_close(&checkpoint);
    return out;
}

/* reserve([(activation bytes, workspace bytes), ...]) -> [(activation bytes, workspace bytes, peak, both aligned), ...]
 * of one context that grows; every byte is written. */
static PyObject *reserve(PyObject *module, PyObject *args) {
    static struct mg_err err;
    PyObject *sizes;
    struct mg_context context = {.num_threads = 1};
    (void)module;
    if (!PyArg_ParseTuple(args, "O!", &PyList_Type, &sizes))
        return NULL;
    PyObject *out = PyList_New(0);
    for (Py_ssize_t i = 0; out && i < PyList_GET_SIZE(sizes); i++) {
        Py_ssize_t activations, workspace;
        PyObject *row = NULL;
        if (PyArg_ParseTuple(PyList_GET_ITEM(sizes, i), "nn", &activations, &workspace)) {
            if (mg_context_reserve(&context, (size_t)activations, (size_t)workspace, &err) != MG_OK) {
                mg_test_raise(&err);
            } else {
                memset(context.activations, 0xff, context.activation_bytes);
                memset(context.workspace, 0xff, context.workspace_bytes);
                uintptr_t bits = (uintptr_t)context.activations | (uintptr_t)context.workspace;
                row = Py_BuildValue("(nnnN)", (Py_ssize_t)context.activation_bytes, (Py_ssize_t)context.workspace_bytes,
                                    (Py_ssize_t)context.peak, PyBool_FromLong(bits % MG_ALIGNMENT == 0));
            }
        }
        if (!row || PyList_Append(out, row))
            Py_CLEAR(out);
        Py_XDECREF(row);
    }
    mg_context_release(&context);
    return out;
}

/* arena([bytes, ...]) -> whether every piece was zeroed, aligned to 16 and kept its contents. */
static PyObject *arena(PyObject *module, PyObject *args) {
    enum { MAX_PIECES = 64 };
    PyObject *sizes;
    struct mg_arena pieces;
    unsigned char *piece[MAX_PIECES];
    bool good = true;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!", &PyList_Type, &sizes))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(sizes) < MAX_PIECES ? PyList_GET_SIZE(sizes) : MAX_PIECES;
    mg_arena_init(&pieces);
    for (Py_ssize_t i = 0; i < count; i++) {
        size_t bytes = PyLong_AsSize_t(PyList_GET_ITEM(sizes, i));
        if (!(piece[i] = mg_arena_alloc(&pieces, bytes))) {
            mg_arena_free(&pieces);
            return PyErr_NoMemory();
        }
        good = good && (uintptr_t)piece[i] % 16 == 0;
        for (size_t b = 0; b < bytes; b++)
            good = good && !piece[i][b];
        memset(piece[i], (int)i + 1, bytes);
    }
    for (Py_ssize_t i = 0; i < count; i++)
        for (size_t b = 0; b < PyLong_AsSize_t(PyList_GET_ITEM(sizes, i)); b++)
            good = good && piece[i][b] == i + 1;
    mg_arena_free(&pieces);
    return PyBool_FromLong(good);
}

PyMethodDef mg_test_io_methods[] = {{"parse_json", parse_json, METH_VARARGS, "The strict JSON reader."},
                                    {"read_json", read_json, METH_VARARGS, "The strict JSON reader, of a file."},
                                    {"json_text", json_text, METH_VARARGS, "A value as messages show it."},
                                    {"json_int", json_int, METH_VARARGS, "A whole number within bounds."},
                                    {"read_checkpoint", read_checkpoint, METH_VARARGS, "All tensors of a folder."},
                                    {"reserve", reserve, METH_VARARGS, "Grow the memory of a context."},
                                    {"arena", arena, METH_VARARGS, "Draw pieces from one arena."},
                                    {NULL, NULL, 0, NULL}};
