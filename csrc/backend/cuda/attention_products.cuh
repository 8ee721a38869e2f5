/* attention_products.cuh: attention of one wide head by matrix products: see attention_products.cu. */
#ifndef MG_CUDA_ATTENTION_PRODUCTS_CUH
#define MG_CUDA_ATTENTION_PRODUCTS_CUH
#include "cuda.cuh"

/* Whether an attention is computed so: one head, too wide for a kernel that keeps it in registers, of enough keys. */
bool mg_cuda_attention_is_products(const struct mg_op_shape *op);
size_t mg_cuda_attention_products_bytes(const struct mg_op_shape *op);
void mg_cuda_attention_products(struct mg_cuda_state *state, const struct mg_op_call *call);
#endif
