/* executor.c: makes a plan from a graph (binds weights, folds constants, places activations) and runs it.
 * Called by marigold/pipeline; calls planner.c, weights.c and the context's backend. */
#include <string.h>

#include "plan.h"

const void *mg_plan_address(const struct mg_plan *plan, mg_value value) {
    if (value == MG_NONE)
        return NULL;
    const struct mg_node *node = &plan->graph.nodes[value];
    if (node->role == MG_ROLE_WEIGHT)
        return plan->graph.weights->list[node->weight].ready;
    if (node->constant)
        return plan->folded[value] ? plan->folded[value] : node->data;
    const struct mg_placement *placement = &plan->placement[value];
    return (const char *)plan->context->activations + plan->placement[placement->storage].offset + placement->shift;
}

void mg_plan_run_op(const struct mg_plan *plan, const struct mg_graph_op *op, void *out) {
    struct mg_op_call call = {.op = &op->shape, .out = out, .workspace = plan->context->workspace};
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
        call.in[slot] = mg_plan_address(plan, op->in[slot]);
    plan->context->backend->run(plan->context, &call);
}

mg_status mg_graph_choose_layouts(const struct mg_graph *graph, const struct mg_context *context, struct mg_err *err) {
    for (int i = 0; i < graph->num_ops; i++)
        for (int slot = 0; slot < MG_MAX_INPUTS; slot++) {
            mg_value in = graph->ops[i].in[slot];
            if (in == MG_NONE || graph->nodes[in].role != MG_ROLE_WEIGHT)
                continue;
            struct mg_weight_layout layout = context->backend->weight_layout(context, &graph->ops[i].shape, slot);
            MG_TRY(mg_weights_choose(graph->weights, graph->nodes[in].weight, layout, err));
        }
    return MG_OK;
}

static mg_status bind_weights(struct mg_plan *plan, struct mg_err *err) {
    const struct mg_graph *graph = &plan->graph;
    MG_TRY(mg_graph_choose_layouts(graph, plan->context, err));
    for (mg_value v = 0; v < graph->num_nodes; v++)
        if (graph->nodes[v].role == MG_ROLE_WEIGHT && graph->weights->list[graph->nodes[v].weight].has_layout)
            MG_TRY(mg_weights_bind(graph->weights, graph->nodes[v].weight, plan->context, err));
    return MG_OK;
}

static mg_status find_workspace(struct mg_plan *plan, struct mg_err *err) {
    for (int i = 0; i < plan->graph.num_ops; i++) {
        const struct mg_op_shape *shape = &plan->graph.ops[i].shape;
        size_t bytes = plan->context->backend->workspace_bytes(plan->context, shape);
        if (bytes == SIZE_MAX)
            return mg_fail(err, MG_ERR_MEMORY, "%s needs more scratch memory than can be addressed",
                           mg_op_info_of(shape->kind)->name);
        if (bytes > plan->workspace_bytes)
            plan->workspace_bytes = bytes;
    }
    return MG_OK;
}

static bool read_by_variable_op(const struct mg_graph *graph, mg_value value) {
    for (int i = 0; i < graph->num_ops; i++)
        if (!graph->nodes[graph->ops[i].out].constant)
            for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
                if (graph->ops[i].in[slot] == value)
                    return true;
    for (int i = 0; i < graph->num_outputs; i++)
        if (graph->outputs[i] == value)
            return true;
    return false;
}

/* Runs the operations that depend on weights and constants only, and keeps what the others read of them. */
static mg_status fold_constants(struct mg_plan *plan, struct mg_err *err) {
    const struct mg_graph *graph = &plan->graph;
    for (int i = 0; i < graph->num_ops; i++) {
        mg_value out = graph->ops[i].out;
        if (!graph->nodes[out].constant)
            continue;
        MG_TRY(mg_context_poll(plan->context, err));
        MG_TRY(mg_alloc(&plan->folded[out], mg_tensor_bytes(&graph->nodes[out].tensor), "a folded constant", err));
        mg_plan_run_op(plan, &graph->ops[i], plan->folded[out]);
    }
    for (mg_value v = 0; v < graph->num_nodes; v++)
        if (plan->folded[v] && !read_by_variable_op(graph, v)) {
            mg_free(plan->folded[v]);
            plan->folded[v] = NULL;
        }
    return MG_OK;
}

