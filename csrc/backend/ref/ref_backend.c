/* ref_backend.c: the function table of the reference backend.
 * Calls the operations in ops/. */
#include "ref.h"

static void (*const operations[MG_OP_COUNT])(const struct mg_op_call *call) = {
#define MG_OP(ID, name, inputs, required, alias, meaning) [MG_OP_##ID] = mg_ref_##name,
#include "../../op/ops.def"
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

static size_t float_bytes(const struct mg_tensor *tensor) { return (size_t)mg_tensor_count(tensor) * sizeof(float); }

static bool is_half(mg_dtype dtype) { return dtype == MG_BF16 || dtype == MG_F16; }

static bool is_weight(const struct mg_op_shape *op, int slot) {
    switch (op->kind) {
    case MG_OP_CONV2D:
    case MG_OP_LINEAR:
    case MG_OP_CONV2D_INPUT_GRADIENT:
    case MG_OP_LINEAR_INPUT_GRADIENT:
        return slot == 1;
    default:
        return false;
    }
}

/* Of the operation itself, before the converted inputs. */
static size_t own_bytes(const struct mg_op_shape *op) {
    switch (op->kind) {
    case MG_OP_CONV2D_INPUT_GRADIENT:
        return mg_ref_conv2d_input_gradient_bytes(op);
    case MG_OP_SELF_ATTENTION_GRADIENT:
        return mg_ref_self_attention_gradient_bytes(op);
    default:
        return 0;
    }
}

/* The operations compute on float32: activations of two bytes are converted on the way in and out. Weights are not rounded to the
 * type that an operation allows: the specification is the exact result. */
static bool is_converted(const struct mg_op_shape *op, int slot) {
    return op->in[slot].ndim == 4 && is_half(op->in[slot].dtype) && !is_weight(op, slot);
}

static size_t ref_workspace_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    (void)context;
    size_t bytes = own_bytes(op) + (is_half(op->out.dtype) ? float_bytes(&op->out) : 0);
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
        if (is_converted(op, slot) && !mg_size_add(&bytes, bytes, float_bytes(&op->in[slot])))
            return SIZE_MAX;
    return bytes;
}

static void ref_run(const struct mg_context *context, const struct mg_op_call *call) {
    (void)context;
    struct mg_op_call floats = *call;
    const struct mg_op_shape *op = call->op;
    char *workspace = (char *)call->workspace + own_bytes(op);
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
        if (is_converted(op, slot)) {
            mg_convert_to_f32((float *)workspace, call->in[slot], op->in[slot].dtype,
                              (size_t)mg_tensor_count(&op->in[slot]));
            floats.in[slot] = workspace;
            workspace += float_bytes(&op->in[slot]);
        }
    if (is_half(op->out.dtype))
        floats.out = workspace;
    operations[op->kind](&floats);
    if (is_half(op->out.dtype))
        mg_convert_from_f32(call->out, op->out.dtype, floats.out, (size_t)mg_tensor_count(&op->out));
}

const struct mg_backend mg_backend_ref = {
    .name = "ref",
    .trains = true,
    .fuses_attention_gradient = true,
    .open = ref_open,
    .close = ref_close,
    .weight_layout = ref_weight_layout,
    .workspace_bytes = ref_workspace_bytes,
    .run = ref_run,
    .adam = mg_ref_adam,
    .sum_of_squares = mg_ref_sum_of_squares,
    .average = mg_ref_average,
};
