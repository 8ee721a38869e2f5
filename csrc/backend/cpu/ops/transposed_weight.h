/* transposed_weight.h: a weight in panels, transposed for the gradient of an operation's input: filters and channels change
 * places, and the window is flipped in both directions. Private to backend/cpu/ops. */
#ifndef MG_TRANSPOSED_WEIGHT_H
#define MG_TRANSPOSED_WEIGHT_H
#include "../cpu.h"

/* Bytes of the weight (K, C, ...) as (C, K, ...) in panels; SIZE_MAX if they cannot be addressed. */
size_t mg_transposed_weight_bytes(const struct mg_context *context, const struct mg_tensor *weight);
/* out: panels of (C, K, R, S), of the type of the weight, with element [c][k][r][s] = weight[k][c][R-1-r][S-1-s]. */
void mg_transpose_weight(const struct mg_context *context, void *out, const void *weight,
                         const struct mg_tensor *shape);
/* (C, K, R, S), or (C, K). */
struct mg_tensor mg_transposed_shape(const struct mg_tensor *weight);
#endif
