/* planner.c: where every activation lies in the one arena.
 *
 * A tensor lives from the operation that makes it to the last one that reads it. An output may take over the memory of
 * an input that dies there, where ops.def allows, or follow upon a larger one, where the backend does. Then the tensors
 * are placed largest first, each at the lowest offset free of all tensors that live at the same time. */
#include <stdlib.h>
#include <string.h>

#include "plan.h"

/* Weights and their gradients have memory of their own. */
static bool is_placed(const struct mg_node *node) {
    return node->role != MG_ROLE_WEIGHT && node->role != MG_ROLE_GRADIENT && !node->constant;
}

/* But for gradients that are not kept. */
static bool is_transient(const struct mg_node *node) {
    return node->role == MG_ROLE_GRADIENT && node->weights->passes_gradients;
}

/* Has memory of its own in the arena. */
static bool owns_memory(const struct mg_plan *plan, mg_value v) {
    const struct mg_node *node = &plan->graph.nodes[v];
    return (is_placed(node) || is_transient(node)) && plan->placement[v].storage == v;
}

static void find_lifetimes(struct mg_plan *plan) {
    const struct mg_graph *graph = &plan->graph;
    for (mg_value v = 0; v < graph->num_nodes; v++) {
        size_t bytes = mg_tensor_bytes(&graph->nodes[v].tensor);
        plan->placement[v] = (struct mg_placement){
            .first = graph->nodes[v].producer,
            .last = graph->nodes[v].producer,
            .bytes = mg_aligned(bytes),
            .storage = v,
        };
    }
    for (int i = 0; i < graph->num_ops; i++)
        for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
            if (graph->ops[i].in[slot] != MG_NONE)
                plan->placement[graph->ops[i].in[slot]].last = i;
    for (int i = 0; i < graph->num_outputs; i++)
        plan->placement[graph->outputs[i]].last = graph->num_ops;
}

/* From the first operation that adds to it until it was taken; all sums are one memory, in the layout of the weight. */
static void find_lifetimes_of_gradients(struct mg_plan *plan) {
    const struct mg_graph *graph = &plan->graph;
    for (int i = graph->forward_ops; i < graph->num_ops; i++) {
        if (plan->begun[i] != MG_NONE)
            plan->placement[plan->begun[i]].first = i;
        for (mg_value g = plan->finished[i]; g != MG_NONE; g = plan->next_finished[g]) {
            const struct mg_node *node = &graph->nodes[g];
            plan->placement[g].last = i;
            plan->placement[g].bytes = mg_aligned(mg_weights_master_bytes(node->weights, node->weight));
        }
    }
    for (int i = graph->forward_ops; i < graph->num_ops; i++)
        for (int slot = 0; slot < MG_MAX_INPUTS; slot++) {
            const mg_value in = graph->ops[i].in[slot], out = graph->ops[i].out;
            if (in != MG_NONE && is_transient(&graph->nodes[in]) && is_transient(&graph->nodes[out]))
                plan->placement[out].storage = plan->placement[in].storage;
        }
}

/* An input that is read in another slot of the same operation must not be overwritten. */
static bool read_once(const struct mg_graph_op *op, int slot) {
    for (int other = 0; other < MG_MAX_INPUTS; other++)
        if (other != slot && op->in[other] == op->in[slot])
            return false;
    return true;
}

/* Input `slot` of operation i is not needed afterwards, so that its memory may go to the output. */
static bool dies_here(const struct mg_plan *plan, int i, int slot) {
    const struct mg_graph_op *op = &plan->graph.ops[i];
    const mg_value in = op->in[slot];
    return in != MG_NONE && is_placed(&plan->graph.nodes[in]) && read_once(op, slot) && plan->placement[in].last == i;
}

/* The output takes the memory of an input of its own size. */
static bool take_over(struct mg_plan *plan, int i, int slot) {
    const struct mg_graph *graph = &plan->graph;
    const struct mg_graph_op *op = &graph->ops[i];
    if (!(mg_op_info_of(op->shape.kind)->alias >> slot & 1) || !dies_here(plan, i, slot) ||
        !mg_tensor_same_kind(&graph->nodes[op->in[slot]].tensor, &graph->nodes[op->out].tensor))
        return false;
    struct mg_placement *in = &plan->placement[op->in[slot]], *out = &plan->placement[op->out];
    out->storage = in->storage;
    out->shift = in->shift;
    plan->placement[in->storage].last = out->last;
    return true;
}

