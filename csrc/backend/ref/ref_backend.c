/* ref_backend.c: the function table of the reference backend.
 * Called through backend.h by graph/executor; calls the operations of this folder. */
#include "ref.h"

static void (*const operations[MG_OP_COUNT])(const struct mg_op_call *call) = {
#define MG_OP(ID, name, inputs, required, alias, meaning) [MG_OP_##ID] = mg_ref_##name,
#include "../../graph/ops.def"
#undef MG_OP
};

/* There is one way to run plain loops, so a request for an instruction set is accepted and changes nothing. */
static mg_status ref_open(struct mg_context *context, const char *isa, struct mg_err *err) {
    (void)isa;
    (void)err;
    context->backend_state = NULL;
    context->isa = "scalar";
    return MG_OK;
}

static void ref_close(struct mg_context *context) { context->backend_state = NULL; }

static struct mg_weight_layout ref_weight_layout(const struct mg_context *context, const struct mg_op_shape *op,
                                                 int slot) {
    (void)context;
    (void)op;
    (void)slot;
    return (struct mg_weight_layout){0};
}

static size_t ref_workspace_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    (void)context;
    (void)op;
    return 0;
}

static void ref_run(const struct mg_context *context, const struct mg_op_call *call) {
    (void)context;
    operations[call->op->kind](call);
}

const struct mg_backend mg_backend_ref = {
    .name = "ref",
    .open = ref_open,
    .close = ref_close,
    .weight_layout = ref_weight_layout,
    .workspace_bytes = ref_workspace_bytes,
    .run = ref_run,
};
