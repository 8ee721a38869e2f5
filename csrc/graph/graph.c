/* graph.c: the record of a network: nodes, operations, key prefixes and the sticky first error. Calls core and
 * graph/weights. */
#include "graph.h"

#include "builders.h"

#include <stdio.h>
#include <string.h>

void mg_graph_init(struct mg_graph *graph, struct mg_weights *weights, struct mg_err *err) {
    memset(graph, 0, sizeof *graph);
    graph->weights = weights;
    graph->err = err;
    mg_err_clear(err);
    mg_arena_init(&graph->arena);
}

void mg_graph_free(struct mg_graph *graph) {
    mg_free(graph->nodes);
    mg_free(graph->ops);
    mg_arena_free(&graph->arena);
    graph->nodes = NULL;
    graph->ops = NULL;
    graph->num_nodes = graph->num_ops = graph->node_capacity = graph->op_capacity = 0;
}

bool mg_graph_failed(const struct mg_graph *graph) { return graph->err->status != MG_OK; }

mg_status mg_graph_status(const struct mg_graph *graph) { return graph->err->status; }

mg_value mg_graph_fail(struct mg_graph *graph, mg_status status, const char *format, ...) {
    if (mg_graph_failed(graph))
        return MG_NONE;
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (graph->prefix[0])
        mg_fail(graph->err, status, "%s (in layer \"%s\")", message, graph->prefix);
    else
        mg_fail(graph->err, status, "%s", message);
    return MG_NONE;
}

/* Doubles *list when it is full. */
static bool grow(struct mg_graph *graph, void **list, int count, int *capacity, size_t item) {
    if (count < *capacity)
        return true;
    int wanted = *capacity ? *capacity * 2 : 256;
    void *bigger;
    if (mg_alloc(&bigger, (size_t)wanted * item, "a graph", graph->err) != MG_OK)
        return false;
    if (count)
        memcpy(bigger, *list, (size_t)count * item);
    mg_free(*list);
    *list = bigger;
    *capacity = wanted;
    return true;
}

static mg_value add_node(struct mg_graph *graph, const struct mg_tensor *tensor, mg_role role) {
    if (mg_graph_failed(graph) || mg_tensor_check(tensor, graph->prefix, graph->err) != MG_OK ||
        !grow(graph, (void **)&graph->nodes, graph->num_nodes, &graph->node_capacity, sizeof *graph->nodes))
        return MG_NONE;
    graph->nodes[graph->num_nodes] = (struct mg_node){.tensor = *tensor, .role = role, .producer = -1, .weight = -1};
    return graph->num_nodes++;
}

mg_value mg_graph_append(struct mg_graph *graph, const struct mg_op_shape *shape, const mg_value *in) {
    if (mg_graph_failed(graph))
        return MG_NONE;
    mg_value out = add_node(graph, &shape->out, MG_ROLE_ACTIVATION);
    if (out == MG_NONE || !grow(graph, (void **)&graph->ops, graph->num_ops, &graph->op_capacity, sizeof *graph->ops))
        return MG_NONE;
    struct mg_graph_op *op = &graph->ops[graph->num_ops];
    *op = (struct mg_graph_op){.shape = *shape, .out = out, .segment = graph->segment};
    bool constant = true;
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++) {
        op->in[slot] = in[slot];
        if (in[slot] != MG_NONE)
            constant = constant && graph->nodes[in[slot]].constant;
    }
    graph->nodes[out].constant = constant;
    graph->nodes[out].producer = graph->num_ops++;
    return out;
}

mg_value mg_graph_input(struct mg_graph *graph, const char *name, int64_t n, int64_t h, int64_t w, int64_t c) {
    struct mg_tensor tensor = {.dtype = MG_F32, .ndim = 4, .dim = {n, h, w, c}};
    mg_value value = add_node(graph, &tensor, MG_ROLE_INPUT);
    if (value != MG_NONE && !(graph->nodes[value].name = mg_arena_strdup(&graph->arena, name, strlen(name))))
        return mg_graph_fail(graph, MG_ERR_MEMORY, "no memory for the name of a graph input");
    return value;
}

mg_value mg_graph_constant(struct mg_graph *graph, const float *data, int64_t n, int64_t h, int64_t w, int64_t c) {
    struct mg_tensor tensor = {.dtype = MG_F32, .ndim = 4, .dim = {n, h, w, c}};
    mg_value value = add_node(graph, &tensor, MG_ROLE_CONSTANT);
    if (value == MG_NONE)
        return MG_NONE;
    void *copy = mg_arena_alloc(&graph->arena, mg_tensor_bytes(&tensor));
    if (!copy)
        return mg_graph_fail(graph, MG_ERR_MEMORY, "no memory for a constant of %zu bytes", mg_tensor_bytes(&tensor));
    memcpy(copy, data, mg_tensor_bytes(&tensor));
    graph->nodes[value].data = copy;
    graph->nodes[value].constant = true;
    return value;
}