/* The output begins a little before its first input and overlaps it: see mg_backend.trailing_gap. */
static void follow(struct mg_plan *plan, int i) {
    const struct mg_graph_op *op = &plan->graph.ops[i];
    const struct mg_backend *backend = plan->context->backend;
    if (!backend->trailing_gap || !dies_here(plan, i, 0))
        return;
    const size_t gap = backend->trailing_gap(plan->context, &op->shape);
    if (!gap)
        return;
    const mg_value storage = plan->placement[op->in[0]].storage;
    const size_t shift = plan->placement[op->in[0]].shift, added = gap > shift ? gap - shift : 0;
    struct mg_placement *memory = &plan->placement[storage], *out = &plan->placement[op->out];
    for (mg_value v = 0; v < plan->graph.num_nodes; v++)
        if (plan->placement[v].storage == storage)
            plan->placement[v].shift += added;
    out->storage = storage;
    out->shift = shift + added - gap;
    memory->bytes += added; /* the output is not longer than the input and begins before it */
    memory->last = out->last;
}

static void take_over_inputs(struct mg_plan *plan) {
    const struct mg_graph *graph = &plan->graph;
    for (int i = 0; i < graph->num_ops; i++) {
        if (graph->nodes[graph->ops[i].out].constant)
            continue;
        int slot = 0;
        while (slot < MG_MAX_INPUTS && !take_over(plan, i, slot))
            slot++;
        if (slot == MG_MAX_INPUTS)
            follow(plan, i);
    }
}

/* Only tensors with memory of their own are placed; their lifetime already spans that of their heirs. */
struct order {
    const struct mg_plan *plan;
    mg_value value;
};

static int larger_first(const void *a, const void *b) {
    const struct order *left = a, *right = b;
    size_t l = left->plan->placement[left->value].bytes, r = right->plan->placement[right->value].bytes;
    if (l != r)
        return l < r ? 1 : -1;
    return (left->value > right->value) - (left->value < right->value);
}

static bool overlap_in_time(const struct mg_placement *a, const struct mg_placement *b) {
    return a->first <= b->last && b->first <= a->last;
}

/* Lowest offset from the graph's floor on where `item` fits among the `count` tensors already placed (kept sorted by offset). */
static size_t lowest_fit(const struct mg_plan *plan, const mg_value *placed, int count,
                         const struct mg_placement *item) {
    size_t offset = plan->graph.floor;
    for (int i = 0; i < count; i++) {
        const struct mg_placement *other = &plan->placement[placed[i]];
        if (!overlap_in_time(item, other))
            continue;
        if (offset + item->bytes <= other->offset)
            break;
        if (other->offset + other->bytes > offset)
            offset = other->offset + other->bytes;
    }
    return offset;
}

static void insert_by_offset(const struct mg_plan *plan, mg_value *placed, int count, mg_value value) {
    int at = count;
    while (at > 0 && plan->placement[placed[at - 1]].offset > plan->placement[value].offset) {
        placed[at] = placed[at - 1];
        at--;
    }
    placed[at] = value;
}

static void find_live_bytes(struct mg_plan *plan) {
    const struct mg_graph *graph = &plan->graph;
    for (int i = -1; i <= graph->num_ops; i++) {
        size_t live = 0;
        for (mg_value v = 0; v < graph->num_nodes; v++)
            if (owns_memory(plan, v) && plan->placement[v].first <= i && plan->placement[v].last >= i)
                live += plan->placement[v].bytes;
        if (live > plan->live_bytes)
            plan->live_bytes = live;
    }
}

mg_status mg_plan_place(struct mg_plan *plan, struct mg_err *err) {
    const struct mg_graph *graph = &plan->graph;
    struct order *order = NULL;
    mg_value *placed = NULL;
    mg_status status;
    find_lifetimes(plan);
    find_lifetimes_of_gradients(plan);
    take_over_inputs(plan);
    plan->activation_bytes = graph->floor;
    MG_TRY_GOTO(mg_alloc((void **)&order, (size_t)graph->num_nodes * sizeof *order, "the memory planner", err));
    MG_TRY_GOTO(mg_alloc((void **)&placed, (size_t)graph->num_nodes * sizeof *placed, "the memory planner", err));
    int count = 0;
    for (mg_value v = 0; v < graph->num_nodes; v++)
        if (owns_memory(plan, v))
            order[count++] = (struct order){.plan = plan, .value = v};
    qsort(order, (size_t)count, sizeof *order, larger_first);
    for (int i = 0; i < count; i++) {
        struct mg_placement *item = &plan->placement[order[i].value];
        item->offset = lowest_fit(plan, placed, i, item);
        insert_by_offset(plan, placed, i, order[i].value);
        size_t end;
        if (!mg_size_add(&end, item->offset, item->bytes)) {
            status = mg_fail(err, MG_ERR_MEMORY, "the activations need more memory than can be addressed");
            goto done;
        }
        if (end > plan->activation_bytes)
            plan->activation_bytes = end;
    }
    find_live_bytes(plan);
done:
    mg_free(order);
    mg_free(placed);
    return status;
}
