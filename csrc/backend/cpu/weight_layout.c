/* weight_layout.c: how the drivers read the weight of an operation. */
#include "cpu.h"

/* What multiplies many rows is read in the panels of the kernel; the rest is read once, where it lies. Four bytes of a column
 * lie side by side, as the kernels multiply them in one step. */
struct mg_weight_layout mg_cpu_weight_layout(const struct mg_context *context, const struct mg_op_shape *op, int slot) {
    const bool is_conv2d = op->kind == MG_OP_CONV2D || op->kind == MG_OP_CONV2D_INPUT_GRADIENT;
    const bool is_linear = op->kind == MG_OP_LINEAR || op->kind == MG_OP_LINEAR_INPUT_GRADIENT;
    if (slot != 1 || !(is_conv2d || (is_linear && !op->params.linear.few_rows)))
        return (struct mg_weight_layout){0};
    const mg_dtype dtype = op->in[1].dtype;
    return (struct mg_weight_layout){
        .panel = mg_cpu_kernels_of(context)->panel, .group = 4 / (int)mg_dtype_bytes(dtype), .dtype = dtype};
}
