/* linear_gradient.cu: gradients of linear layers: those of 1x1 convolutions (conv2d_gradient.cu). */
#include "../gradient.cuh"

const struct mg_cuda_driver mg_cuda_linear_input_gradient = {
    .run = mg_cuda_dgrad,
    .workspace_bytes = mg_cuda_dgrad_bytes,
};
const struct mg_cuda_driver mg_cuda_linear_weight_gradient = {
    .run = mg_cuda_wgrad,
    .workspace_bytes = mg_cuda_wgrad_bytes,
};
