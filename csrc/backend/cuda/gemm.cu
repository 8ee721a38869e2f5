/* gemm.cu: matrix products by cuBLASLt, with bias and residual in its epilogue; by the kernel of ops/conv2d.cu where
 * cuBLASLt has none for a shape.
 *
 * cuBLASLt's matrices are column-major: the row-major y = x weight^T is its y^T = weight x^T, with the weight transposed.
 * Its GELU is the approximation by tanh, so activations are applied by a kernel of our own; layers that have one see few
 * rows. */
#include "cuda.cuh"

template <class T> __global__ void bias_kernel(T *out, const float *bias, int64_t count) {
    for (MG_CUDA_GRID_STRIDE(i, count))
        out[i] = mg_element<T>(bias[i]);
}

template <class T>
__global__ void activate_kernel(T *y, const T *x, const T *residual, int64_t count, mg_activation activation) {
    for (MG_CUDA_GRID_STRIDE(i, count)) {
        const float value = mg_activate(mg_float(x[i]), activation);
        y[i] = mg_element<T>(residual ? value + mg_float(residual[i]) : value);
    }
}

/* An activation comes between product and residual: then y may not be the residual, whose memory the product would
 * take. */
static bool needs_scratch(mg_activation activation, bool residual) { return activation != MG_ACT_NONE && residual; }

static size_t bias_bytes(int64_t columns, mg_dtype result) {
    return result == MG_F32 ? 0 : mg_aligned((size_t)columns * mg_dtype_bytes(result));
}

size_t mg_cuda_gemm_bytes(const struct mg_op_shape *op) {
    const mg_activation activation = op->kind == MG_OP_LINEAR ? op->params.linear.activation : MG_ACT_NONE;
    const size_t bytes = bias_bytes(op->out.dim[3], op->out.dtype);
    return needs_scratch(activation, op->in[3].ndim) ? bytes + mg_tensor_bytes(&op->out) : bytes;
}

static cudaDataType_t type_of(mg_dtype dtype) {
    return dtype == MG_BF16 ? CUDA_R_16BF : dtype == MG_F16 ? CUDA_R_16F : CUDA_R_32F;
}

/* The arguments of one cublasLtMatmul. */
struct matmul {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t weight, x, y;
    const void *bias, *residual;
    void *out;
};

#define BLAS_TRY(call)                                                                                                 \
    do {                                                                                                               \
        const cublasStatus_t blas_try_status_ = (call);                                                                \
        if (blas_try_status_ != CUBLAS_STATUS_SUCCESS)                                                                 \
            return blas_try_status_;                                                                                   \
    } while (0)

static cublasStatus_t describe(struct matmul *r, const struct mg_cuda_state *state, const struct mg_cuda_gemm *m,
                               int64_t stride) {
    const cublasComputeType_t compute =
        state->tf32 && m->dtype == MG_F32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t type = type_of(m->dtype);
    BLAS_TRY(cublasLtMatmulDescInit(&r->operation, compute, CUDA_R_32F));
    BLAS_TRY(
        cublasLtMatmulDescSetAttribute(&r->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
    if (r->bias) {
        BLAS_TRY(
            cublasLtMatmulDescSetAttribute(&r->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
        BLAS_TRY(
            cublasLtMatmulDescSetAttribute(&r->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &r->bias, sizeof r->bias));
    }
    BLAS_TRY(cublasLtMatrixLayoutInit(&r->weight, type, (uint64_t)m->depth, (uint64_t)m->columns, stride));
    BLAS_TRY(cublasLtMatrixLayoutInit(&r->x, type, (uint64_t)m->depth, (uint64_t)m->rows, m->depth));
    return cublasLtMatrixLayoutInit(&r->y, type_of(m->result), (uint64_t)m->columns, (uint64_t)m->rows, m->columns);
}

/* Sums that are split are added up in float32: the other ways would round parts of them to the type of y. */
static cublasStatus_t choose_algorithm(struct mg_cuda_gemm_plan *plan, const struct mg_cuda_state *state,
                                       const struct matmul *r) {
    const size_t workspace = MG_CUDA_BLAS_WORKSPACE;
    const uint32_t alignment = MG_ALIGNMENT, reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    BLAS_TRY(cublasLtMatmulPreferenceInit(&preference));
    BLAS_TRY(cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                  sizeof workspace));
    BLAS_TRY(cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction,
                                                  sizeof reduction));
    for (const auto attribute : aligned)
        BLAS_TRY(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &alignment, sizeof alignment));
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        state->blas, (cublasLtMatmulDesc_t)&r->operation, (cublasLtMatrixLayout_t)&r->weight,
        (cublasLtMatrixLayout_t)&r->x, (cublasLtMatrixLayout_t)&r->y, (cublasLtMatrixLayout_t)&r->y, &preference, 1,
        &result, &found);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED)
        BLAS_TRY(status);
    plan->own_kernel = status == CUBLAS_STATUS_NOT_SUPPORTED || !found || result.state == CUBLAS_STATUS_NOT_SUPPORTED;
    if (!plan->own_kernel) {
        BLAS_TRY(result.state);
        plan->algorithm = result.algo;
    }
    plan->known = true;
    return CUBLAS_STATUS_SUCCESS;
}

