/* builders.h: what the builders share with graph.c. */
#ifndef MG_BUILDERS_H
#define MG_BUILDERS_H
#include <stdio.h>

#include "graph.h"

/* Records one checked operation; in[] has MG_MAX_INPUTS entries. Returns its output, or MG_NONE. */
mg_value mg_graph_append(struct mg_graph *graph, const struct mg_op_shape *shape, const mg_value *in);
#endif
