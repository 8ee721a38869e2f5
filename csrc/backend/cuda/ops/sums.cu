/* sums.cu: sums over images and pixels: the gradients of what was spread over them. Called by cuda_backend.cu and
 * ops/norm_gradient.cu. */
#include "../gradient.cuh"

enum { LANES = MG_CUDA_WARP, WARPS = MG_CUDA_THREADS / MG_CUDA_WARP };

struct warp_columns {
    double sum[WARPS][LANES];
};

/* Block: 32 columns of one position; each warp has every eighth run. */
__global__ void add_runs_kernel(float *out, struct mg_cuda_runs p) {
    MG_SHARED(struct warp_columns, shared);
    const int64_t blocks = (p.columns + LANES - 1) / LANES, position = blockIdx.x / blocks;
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int64_t column = blockIdx.x % blocks * LANES + lane;
    double sum = 0.0;
    if (column < p.columns)
        for (int64_t run = warp; run < p.count; run += WARPS)
            sum += p.runs[(position * p.count + run) * p.columns + column];
    shared.sum[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= p.columns)
        return;
    const int64_t at = position * p.stride + column;
    for (int w = 1; w < WARPS; w++)
        sum += shared.sum[w][lane];
    out[at] = (float)(p.sum ? sum + p.sum[at] : sum);
}

void mg_cuda_add_runs(struct mg_cuda_state *state, float *out, const struct mg_cuda_runs *p) {
    const dim3 grid((unsigned)(p->positions * mg_cuda_divide_up(p->columns, LANES)));
    mg_cuda_launch(state, grid, MG_CUDA_THREADS, add_runs_kernel, out, *p);
}

/* Each element (n, h, w) of the result is the sum of span_n x span_h x span_w pixels that begin at it, and at column
 * `begin` of the map. */
struct span {
    int64_t positions, h, w; /* of the result */
    int64_t n_span, h_span, w_span, begin;
    int64_t big_h, big_w, channels, runs;
};

template <class T> __global__ void span_runs_kernel(float *runs, const T *x, struct span p) {
    const int64_t pixels = p.n_span * p.h_span * p.w_span;
    for (MG_CUDA_EACH(i, p.positions * p.runs * p.channels)) {
        const int64_t c = i % p.channels, first = i / p.channels % p.runs * MG_CUDA_RUN;
        const int64_t position = i / p.channels / p.runs;
        const int64_t last = first + MG_CUDA_RUN < pixels ? first + MG_CUDA_RUN : pixels;
        const int64_t n = position / (p.h * p.w), h = position / p.w % p.h, w = position % p.w + p.begin;
        float sum = 0.0f;
        for (int64_t j = first; j < last; j++) {
            const int64_t row = (n + j / (p.h_span * p.w_span)) * p.big_h + h + j / p.w_span % p.h_span;
            sum += mg_float(x[(row * p.big_w + w + j % p.w_span) * p.channels + c]);
        }
        runs[i] = sum;
    }
}

/* Both operations: of a map, to which the result is broadcast, or to some columns of a map. */
static struct span span_of(const struct mg_op_shape *op) {
    const int64_t *big = op->in[0].dim, *small = op->out.dim;
    struct span p = {};
    p.big_h = big[1];
    p.big_w = big[2];
    p.channels = big[3];
    if (op->kind == MG_OP_REDUCE) {
        p.positions = small[0] * small[1] * small[2];
        p.h = small[1];
        p.w = small[2];
        p.n_span = big[0] / small[0];
        p.h_span = big[1] / small[1];
        p.w_span = big[2] / small[2];
    } else {
        p.positions = p.h = p.w = 1;
        p.n_span = big[0];
        p.h_span = big[1];
        p.w_span = op->params.slice.count;
        p.begin = op->params.slice.begin;
    }
    p.runs = mg_cuda_divide_up(p.n_span * p.h_span * p.w_span, MG_CUDA_RUN);
    return p;
}

/* No more floats than the map has elements. */
static size_t span_bytes(const struct mg_op_shape *op) {
    const struct span p = span_of(op);
    return (size_t)(p.positions * p.runs * p.channels) * sizeof(float);
}

static void span_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct span p = span_of(call->op);
    float *runs = (float *)call->workspace;
    const struct mg_cuda_runs all = {runs, (const float *)call->in[1], p.positions, p.runs, p.channels, p.channels};
    mg_cuda_for_type(call->op->in[0].dtype, [&](auto zero) {
        using T = decltype(zero);
        mg_cuda_launch(state, mg_cuda_grid(p.positions * p.runs * p.channels), MG_CUDA_THREADS, span_runs_kernel<T>,
                       runs, (const T *)call->in[0], p);
    });
    mg_cuda_add_runs(state, (float *)call->out, &all);
}
const struct mg_cuda_driver mg_cuda_vector_gradient = {span_run, span_bytes};
const struct mg_cuda_driver mg_cuda_reduce = {span_run, span_bytes};
