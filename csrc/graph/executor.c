/* executor.c: makes a plan from a graph (binds weights, folds constants, places activations) and runs it. Calls
 * planner.c, weights.c and the context's backend. */
#include <string.h>

#include "plan.h"

const void *mg_plan_address(const struct mg_plan *plan, mg_value value) {
    if (value == MG_NONE)
        return NULL;
    const struct mg_node *node = &plan->graph.nodes[value];
    if (node->role == MG_ROLE_WEIGHT)
        return node->weights->list[node->weight].ready;
    if (node->role == MG_ROLE_GRADIENT && !node->weights->passes_gradients)
        return node->weights->list[node->weight].gradient;
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
            MG_TRY(mg_weights_choose(graph->nodes[in].weights, graph->nodes[in].weight, layout, err));
        }
    return MG_OK;
}

static mg_status bind_weights(struct mg_plan *plan, struct mg_err *err) {
    const struct mg_graph *graph = &plan->graph;
    MG_TRY(mg_graph_choose_layouts(graph, plan->context, err));
    for (mg_value v = 0; v < graph->num_nodes; v++) {
        const struct mg_node *node = &graph->nodes[v];
        if (node->role == MG_ROLE_WEIGHT && node->weights->list[node->weight].has_layout)
            MG_TRY(mg_weights_bind(node->weights, node->weight, plan->context, err));
    }
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

/* A device with memory of its own reads constants there. */
static mg_status upload_constants(struct mg_plan *plan, struct mg_err *err) {
    for (mg_value v = 0; plan->context->memory && v < plan->graph.num_nodes; v++) {
        const struct mg_node *node = &plan->graph.nodes[v];
        const size_t bytes = mg_tensor_bytes(&node->tensor);
        if (node->role != MG_ROLE_CONSTANT)
            continue;
        MG_TRY(mg_context_alloc(&plan->folded[v], plan->context, bytes, "a constant", err));
        MG_TRY(mg_context_upload(plan->context, plan->folded[v], node->data, bytes, err));
    }
    return MG_OK;
}

/* What failed of the operations so far, where the backend cannot tell at once. */
static mg_status finish(const struct mg_plan *plan, struct mg_err *err) {
    const struct mg_backend *backend = plan->context->backend;
    return backend->finish ? backend->finish(plan->context, err) : MG_OK;
}

/* Runs the operations that depend on weights and constants only, and keeps what the others read of them. */
static mg_status fold_constants(struct mg_plan *plan, struct mg_err *err) {
    const struct mg_graph *graph = &plan->graph;
    MG_TRY(upload_constants(plan, err));
    for (int i = 0; i < graph->num_ops; i++) {
        mg_value out = graph->ops[i].out;
        if (!graph->nodes[out].constant)
            continue;
        MG_TRY(mg_context_poll(plan->context, err));
        MG_TRY(mg_context_alloc(&plan->folded[out], plan->context, mg_tensor_bytes(&graph->nodes[out].tensor),
                                "a folded constant", err));
        mg_plan_run_op(plan, &graph->ops[i], plan->folded[out]);
    }
    MG_TRY(finish(plan, err));
    for (mg_value v = 0; v < graph->num_nodes; v++)
        if (plan->folded[v] && !read_by_variable_op(graph, v)) {
            mg_context_free(plan->context, plan->folded[v]);
            plan->folded[v] = NULL;
        }
    return MG_OK;
}

/* The graph with a place for every activation; nothing is allocated on the device. Takes the graph over. */
static mg_status place(struct mg_plan **out, struct mg_graph *graph, struct mg_context *context, struct mg_err *err) {
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
    MG_TRY_GOTO(mg_plan_find_gradients(plan, err));
    MG_TRY_GOTO(mg_plan_place(plan, err));
    MG_TRY_GOTO(find_workspace(plan, err));
done:
    if (status != MG_OK) {
        mg_plan_destroy(plan);
        return status;
    }
    *out = plan;
    return MG_OK;
}

mg_status mg_plan_create(struct mg_plan **out, struct mg_graph *graph, struct mg_context *context, struct mg_err *err) {
    struct mg_plan *plan;
    mg_status status;
    MG_TRY(place(&plan, graph, context, err));
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

mg_status mg_graph_bytes(size_t *out, struct mg_graph *graph, struct mg_context *context, struct mg_err *err) {
    struct mg_plan *plan;
    MG_TRY(place(&plan, graph, context, err));
    *out = plan->activation_bytes + plan->workspace_bytes;
    mg_plan_destroy(plan);
    return MG_OK;
}

static void forget(struct mg_plan *plan) {
    if (plan->recording)
        plan->context->backend->forget(plan->context, plan->recording);
    plan->recording = NULL;
}

void mg_plan_destroy(struct mg_plan *plan) {
    if (!plan)
        return;
    forget(plan);
    if (plan->folded)
        for (int v = 0; v < plan->graph.num_nodes; v++)
            mg_context_free(plan->context, plan->folded[v]);
    mg_free(plan->folded);
    mg_free(plan->begun);
    mg_free(plan->finished);
    mg_free(plan->next_finished);
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

/* A part of the list: operations begin .. end, with the inputs that are (late) given to it and the outputs made in it. */
struct part {
    int begin, end;
    bool first, last; /* takes the ordinary inputs; the late ones */
    bool recorded;    /* where the backend can */
    const struct mg_binding *inputs, *outputs;
    int num_inputs, num_outputs;
};

static mg_status copy_inputs(struct mg_plan *plan, const struct part *part, struct mg_err *err) {
    for (mg_value v = 0; v < plan->graph.num_nodes; v++) {
        const struct mg_node *node = &plan->graph.nodes[v];
        if (node->role != MG_ROLE_INPUT || !(node->late ? part->last : part->first))
            continue;
        const void *data = find_binding(part->inputs, part->num_inputs, node->name);
        if (!data)
            return mg_fail(err, MG_ERR_ARGUMENT, "the graph input \"%s\" is not given", node->name);
        MG_TRY(mg_context_upload(plan->context, (void *)mg_plan_address(plan, v), data, mg_tensor_bytes(&node->tensor),
                                 err));
    }
    return MG_OK;
}

/* No block of gradients keeps what earlier passes added. */
static bool is_transient(const struct mg_plan *plan, mg_value gradient) {
    return gradient != MG_NONE && plan->graph.nodes[gradient].weights->passes_gradients;
}

static mg_status begin_gradient(const struct mg_plan *plan, mg_value gradient, struct mg_err *err) {
    if (!is_transient(plan, gradient))
        return MG_OK;
    return mg_context_clear(plan->context, (void *)mg_plan_address(plan, gradient), plan->placement[gradient].bytes,
                            err);
}

static void tell_finished(const struct mg_plan *plan, mg_value gradient) {
    for (; gradient != MG_NONE; gradient = plan->next_finished[gradient]) {
        const struct mg_node *node = &plan->graph.nodes[gradient];
        if (node->weights->gradient_done)
            node->weights->gradient_done(node->weights->gradient_user, node->weight,
                                         (float *)mg_plan_address(plan, gradient));
    }
}

/* Weights that move as their gradients pass must not stop half way: then nobody asks whether to stop. */
static mg_status run_one_by_one(struct mg_plan *plan, const struct part *part, bool polled, struct mg_err *err) {
    for (int i = part->begin; i < part->end; i++) {
        const struct mg_graph_op *op = &plan->graph.ops[i];
        if (plan->graph.nodes[op->out].constant)
            continue;
        polled = polled && !is_transient(plan, plan->begun[i]);
        if (polled)
            MG_TRY(mg_context_poll(plan->context, err));
        MG_TRY(begin_gradient(plan, plan->begun[i], err));
        mg_plan_run_op(plan, op, (void *)mg_plan_address(plan, op->out));
        tell_finished(plan, plan->finished[i]);
    }
    return MG_OK;
}

/* One by one the first time, so that the backend has chosen what it chooses once; recorded in the second run on the same
 * memory, and replayed from then on. */
static mg_status run_recorded(struct mg_plan *plan, const struct part *part, struct mg_err *err) {
    const struct mg_context *context = plan->context;
    const struct mg_backend *backend = context->backend;
    if (plan->recorded_activations != context->activations || plan->recorded_workspace != context->workspace) {
        forget(plan);
        MG_TRY(run_one_by_one(plan, part, true, err));
        plan->recorded_activations = context->activations;
        plan->recorded_workspace = context->workspace;
        return MG_OK;
    }
    if (!plan->recording) {
        bool begun;
        MG_TRY(backend->record(&begun, context, err));
        const mg_status status = run_one_by_one(plan, part, !begun, err);
        if (!begun)
            return status;
        MG_TRY(backend->recorded(&plan->recording, context, err));
        MG_TRY(status);
    }
    MG_TRY(mg_context_poll(context, err));
    backend->replay(context, plan->recording);
    return MG_OK;
}

static mg_status run_part(struct mg_plan *plan, const struct part *part, struct mg_err *err) {
    MG_TRY(copy_inputs(plan, part, err));
    if (part->recorded && plan->context->backend->record)
        MG_TRY(run_recorded(plan, part, err));
    else
        MG_TRY(run_one_by_one(plan, part, true, err));
    MG_TRY(finish(plan, err));
    for (int i = 0; i < plan->graph.num_outputs; i++) {
        const mg_value output = plan->graph.outputs[i];
        const struct mg_node *node = &plan->graph.nodes[output];
        void *data = find_binding(part->outputs, part->num_outputs, node->name);
        if (data && node->producer >= part->begin && node->producer < part->end)
            MG_TRY(mg_context_download(plan->context, data, mg_plan_address(plan, output),
                                       mg_tensor_bytes(&node->tensor), err));
    }
    return MG_OK;
}

mg_status mg_plan_run(struct mg_plan *plan, const struct mg_binding *inputs, int num_inputs,
                      const struct mg_binding *outputs, int num_outputs, struct mg_err *err) {
    const struct part all = {.begin = 0,
                             .end = plan->graph.num_ops,
                             .first = true,
                             .last = true,
                             .recorded = true,
                             .inputs = inputs,
                             .outputs = outputs,
                             .num_inputs = num_inputs,
                             .num_outputs = num_outputs};
    /* Another plan of the same context may have needed less when this one was made: memory only grows. */
    MG_TRY(mg_context_reserve(plan->context, plan->activation_bytes, plan->workspace_bytes, err));
    return run_part(plan, &all, err);
}

mg_status mg_plan_run_forward(struct mg_plan *plan, const struct mg_binding *inputs, int num_inputs,
                              const struct mg_binding *outputs, int num_outputs, struct mg_err *err) {
    const struct part part = {.begin = 0,
                              .end = plan->graph.forward_ops,
                              .first = true,
                              .inputs = inputs,
                              .outputs = outputs,
                              .num_inputs = num_inputs,
                              .num_outputs = num_outputs};
    MG_TRY(mg_context_reserve(plan->context, plan->activation_bytes, plan->workspace_bytes, err));
    return run_part(plan, &part, err);
}

mg_status mg_plan_run_backward(struct mg_plan *plan, const struct mg_binding *inputs, int num_inputs,
                               const struct mg_binding *outputs, int num_outputs, struct mg_err *err) {
    const struct part part = {.begin = plan->graph.forward_ops,
                              .end = plan->graph.num_ops,
                              .last = true,
                              .inputs = inputs,
                              .outputs = outputs,
                              .num_inputs = num_inputs,
                              .num_outputs = num_outputs};
    return run_part(plan, &part, err);
}
