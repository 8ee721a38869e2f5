/* tensor_core.cuh of the emulation: the products of csrc/backend/cuda/ptx/tensor_core.cuh by their definition. */
#ifndef MG_EMU_TENSOR_CORE_CUH
#define MG_EMU_TENSOR_CORE_CUH
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

static inline float mg_emu_float(uint16_t bits, __half) { return __half2float({bits}); }
static inline float mg_emu_float(uint16_t bits, __nv_bfloat16) { return __bfloat162float({bits}); }
static inline float mg_emu_float(uint32_t bits, mg_tf32) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return mg_emu_tf32(value);
}

/* What a lane holds of the three matrices. */
struct mg_emu_mma_operands {
    float *sum;
    const uint32_t *a, *b;
};

/* Lane l holds elements l%4*2 and the next, and those eight on, of rows l/4 and l/4+8 of a and of column l/4 of b. */
template <class T> void mg_emu_mma_warp(const struct mg_emu_mma_operands *const lanes[32], T type) {
    float a[16][16], b[8][16];
    for (int lane = 0; lane < 32; lane++)
        for (int word = 0; word < 4; word++)
            for (int half = 0; half < 2; half++) {
                const int k = lane % 4 * 2 + word / 2 * 8 + half, shift = half * 16;
                a[lane / 4 + word % 2 * 8][k] = mg_emu_float((uint16_t)(lanes[lane]->a[word] >> shift), type);
                if (word % 2 == 0)
                    b[lane / 4][k] = mg_emu_float((uint16_t)(lanes[lane]->b[word / 2] >> shift), type);
            }
    for (int lane = 0; lane < 32; lane++)
        for (int e = 0; e < 4; e++) {
            const float *row = a[lane / 4 + e / 2 * 8], *column = b[lane % 4 * 2 + e % 2];
            float total = 0.0f;
            for (int k = 0; k < 16; k++)
                total += row[k] * column[k];
            lanes[lane]->sum[e] += total;
        }
}

/* Lane l holds elements l%4 and the fourth on, of rows l/4 and l/4+8 of a and of column l/4 of b. */
static inline void mg_emu_mma_warp(const struct mg_emu_mma_operands *const lanes[32], mg_tf32 type) {
    float a[16][8], b[8][8];
    for (int lane = 0; lane < 32; lane++) {
        for (int word = 0; word < 4; word++)
            a[lane / 4 + word % 2 * 8][lane % 4 + word / 2 * 4] = mg_emu_float(lanes[lane]->a[word], type);
        for (int word = 0; word < 2; word++)
            b[lane / 4][lane % 4 + word * 4] = mg_emu_float(lanes[lane]->b[word], type);
    }
    for (int lane = 0; lane < 32; lane++)
        for (int e = 0; e < 4; e++)
            for (int k = 0; k < 8; k++)
                lanes[lane]->sum[e] += a[lane / 4 + e / 2 * 8][k] * b[lane % 4 * 2 + e % 2][k];
}

/* The lane that comes last computes for all: the others wait in here, so that what they hold is in place. */
template <class T> void mg_mma(float sum[4], const uint32_t a[4], const uint32_t b[2], T type) {
    const struct mg_emu_mma_operands own = {sum, a, b};
    const struct mg_emu_mma_operands *lanes[32];
    bool last;
    const uint64_t *all = mg_emu_exchange(0xffffffffu, (uint64_t)(uintptr_t)&own, __LINE__, &last);
    if (!last)
        return;
    for (int lane = 0; lane < 32; lane++)
        lanes[lane] = (const struct mg_emu_mma_operands *)(uintptr_t)all[lane];
    mg_emu_mma_warp(lanes, type);
}

/* ---- ldmatrix ---- */
/* Row r of matrix i is where lane 8i + r points to. */
static inline const uint16_t *mg_emu_matrix_row(const uint64_t *rows, int matrix, int row) {
    return (const uint16_t *)(uintptr_t)rows[matrix * 8 + row];
}

static inline void mg_load_matrices(uint32_t out[4], const uint4 *row) {
    const int lane = threadIdx.x % 32;
    const uint64_t *rows = mg_emu_exchange(0xffffffffu, (uint64_t)(uintptr_t)row, __LINE__);
    for (int i = 0; i < 4; i++)
        memcpy(&out[i], mg_emu_matrix_row(rows, i, lane / 4) + lane % 4 * 2, sizeof out[i]);
}

static inline void mg_load_matrices_transposed(uint32_t out[4], const uint4 *row) {
    const int lane = threadIdx.x % 32;
    const uint64_t *rows = mg_emu_exchange(0xffffffffu, (uint64_t)(uintptr_t)row, __LINE__);
    for (int i = 0; i < 4; i++)
        out[i] = mg_emu_matrix_row(rows, i, lane % 4 * 2)[lane / 4] |
                 (uint32_t)mg_emu_matrix_row(rows, i, lane % 4 * 2 + 1)[lane / 4] << 16;
}

/* ---- cp.async: what is copied is there when it has been waited for, and NaN until then ---- */
static inline void mg_copy_async(uint4 *to, const void *from, bool valid) {
    mg_emu_copy_async(to, valid ? from : nullptr, sizeof *to);
}
static inline void mg_commit_copies() { mg_emu_commit_copies(); }
template <int PENDING> void mg_wait_copies() { mg_emu_wait_copies(PENDING); }
#endif
