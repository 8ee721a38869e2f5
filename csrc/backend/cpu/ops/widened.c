/* widened.c: see widened.h: activations are widened on the way in, the result is rounded on the way out. For gradients that are a
 * pass over memory or small: a hundredth of a training step.
 * Workspace: the widened inputs, the result, what the driver needs. */
#include "widened.h"

static bool is_half(const struct mg_tensor *tensor) { return tensor->ndim && tensor->dtype == MG_BF16; }

bool mg_is_widened(const struct mg_cpu_driver *driver, const struct mg_op_shape *op) {
    bool any = is_half(&op->out);
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
        any |= is_half(&op->in[slot]);
    return driver->widened && any;
}

static struct mg_tensor widened(const struct mg_tensor *tensor) {
    struct mg_tensor floats = *tensor;
    floats.dtype = MG_F32;
    return floats;
}

static struct mg_op_shape widened_op(const struct mg_op_shape *op) {
    struct mg_op_shape floats = *op;
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
        floats.in[slot] = widened(&op->in[slot]);
    floats.out = widened(&op->out);
    return floats;
}

/* Of the float32 form of a tensor; 0 if it is float32 as it is. */
static size_t bytes_of(const struct mg_tensor *tensor) {
    return is_half(tensor) ? mg_aligned((size_t)mg_tensor_count(tensor) * sizeof(float)) : 0;
}

size_t mg_widened_bytes(const struct mg_context *context, const struct mg_cpu_driver *driver,
                        const struct mg_op_shape *op) {
    const struct mg_op_shape floats = widened_op(op);
    size_t bytes = driver->workspace_bytes ? driver->workspace_bytes(context, &floats) : 0;
    if (bytes == SIZE_MAX || !mg_size_add(&bytes, bytes, bytes_of(&op->out)))
        return SIZE_MAX;
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
        if (!mg_size_add(&bytes, bytes, bytes_of(&op->in[slot])))
            return SIZE_MAX;
    return bytes;
}

static void cast(const struct mg_context *context, void *out, const struct mg_tensor *to, const void *x,
                 const struct mg_tensor *from) {
    const struct mg_op_shape op = {.kind = MG_OP_CAST, .in = {*from}, .out = *to};
    mg_cpu_cast.run(context, &(struct mg_op_call){.op = &op, .in = {x}, .out = out});
}

void mg_widened_run(const struct mg_context *context, const struct mg_cpu_driver *driver,
                    const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op, floats = widened_op(op);
    struct mg_op_call wide = {.op = &floats, .out = call->out};
    char *workspace = call->workspace;
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++) {
        const size_t bytes = bytes_of(&op->in[slot]);
        wide.in[slot] = bytes ? workspace : call->in[slot];
        if (bytes)
            cast(context, workspace, &floats.in[slot], call->in[slot], &op->in[slot]);
        workspace += bytes;
    }
    if (is_half(&op->out))
        wide.out = workspace;
    wide.workspace = workspace + bytes_of(&op->out);
    driver->run(context, &wide);
    if (is_half(&op->out))
        cast(context, call->out, &op->out, wide.out, &floats.out);
}
