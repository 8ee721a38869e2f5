/* widened.h: gradients that compute on float32 alone, with bfloat16 activations. Private to backend/cpu. */
#ifndef MG_WIDENED_H
#define MG_WIDENED_H
#include "../cpu.h"

/* Whether the operation needs it: its driver says so, and an activation is bfloat16. */
bool mg_is_widened(const struct mg_cpu_driver *driver, const struct mg_op_shape *op);
size_t mg_widened_bytes(const struct mg_context *context, const struct mg_cpu_driver *driver,
                        const struct mg_op_shape *op);
void mg_widened_run(const struct mg_context *context, const struct mg_cpu_driver *driver,
                    const struct mg_op_call *call);
#endif
