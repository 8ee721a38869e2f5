/* conv2d.c: hands a convolution to the algorithm for its shape: winograd.c, or direct.c. */
#include "conv2d.h"

static size_t trailing_gap(const struct mg_context *context, const struct mg_op_shape *op) {
    const struct mg_conv_sizes z = mg_conv_sizes_of(context, op);
    const bool same_rows = z.virtual_h == z.in_h && z.virtual_w == z.in_w && z.out_h == z.in_h && z.out_w == z.in_w;
    if (!mg_conv_uses_winograd(&z) || !same_rows || z.n != 1 || z.k > z.c)
        return 0;
    return mg_winograd_trailing_gap(context, &z);
}

static size_t workspace_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    struct mg_conv_sizes z = mg_conv_sizes_of(context, op);
    return mg_conv_uses_winograd(&z) ? mg_winograd_workspace(context, &z) : mg_direct_workspace(context, &z);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    struct mg_conv_sizes z = mg_conv_sizes_of(context, call->op);
    if (mg_conv_uses_winograd(&z))
        mg_winograd_run(context, call, &z);
    else
        mg_direct_run(context, call, &z);
}

const struct mg_cpu_driver mg_cpu_conv2d = {
    .run = run, .workspace_bytes = workspace_bytes, .trailing_gap = trailing_gap};
