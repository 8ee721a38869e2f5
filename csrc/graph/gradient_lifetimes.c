/* gradient_lifetimes.c: when a backward pass begins the gradient of a weight, and when it needs neither that nor the
 * weight any more. Then the gradient can be summed over processes, or the weight moved. */
#include "plan.h"

static bool of_one_weight(const struct mg_node *a, const struct mg_node *b) {
    return a->weights == b->weights && a->weight == b->weight;
}

/* By node: the gradient before the first addition, for a weight and all sums of its gradient; else MG_NONE. */
static mg_status find_gradients(mg_value *gradient, const struct mg_graph *graph, struct mg_err *err) {
    for (mg_value v = 0; v < graph->num_nodes; v++)
        gradient[v] = MG_NONE;
    for (mg_value g = 0; g < graph->num_nodes; g++) {
        const struct mg_node *node = &graph->nodes[g];
        if (node->role != MG_ROLE_GRADIENT || node->producer >= 0)
            continue;
        for (mg_value v = 0; v < graph->num_nodes; v++)
            if (graph->nodes[v].weight >= 0 && of_one_weight(&graph->nodes[v], node))
                gradient[v] = g;
    }
    for (mg_value v = 0; graph->forward_ops && v < graph->num_nodes; v++) {
        const struct mg_node *node = &graph->nodes[v];
        if (node->role == MG_ROLE_WEIGHT && node->weights->passes_gradients && gradient[v] == MG_NONE)
            return mg_fail(err, MG_ERR_UNSUPPORTED,
                           "weight \"%s\" has no gradient here: that of all weights must be kept",
                           node->weights->list[node->weight].key);
    }
    return MG_OK;
}

static void finish(struct mg_plan *plan, int op, mg_value gradient, bool *finished) {
    if (gradient == MG_NONE || finished[gradient])
        return;
    finished[gradient] = true;
    plan->next_finished[gradient] = plan->finished[op];
    plan->finished[op] = gradient;
}

static void find_events(struct mg_plan *plan, const mg_value *gradient, bool *finished) {
    const struct mg_graph *graph = &plan->graph;
    for (int i = 0; i < graph->num_ops; i++)
        plan->begun[i] = plan->finished[i] = MG_NONE;
    for (int i = graph->num_ops - 1; i >= graph->forward_ops; i--) {
        const struct mg_graph_op *op = &graph->ops[i];
        finish(plan, i, gradient[op->out], finished);
        for (int slot = 0; slot < MG_MAX_INPUTS; slot++) {
            const mg_value in = op->in[slot];
            if (in == MG_NONE)
                continue;
            finish(plan, i, gradient[in], finished);
            if (graph->nodes[in].role == MG_ROLE_GRADIENT && graph->nodes[in].producer < 0)
                plan->begun[i] = in;
        }
    }
}

mg_status mg_plan_find_gradients(struct mg_plan *plan, struct mg_err *err) {
    const size_t nodes = (size_t)plan->graph.num_nodes, ops = (size_t)plan->graph.num_ops;
    mg_value *gradient = NULL;
    bool *finished = NULL;
    mg_status status;
    MG_TRY_GOTO(mg_alloc((void **)&plan->begun, ops * sizeof *plan->begun, "a plan", err));
    MG_TRY_GOTO(mg_alloc((void **)&plan->finished, ops * sizeof *plan->finished, "a plan", err));
    MG_TRY_GOTO(mg_alloc((void **)&plan->next_finished, nodes * sizeof *plan->next_finished, "a plan", err));
    MG_TRY_GOTO(mg_alloc((void **)&gradient, nodes * sizeof *gradient, "a plan", err));
    MG_TRY_GOTO(mg_alloc_zeroed((void **)&finished, nodes * sizeof *finished, "a plan", err));
    MG_TRY_GOTO(find_gradients(gradient, &plan->graph, err));
    find_events(plan, gradient, finished);
done:
    mg_free(gradient);
    mg_free(finished);
    return status;
}