/* The entry of this product in the hash table: its own, an empty one, or, after MAX_PROBES taken ones, the first. */
static struct mg_cuda_gemm_plan *find_plan(struct mg_cuda_state *state, const struct mg_cuda_gemm *m, int64_t stride,
                                           bool residual) {
    constexpr int MAX_PROBES = 16;
    const uint64_t hash = ((uint64_t)m->rows * 31 + (uint64_t)m->columns) * 31 + (uint64_t)m->depth;
    struct mg_cuda_gemm_plan *entry = NULL;
    for (int i = 0; i < MAX_PROBES; i++) {
        struct mg_cuda_gemm_plan *p = &state->gemm_plans[(hash + (uint64_t)i) % MG_CUDA_GEMM_PLANS];
        if (p->known && p->rows == m->rows && p->columns == m->columns && p->depth == m->depth && p->stride == stride &&
            p->dtype == m->dtype && p->result == m->result && p->bias == (m->bias != NULL) && p->residual == residual)
            return p;
        if (!p->known) {
            entry = p;
            break;
        }
    }
    entry = entry ? entry : &state->gemm_plans[hash % MG_CUDA_GEMM_PLANS];
    memset(entry, 0, sizeof *entry);
    entry->rows = m->rows;
    entry->columns = m->columns;
    entry->depth = m->depth;
    entry->stride = stride;
    entry->dtype = m->dtype;
    entry->result = m->result;
    entry->bias = m->bias != NULL;
    entry->residual = residual;
    return entry;
}

static cublasStatus_t run_matmul(struct mg_cuda_state *state, const struct mg_cuda_gemm *m, struct matmul *r) {
    const int64_t stride = mg_cuda_padded(m->depth, m->dtype);
    const float one = 1.0f, beta = r->residual ? 1.0f : 0.0f;
    struct mg_cuda_gemm_plan *plan = find_plan(state, m, stride, r->residual != NULL);
    BLAS_TRY(describe(r, state, m, stride));
    if (!plan->known)
        BLAS_TRY(choose_algorithm(plan, state, r));
    if (plan->own_kernel) {
        struct mg_cuda_gemm own = *m;
        own.y = r->out;
        own.residual = r->residual;
        mg_cuda_gemm_own_kernel(state, &own);
        return CUBLAS_STATUS_SUCCESS;
    }
    return cublasLtMatmul(state->blas, &r->operation, &one, m->weight, &r->weight, m->x, &r->x, &beta,
                          r->residual ? r->residual : r->out, &r->y, r->out, &r->y, &plan->algorithm,
                          state->blas_workspace, MG_CUDA_BLAS_WORKSPACE, state->stream);
}

void mg_cuda_run_gemm(struct mg_cuda_state *state, const struct mg_cuda_gemm *m) {
    const int64_t count = m->rows * m->columns;
    const bool in_scratch = needs_scratch(m->activation, m->residual != NULL);
    struct matmul r = {};
    r.bias = m->bias;
    r.residual = m->activation == MG_ACT_NONE ? m->residual : NULL;
    r.out = in_scratch ? (char *)m->scratch + bias_bytes(m->columns, m->result) : m->y;
    mg_cuda_dispatch_type(m->result, [&](auto zero) {
        using T = decltype(zero);
        if (m->bias && m->result != MG_F32) { /* cuBLASLt takes it in the type of y */
            r.bias = m->scratch;
            mg_cuda_launch(state, mg_cuda_grid(m->columns), MG_CUDA_THREADS, bias_kernel<T>, (T *)m->scratch, m->bias,
                           m->columns);
        }
        mg_cuda_note_blas(state, run_matmul(state, m, &r), "matrix product");
        if (m->activation != MG_ACT_NONE)
            mg_cuda_launch(state, mg_cuda_grid(count), MG_CUDA_THREADS, activate_kernel<T>, (T *)m->y, (const T *)r.out,
                           in_scratch ? (const T *)m->residual : (const T *)NULL, count, m->activation);
    });
}
