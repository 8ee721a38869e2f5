/* op.c: what ops.def says of each operation, as a table. */
#include "op.h"

static const struct mg_op_info op_table[MG_OP_COUNT] = {
#define MG_OP(ID, name, inputs, required, alias, meaning) {#name, inputs, required, alias, meaning, false},
#define MG_GRADIENT_OP(ID, name, inputs, required, alias, meaning) {#name, inputs, required, alias, meaning, true},
#include "ops.def"
#undef MG_OP
};

const struct mg_op_info *mg_op_info_of(mg_op_kind kind) { return &op_table[kind]; }
