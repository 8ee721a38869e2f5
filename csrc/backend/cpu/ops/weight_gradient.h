/* weight_gradient.h: gradients of the weights of convolutions, and of linear layers with many rows, whose weights lie in panels.
 * Private to backend/cpu/ops. */
#ifndef MG_CPU_WEIGHT_GRADIENT_H
#define MG_CPU_WEIGHT_GRADIENT_H
#include "../cpu.h"

/* Scratch bytes of a call. */
size_t mg_weight_gradient_bytes(const struct mg_context *context, const struct mg_op_shape *op);
void mg_weight_gradient_run(const struct mg_context *context, const struct mg_op_call *call);
#endif
