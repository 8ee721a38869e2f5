/* builders.h: what the builders share with each other and with graph.c. */
#ifndef MG_BUILDERS_H
#define MG_BUILDERS_H
#include <stdio.h>

#include "graph.h"

/* Records one checked operation; in[] has MG_MAX_INPUTS entries. Returns its output, or MG_NONE. */
mg_value mg_graph_append(struct mg_graph *graph, const struct mg_op_shape *shape, const mg_value *in);
/* Fills in kind, inputs and an output like the first input; false (with the error recorded) if a required one is missing. */
bool mg_op_begin(struct mg_graph *graph, struct mg_op_shape *op, mg_op_kind kind, const mg_value *in);
/* Records the error `why` with the shapes of all inputs; returns MG_NONE. */
mg_value mg_op_refuse(struct mg_graph *graph, const struct mg_op_shape *op, const char *why);

#define MG_OP_INPUTS(...)                                                                                              \
    const mg_value in[MG_MAX_INPUTS] = {__VA_ARGS__};                                                                  \
    struct mg_op_shape op
#endif