mg_status mg_plan_create(struct mg_plan **out, struct mg_graph *graph, struct mg_context *context, struct mg_err *err) {
    struct mg_plan *plan = NULL;
    mg_status status = mg_graph_status(graph);
    if (status == MG_OK)
        status = mg_alloc_zeroed((void **)&plan, sizeof *plan, "a plan", err);
    if (status != MG_OK) {
        if (graph->err != err && graph->err->status != MG_OK)
            mg_fail(err, graph->err->status, "%s", graph->err->message);
        mg_graph_free(graph);
        return status;
    }
    plan->graph = *graph;
    plan->context = context;
    memset(graph, 0, sizeof *graph);
    size_t nodes = (size_t)plan->graph.num_nodes;
    MG_TRY_GOTO(mg_alloc_zeroed((void **)&plan->placement, nodes * sizeof *plan->placement, "a plan", err));
    MG_TRY_GOTO(mg_alloc_zeroed((void **)&plan->folded, nodes * sizeof *plan->folded, "a plan", err));
    MG_TRY_GOTO(mg_plan_place(plan, err));
    MG_TRY_GOTO(find_workspace(plan, err));
    MG_TRY_GOTO(mg_context_reserve(context, plan->activation_bytes, plan->workspace_bytes, err));
    MG_TRY_GOTO(bind_weights(plan, err));
    MG_TRY_GOTO(fold_constants(plan, err));
done:
    if (status != MG_OK) {
        mg_plan_destroy(plan);
        return status;
    }
    *out = plan;
    return MG_OK;
}

void mg_plan_destroy(struct mg_plan *plan) {
    if (!plan)
        return;
    if (plan->folded)
        for (int v = 0; v < plan->graph.num_nodes; v++)
            mg_free(plan->folded[v]);
    mg_free(plan->folded);
    mg_free(plan->placement);
    mg_graph_free(&plan->graph);
    mg_free(plan);
}

size_t mg_plan_activation_bytes(const struct mg_plan *plan) { return plan->activation_bytes; }
size_t mg_plan_live_bytes(const struct mg_plan *plan) { return plan->live_bytes; }
size_t mg_plan_workspace_bytes(const struct mg_plan *plan) { return plan->workspace_bytes; }
int mg_plan_num_ops(const struct mg_plan *plan) { return plan->graph.num_ops; }

static void *find_binding(const struct mg_binding *list, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (!strcmp(list[i].name, name))
            return list[i].data;
    return NULL;
}

static mg_status copy_inputs(struct mg_plan *plan, const struct mg_binding *inputs, int count, struct mg_err *err) {
    for (mg_value v = 0; v < plan->graph.num_nodes; v++) {
        const struct mg_node *node = &plan->graph.nodes[v];
        if (node->role != MG_ROLE_INPUT)
            continue;
        const void *data = find_binding(inputs, count, node->name);
        if (!data)
            return mg_fail(err, MG_ERR_ARGUMENT, "the graph input \"%s\" is not given", node->name);
        memcpy((void *)mg_plan_address(plan, v), data, mg_tensor_bytes(&node->tensor));
    }
    return MG_OK;
}

mg_status mg_plan_run(struct mg_plan *plan, const struct mg_binding *inputs, int num_inputs,
                      const struct mg_binding *outputs, int num_outputs, struct mg_err *err) {
    /* Another plan of the same context may have needed less when this one was made: memory only grows. */
    MG_TRY(mg_context_reserve(plan->context, plan->activation_bytes, plan->workspace_bytes, err));
    MG_TRY(copy_inputs(plan, inputs, num_inputs, err));
    for (int i = 0; i < plan->graph.num_ops; i++) {
        const struct mg_graph_op *op = &plan->graph.ops[i];
        if (plan->graph.nodes[op->out].constant)
            continue;
        MG_TRY(mg_context_poll(plan->context, err));
        mg_plan_run_op(plan, op, (void *)mg_plan_address(plan, op->out));
    }
    for (int i = 0; i < plan->graph.num_outputs; i++) {
        const struct mg_node *node = &plan->graph.nodes[plan->graph.outputs[i]];
        void *data = find_binding(outputs, num_outputs, node->name);
        if (data)
            memcpy(data, mg_plan_address(plan, plan->graph.outputs[i]), mg_tensor_bytes(&node->tensor));
    }
    return MG_OK;
}
