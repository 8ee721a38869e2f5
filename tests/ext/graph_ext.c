/* graph_ext.c: runs small graphs given as lists, to test the planner (lifetimes, memory taken over, folding) against
 * NumPy. */
#include <string.h>

#include "../../csrc/graph/graph.h"
#include "test_ext.h"

enum { MAX_VALUES = 256 };

struct program {
    struct mg_graph graph;
    mg_value values[MAX_VALUES];
    int count;
};

/* ("input" | "constant", bytes, (n, h, w, c)), ("add" | "concat", a, b), ("scale", a, factor), ("slice", a, begin, count),
 * ("step", a, b, factors), ("bfloat16", a), ("attention", q, k, v), ("convolution", x, weight, channel vector): what the tests
 * need of the builders. */
static mg_value build_one(struct program *p, PyObject *item, const char **data) {
    const char *kind = PyUnicode_AsUTF8(PyTuple_GetItem(item, 0));
    char name[16];
    long long n, h, w, c;
    int a, b, f;
    double factor;
    if (!strcmp(kind, "input") || !strcmp(kind, "constant")) {
        Py_ssize_t bytes;
        if (!PyArg_ParseTuple(item, "sy#(LLLL)", &kind, data, &bytes, &n, &h, &w, &c))
            return MG_NONE;
        snprintf(name, sizeof name, "%d", p->count);
        return kind[0] == 'i' ? mg_graph_input(&p->graph, name, n, h, w, c)
                              : mg_graph_constant(&p->graph, (const float *)*data, n, h, w, c);
    }
    if (!strcmp(kind, "scale") && PyArg_ParseTuple(item, "sid", &kind, &a, &factor))
        return mg_op_scale(&p->graph, p->values[a], (float)factor);
    if (!strcmp(kind, "slice") && PyArg_ParseTuple(item, "siLL", &kind, &a, &h, &w))
        return mg_op_channel_slice(&p->graph, p->values[a], h, w);
    if (!strcmp(kind, "add") && PyArg_ParseTuple(item, "sii", &kind, &a, &b))
        return mg_op_add(&p->graph, p->values[a], p->values[b]);
    if (!strcmp(kind, "concat") && PyArg_ParseTuple(item, "sii", &kind, &a, &b))
        return mg_op_concat(&p->graph, p->values[a], p->values[b]);
    if (!strcmp(kind, "bfloat16") && PyArg_ParseTuple(item, "si", &kind, &a))
        return mg_op_cast(&p->graph, p->values[a], MG_BF16);
    if (!strcmp(kind, "attention") && PyArg_ParseTuple(item, "siii", &kind, &a, &b, &f))
        return mg_op_attention(&p->graph, p->values[a], p->values[b], p->values[f], 1, false);
    if (!strcmp(kind, "convolution") && PyArg_ParseTuple(item, "siii", &kind, &a, &b, &f))
        return mg_op_conv2d(&p->graph, p->values[a], p->values[b], MG_NONE, MG_NONE, p->values[f],
                            &(struct mg_conv2d){.stride = 1});
    PyErr_Format(PyExc_ValueError, "unknown item %R", item);
    return MG_NONE;
}

static PyObject *plan_and_run(struct program *p, const struct mg_binding *inputs, int num_inputs, mg_value output,
                              const char *backend, struct mg_err *err) {
    struct mg_context context = {.num_threads = 2};
    struct mg_plan *plan = NULL;
    PyObject *result = NULL, *bytes = NULL;
    mg_status status = mg_backend_find(&context.backend, backend, err);
    size_t size = mg_graph_failed(&p->graph) ? 0 : mg_tensor_bytes(&p->graph.nodes[output].tensor);
    if (status == MG_OK)
        status = context.backend->open(&context, NULL, err);
    if (status == MG_OK)
        status = mg_plan_create(&plan, &p->graph, &context, err);
    if (status == MG_OK && (bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size)))
        for (int repeat = 0; repeat < 2 && status == MG_OK; repeat++)
            status =
                mg_plan_run(plan, inputs, num_inputs, &(struct mg_binding){"out", PyBytes_AsString(bytes)}, 1, err);
    if (status != MG_OK)
        mg_test_raise(err);
    else if (bytes)
        result = Py_BuildValue("(Onni)", bytes, (Py_ssize_t)mg_plan_activation_bytes(plan),
                               (Py_ssize_t)mg_plan_live_bytes(plan), mg_plan_num_ops(plan));
    Py_XDECREF(bytes);
    mg_plan_destroy(plan);
    mg_context_release(&context);
    if (context.backend)
        context.backend->close(&context);
    return result;
}

/* run_graph(backend, items, output) -> (bytes, activation bytes, live bytes, operations). Runs twice: what a first run leaves
 * behind must not matter. */
static PyObject *run_graph(PyObject *module, PyObject *args) {
    const char *backend;
    PyObject *items;
    int output;
    static struct mg_err err; /* 32 KiB; calls hold the GIL */
    struct program p = {.count = 0};
    struct mg_binding inputs[MAX_VALUES];
    char names[MAX_VALUES][16];
    int num_inputs = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "sO!i", &backend, &PyList_Type, &items, &output))
        return NULL;
    mg_graph_init(&p.graph, NULL, &err);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items) && p.count < MAX_VALUES; i++) {
        const char *data = NULL;
        p.values[p.count] = build_one(&p, PyList_GET_ITEM(items, i), &data);
        if (PyErr_Occurred()) {
            mg_graph_free(&p.graph);
            return NULL;
        }
        if (data && p.values[p.count] != MG_NONE && p.graph.nodes[p.values[p.count]].role == MG_ROLE_INPUT) {
            snprintf(names[num_inputs], sizeof names[0], "%d", p.count);
            inputs[num_inputs] = (struct mg_binding){names[num_inputs], (void *)data};
            num_inputs++;
        }
        p.count++;
    }
    mg_graph_output(&p.graph, "out", p.values[output]);
    return plan_and_run(&p, inputs, num_inputs, p.values[output], backend, &err);
}

PyMethodDef mg_test_graph_methods[] = {{"run_graph", run_graph, METH_VARARGS, "Plan and run a list of operations."},
                                       {NULL, NULL, 0, NULL}};
