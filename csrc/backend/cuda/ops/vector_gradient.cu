/* vector_gradient.cu: the gradient of a vector of channels that was added to every pixel: a reduction (reduce.cu). */
#include "../gradient.cuh"

const struct mg_cuda_driver mg_cuda_vector_gradient = {
    .run = mg_cuda_reduction_run,
    .workspace_bytes = mg_cuda_reduction_bytes,
};
