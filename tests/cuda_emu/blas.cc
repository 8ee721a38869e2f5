/* blas.cc: the matrix product of cublasLt.h, in float32 sums by plain loops. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdlib>
#include <vector>

#include "emulator.h"

enum { LANES = 16 };

const char *cublasLtGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_ALLOC_FAILED ? "CUBLAS_STATUS_ALLOC_FAILED" : "CUBLAS_STATUS_NOT_SUPPORTED";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out) {
    if (!mg_emu_acquire())
        return CUBLAS_STATUS_ALLOC_FAILED;
    *out = (cublasLtHandle_t)malloc(1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    free(handle);
    mg_emu_give_back();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t out, cublasComputeType_t compute, cudaDataType_t scale) {
    *out = {compute, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr};
    return !mg_emu_call_fails() && scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute, const void *value,
                                              size_t bytes) {
    void *const member = attribute == CUBLASLT_MATMUL_DESC_TRANSA     ? (void *)&description->transposed
                         : attribute == CUBLASLT_MATMUL_DESC_EPILOGUE ? (void *)&description->epilogue
                                                                      : (void *)&description->bias;
    if (mg_emu_call_fails() ||
        bytes != (attribute == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? sizeof(void *) : sizeof(cublasOperation_t)))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(member, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t out, cudaDataType_t type, uint64_t rows,
                                        uint64_t columns, int64_t stride) {
    *out = {type, rows, columns, stride};
    return !mg_emu_call_fails() && stride >= (int64_t)rows ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t out) {
    *out = {0, 7, {256, 256, 256, 256}};
    return mg_emu_call_fails() ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes) {
    void *const member = attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? (void *)&preference->workspace
                         : attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK
                             ? (void *)&preference->reduction
                             : (void *)&preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES];
    if (mg_emu_call_fails() ||
        bytes != (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? sizeof(size_t) : sizeof(uint32_t)))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(member, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

/* a^T b, whose columns have the rows of a and b in common. */
static bool fits(const cublasLtMatmulDescOpaque_t *d, const cublasLtMatrixLayoutOpaque_t *a,
                 const cublasLtMatrixLayoutOpaque_t *b, const cublasLtMatrixLayoutOpaque_t *c) {
    return d->transposed == CUBLAS_OP_T && a->rows == b->rows && a->columns == c->rows && b->columns == c->columns &&
           a->type == b->type && (a->type == c->type || c->type == CUDA_R_32F) &&
           (d->epilogue == CUBLASLT_EPILOGUE_BIAS) == (d->bias != nullptr);
}

/* The emulation has no kernel for halves whose rows do not begin at whole words, so that both ways are gone. */
static bool has_kernel(const cublasLtMatrixLayoutOpaque_t *m) { return m->type == CUDA_R_32F || m->stride % 2 == 0; }

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found) {
    *found = 0;
    for (uint32_t alignment : preference->alignment)
        if (alignment > 64) /* all that the engine's memory has */
            return CUBLAS_STATUS_NOT_SUPPORTED;
    if (mg_emu_call_fails() || !handle || wanted < 1 || c != d || !fits(description, a, b, c) ||
        preference->reduction != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!has_kernel(a) || !has_kernel(b) || !has_kernel(c))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *found = 1;
    results[0].state = CUBLAS_STATUS_SUCCESS;
    results[0].algo = {a->columns, b->columns, a->rows, description->bias != nullptr};
    return CUBLAS_STATUS_SUCCESS;
}

static float element(const void *data, int64_t i, cudaDataType_t type) {
    return type == CUDA_R_32F    ? ((const float *)data)[i]
           : type == CUDA_R_16BF ? __bfloat162float(((const __nv_bfloat16 *)data)[i])
                                 : __half2float(((const __half *)data)[i]);
}

static void store(void *data, int64_t i, cudaDataType_t type, float value) {
    if (type == CUDA_R_32F)
        ((float *)data)[i] = value;
    else if (type == CUDA_R_16BF)
        ((__nv_bfloat16 *)data)[i] = __float2bfloat16(value);
    else
        ((__half *)data)[i] = __float2half(value);
}

/* A matrix as float32, columns filled up with zeros to whole vectors. */
static std::vector<float> widen(const void *data, const cublasLtMatrixLayoutOpaque_t *m, size_t depth) {
    std::vector<float> out(m->columns * depth, 0.0f);
    for (uint64_t column = 0; column < m->columns; column++)
        for (uint64_t row = 0; row < m->rows; row++)
            out[column * depth + row] = element(data, (int64_t)(column * m->stride + row), m->type);
    return out;
}

static float dot(const float *a, const float *b, size_t depth) {
    float lanes[LANES] = {0}, sum = 0.0f;
    for (size_t k = 0; k < depth; k += LANES)
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += a[k + lane] * b[k + lane];
    for (float lane : lanes)
        sum += lane;
    return sum;
}

/* One product, as it was asked for. */
struct product {
    const void *a, *b, *c, *bias;
    void *d;
    cublasLtMatrixLayoutOpaque_t a_layout, b_layout, d_layout;
    float beta;
    bool tf32;
};

static cudaError_t compute(const struct product &p) {
    if (!mg_emu_is_device(p.a) || !mg_emu_is_device(p.b) || !mg_emu_is_device(p.d) ||
        (p.bias && !mg_emu_is_device(p.bias)) || (p.beta != 0.0f && !mg_emu_is_device(p.c)))
        return cudaErrorInvalidValue;
    const size_t depth = (p.a_layout.rows + LANES - 1) / LANES * LANES;
    std::vector<float> left = widen(p.a, &p.a_layout, depth), right = widen(p.b, &p.b_layout, depth);
    if (p.tf32)
        for (auto *factor : {&left, &right})
            for (float &x : *factor)
                x = mg_emu_tf32(x);
    for (uint64_t column = 0; column < p.d_layout.columns; column++)
        for (uint64_t row = 0; row < p.d_layout.rows; row++) {
            const int64_t at = (int64_t)(column * p.d_layout.stride + row);
            float sum = dot(&left[row * depth], &right[column * depth], depth);
            if (p.beta != 0.0f)
                sum += p.beta * element(p.c, at, p.d_layout.type);
            if (p.bias)
                sum += element(p.bias, (int64_t)row, p.d_layout.type);
            store(p.d, at, p.d_layout.type, sum);
        }
    return cudaSuccess;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
    const cublasLtMatmulAlgo_t chosen = *algorithm;
    const bool is_chosen = chosen.rows == a_layout->columns && chosen.columns == b_layout->columns &&
                           chosen.depth == a_layout->rows && chosen.bias == (description->bias != nullptr);
    if (!handle || !workspace || !workspace_bytes || *(const float *)alpha != 1.0f || c_layout != d_layout ||
        !is_chosen)
        return CUBLAS_STATUS_INVALID_VALUE;
    const struct product p = {
        a,         b,         c,         description->bias,    d,
        *a_layout, *b_layout, *d_layout, *(const float *)beta, description->compute == CUBLAS_COMPUTE_32F_FAST_TF32};
    const cudaError_t status = mg_emu_submit(stream, [p] { return compute(p); });
    return status == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