mg_value mg_graph_weight(struct mg_graph *graph, const char *key, int ndim, const int64_t *dim) {
    if (mg_graph_failed(graph))
        return MG_NONE;
    char full[512];
    int length = snprintf(full, sizeof full, "%s%s", graph->prefix, key);
    if (length < 0 || (size_t)length >= sizeof full)
        return mg_graph_fail(graph, MG_ERR_UNSUPPORTED, "weight key \"%s\" is longer than %zu", key, sizeof full - 1);
    int index;
    if (mg_weights_declare(&index, graph->weights, full, ndim, dim, graph->err) != MG_OK)
        return MG_NONE;
    for (mg_value v = 0; v < graph->num_nodes; v++)
        if (graph->nodes[v].role == MG_ROLE_WEIGHT && graph->nodes[v].weights == graph->weights &&
            graph->nodes[v].weight == index)
            return v;
    mg_value value = add_node(graph, &graph->weights->list[index].shape, MG_ROLE_WEIGHT);
    if (value != MG_NONE) {
        graph->nodes[value].weight = index;
        graph->nodes[value].weights = graph->weights;
        graph->nodes[value].constant = !graph->weights->trained && !graph->weights->moving;
    }
    return value;
}

mg_value mg_graph_parameter_gradient(struct mg_graph *graph, mg_value weight) {
    if (mg_graph_failed(graph))
        return MG_NONE;
    const struct mg_node of = graph->nodes[weight];
    mg_value value = add_node(graph, &of.tensor, MG_ROLE_GRADIENT);
    if (value != MG_NONE) {
        graph->nodes[value].weight = of.weight;
        graph->nodes[value].weights = of.weights;
    }
    return value;
}

mg_value mg_graph_seed(struct mg_graph *graph, const char *name, mg_value of) {
    const int64_t *dim = mg_graph_dim(graph, of);
    mg_value value = mg_graph_input(graph, name, dim[0], dim[1], dim[2], dim[3]);
    if (value != MG_NONE)
        graph->nodes[value].late = true;
    return value;
}

void mg_graph_begin_segment(struct mg_graph *graph) { graph->segment = ++graph->num_segments; }

void mg_graph_end_segment(struct mg_graph *graph) { graph->segment = 0; }

void mg_graph_output(struct mg_graph *graph, const char *name, mg_value value) {
    if (mg_graph_failed(graph) || value == MG_NONE)
        return;
    struct mg_node *node = &graph->nodes[value];
    if (graph->num_outputs == MG_MAX_OUTPUTS || node->role != MG_ROLE_ACTIVATION || node->tensor.dtype != MG_F32) {
        mg_graph_fail(graph, MG_ERR_ARGUMENT,
                      "output \"%s\": at most %d outputs, each made by an operation, in float32", name, MG_MAX_OUTPUTS);
        return;
    }
    node->name = mg_arena_strdup(&graph->arena, name, strlen(name));
    if (!node->name) {
        mg_graph_fail(graph, MG_ERR_MEMORY, "no memory for the name of a graph output");
        return;
    }
    graph->outputs[graph->num_outputs++] = value;
}

const int64_t *mg_graph_dim(const struct mg_graph *graph, mg_value value) {
    static const int64_t none[MG_MAX_DIMS] = {0};
    return value == MG_NONE ? none : graph->nodes[value].tensor.dim;
}

size_t mg_graph_push(struct mg_graph *graph, const char *format, ...) {
    size_t length = strlen(graph->prefix);
    va_list arguments;
    va_start(arguments, format);
    int added = vsnprintf(graph->prefix + length, sizeof graph->prefix - length, format, arguments);
    va_end(arguments);
    size_t total = length + (added < 0 ? 0 : (size_t)added);
    if (added < 0 || total + 2 > sizeof graph->prefix) {
        graph->prefix[length] = '\0';
        mg_graph_fail(graph, MG_ERR_UNSUPPORTED, "layer names nested beyond %zu bytes", sizeof graph->prefix);
        return length;
    }
    graph->prefix[total] = '.';
    graph->prefix[total + 1] = '\0';
    return length;
}

void mg_graph_pop(struct mg_graph *graph, size_t length) { graph->prefix[length] = '\0'; }
