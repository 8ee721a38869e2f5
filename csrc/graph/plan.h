/* plan.h: a planned graph, shared by planner.c and gradient_lifetimes.c (which make it) and executor.c (which runs it). */
#ifndef MG_PLAN_H
#define MG_PLAN_H
#include "graph.h"

struct mg_placement {
    int first, last;  /* operations that make and last use the tensor; -1 and num_ops for inputs and outputs */
    size_t bytes;     /* rounded up to MG_ALIGNMENT */
    size_t offset;    /* in the activation arena */
    mg_value storage; /* the node whose memory this one shares (itself, unless it takes over an input) */
    size_t shift;     /* where this one begins in that memory */
};

struct mg_plan {
    struct mg_graph graph;
    struct mg_context *context;
    struct mg_placement *placement; /* by node; meaningful for inputs and non-constant activations */
    void **folded;                  /* by node: memory of folded constants that are still needed, or NULL */
    /* By operation: the gradient of a weight to which it is the first to add; the first of those that no operation after it adds
     * to, and whose weights none after it reads: the next one, by node. MG_NONE: none. */
    mg_value *begun, *finished, *next_finished;
    size_t activation_bytes, live_bytes, workspace_bytes;
    void *recording; /* of all operations, made by a backend that can; NULL: none yet */
    const void *recorded_activations, *recorded_workspace; /* where the context's memory was in the last run */
};

/* gradient_lifetimes.c, before the planner */
mg_status mg_plan_find_gradients(struct mg_plan *plan, struct mg_err *err);
/* planner.c */
mg_status mg_plan_place(struct mg_plan *plan, struct mg_err *err);
/* executor.c: runs one operation with the given base of the activation arena. */
void mg_plan_run_op(const struct mg_plan *plan, const struct mg_graph_op *op, void *out);
const void *mg_plan_address(const struct mg_plan *plan, mg_value value);
#endif
