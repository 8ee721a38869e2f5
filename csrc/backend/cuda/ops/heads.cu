/* heads.cu: the heads of the tasks: from a decoded image to a map. Float32 only. */
#include "../cuda.cuh"

/* A NaN stays a NaN. */
__device__ static inline float clip_to_unit(float x) { return x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x; }

__global__ void depth_head_kernel(float *out, const float *x, int64_t pixels, int64_t channels) {
    for (MG_CUDA_GRID_STRIDE(pixel, pixels)) {
        float sum = 0.0f;
        for (int64_t c = 0; c < channels; c++)
            sum += x[pixel * channels + c];
        out[pixel] = (clip_to_unit(sum / (float)channels) + 1.0f) * 0.5f;
    }
}

static void depth_head_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t pixels = mg_tensor_count(&call->op->out);
    mg_cuda_launch(state, mg_cuda_grid(pixels), MG_CUDA_THREADS, depth_head_kernel, (float *)call->out,
                   (const float *)call->in[0], pixels, call->op->in[0].dim[3]);
}
const struct mg_cuda_driver mg_cuda_depth_head = {.run = depth_head_run};

__global__ void normals_head_kernel(float *out, const float *x, int64_t pixels, bool full_z) {
    for (MG_CUDA_GRID_STRIDE(pixel, pixels)) {
        const float nx = clip_to_unit(x[pixel * 3]), ny = clip_to_unit(x[pixel * 3 + 1]);
        const float z = clip_to_unit(x[pixel * 3 + 2]), nz = full_z ? z : (z + 1.0f) * 0.5f;
        const float length = sqrtf(nx * nx + ny * ny + nz * nz), divisor = length < 1e-6f ? 1e-6f : length;
        out[pixel * 3] = nx / divisor;
        out[pixel * 3 + 1] = ny / divisor;
        out[pixel * 3 + 2] = nz / divisor;
    }
}

static void normals_head_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t pixels = mg_tensor_count(&call->op->out) / 3;
    mg_cuda_launch(state, mg_cuda_grid(pixels), MG_CUDA_THREADS, normals_head_kernel, (float *)call->out,
                   (const float *)call->in[0], pixels, call->op->params.normals_head.full_z);
}
const struct mg_cuda_driver mg_cuda_normals_head = {.run = normals_head_run};

__global__ void intrinsics_head_kernel(float *out, const float *x, int64_t count) {
    for (MG_CUDA_GRID_STRIDE(i, count))
        out[i] = (clip_to_unit(x[i]) + 1.0f) * 0.5f;
}

static void intrinsics_head_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t count = mg_tensor_count(&call->op->out);
    mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, intrinsics_head_kernel, (float *)call->out,
                   (const float *)call->in[0], count);
}
const struct mg_cuda_driver mg_cuda_intrinsics_head = {.run = intrinsics_head_run};
