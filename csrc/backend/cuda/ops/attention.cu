/* attention.cu: attention by online softmax: tiles of queries iterate over tiles of keys with a running maximum and sum;
 * the score matrix is never written. Halves take flash_attention.cuh, one wide head attention_products.cu, and all others
 * the tiled kernel below.
 *
 * There a block makes up to VALUES channels of 64 queries of one head; a head with more channels takes several blocks,
 * which compute the same scores. Scores are a tile product over blocks of channels. The probabilities then go through
 * shared memory, as a tile whose rows are summed over 64 keys, against the values, transposed. */
#include "../attention_products.cuh"
#include "../flash_attention.cuh"

/* The tiles of scores and of the second product need never lie in shared memory at the same time. */
template <class T, int VALUES> struct attention_tiles {
    static constexpr int PARTS = KEY_TILE / mg_tile_depth<T>(); /* tiles along the keys */
    union {
        struct {
            uint4 q[QUERY_TILE * MG_TILE_CHUNKS], k[KEY_TILE * MG_TILE_CHUNKS];
        } scores;
        struct {
            uint4 p[QUERY_TILE * MG_TILE_CHUNKS], v[VALUES * MG_TILE_CHUNKS];
        } sums;
    } u;
    float score[QUERY_TILE][KEY_TILE + 1];
    float correction[QUERY_TILE], row_sum[QUERY_TILE], row_max[QUERY_TILE];
};

/* P: the type of the products. */
template <class T, class U, int VALUES, class P>
__global__ void __launch_bounds__(MG_CUDA_THREADS, 2)
    attention_kernel(T *out, const T *q, const U *k, const U *v, struct heads p, int64_t head_count) {
    typedef struct attention_tiles<T, VALUES> shared_tiles;
    MG_SHARED(shared_tiles, shared);
    const int64_t first = blockIdx.x * (int64_t)QUERY_TILE, image = blockIdx.z / head_count,
                  head = blockIdx.z % head_count;
    const int64_t begin = blockIdx.y * p.values; /* the first channel of this block, in the head */
    const int64_t count = p.size - begin < p.values ? p.size - begin : p.values;
    const int64_t last = p.causal && first + QUERY_TILE < p.keys ? first + QUERY_TILE : p.keys;
    q += image * p.queries * p.channels + head * p.size;
    k += image * p.key_stride + head * p.size;
    v += image * p.key_stride + head * p.size + begin;
    out += image * p.queries * p.channels + head * p.size + begin;
    struct mg_tile_mma<P, QUERY_TILE, VALUES> result;
    result.clear();
    if (threadIdx.x < QUERY_TILE) {
        shared.row_max[threadIdx.x] = -INFINITY;
        shared.row_sum[threadIdx.x] = 0.0f;
    }
    for (int64_t key = 0; key < last; key += KEY_TILE) {
        struct mg_tile_mma<P, QUERY_TILE, KEY_TILE> scores;
        scores.clear();
        for (int64_t channel = 0; channel < p.size; channel += mg_tile_depth<T>()) {
            __syncthreads(); /* nobody reads the tiles any more */
            load_tokens<T>(shared.u.scores.q, q, first, p.queries, p.channels, channel, p.size, p.aligned);
            load_tokens<T>(shared.u.scores.k, k, key, p.keys, p.channels, channel, p.size, p.aligned);
            __syncthreads();
            scores.multiply(shared.u.scores.q, shared.u.scores.k);
        }
        scores.for_each([&](int row, int column, float sum) {
            const bool seen = key + column < p.keys && !(p.causal && key + column > first + row);
            shared.score[row][column] = seen ? sum * p.scale : -INFINITY;
        });
        __syncthreads();
        const int own = threadIdx.x / 4;
        online_softmax_row(shared.score[own], &shared.row_max[own], &shared.row_sum[own], &shared.correction[own]);
        __syncthreads();
        result.for_each([&](int row, int, float &sum) { sum *= shared.correction[row]; });
        for (int part = 0; part < KEY_TILE; part += mg_tile_depth<T>()) {
            for (int i = threadIdx.x % 4; i < mg_tile_depth<T>(); i += 4)
                *mg_tile_element<T>(shared.u.sums.p, own, i) = mg_element<T>(shared.score[own][part + i]);
            load_values<T, U, VALUES>(shared.u.sums.v, v, key + part, p.keys, p.channels, count);
            __syncthreads();
            result.multiply(shared.u.sums.p, shared.u.sums.v);
            __syncthreads();
        }
    }
    result.for_each([&](int row, int column, float sum) {
        if (first + row < p.queries && column < count)
            out[(first + row) * p.channels + column] = mg_element<T>(sum / shared.row_sum[row]);
    });
}

/* The tiled kernel, for all types, head sizes and alignments. */
static void attend_tiled(struct mg_cuda_state *state, const struct mg_op_call *call, const struct heads &p) {
    const int64_t heads = call->op->params.attention.heads;
    const dim3 grid((unsigned)mg_cuda_divide_up(p.queries, QUERY_TILE), (unsigned)mg_cuda_divide_up(p.size, p.values),
                    (unsigned)(call->op->in[0].dim[0] * heads));
    mg_cuda_dispatch_product(state, call->op->out.dtype, [&](auto zero, auto product) {
        using T = decltype(zero);
        using P = decltype(product);
        const bool same = call->op->in[1].dtype == call->op->out.dtype;
        const T *q = (const T *)call->in[0];
        T *out = (T *)call->out;
        if (same && p.values <= 64)
            mg_cuda_launch(state, grid, MG_CUDA_THREADS, attention_kernel<T, T, 64, P>, out, q, (const T *)call->in[1],
                           (const T *)call->in[2], p, heads);
        else if (same)
            mg_cuda_launch(state, grid, MG_CUDA_THREADS, attention_kernel<T, T, MAX_HEAD_TILE, P>, out, q,
                           (const T *)call->in[1], (const T *)call->in[2], p, heads);
        else /* from a text that is folded in float32 */
            mg_cuda_launch(state, grid, MG_CUDA_THREADS, attention_kernel<T, float, MAX_HEAD_TILE, P>, out, q,
                           (const float *)call->in[1], (const float *)call->in[2], p, heads);
    });
}

/* ---- halves, heads of up to 160 channels ---- */
constexpr int64_t MANY_QUERIES = 1024; /* from which on eight warps share a tile of keys */

static bool is_flash(const struct mg_op_shape *op, const struct heads &p) {
    return op->out.dtype != MG_F32 && op->in[1].dtype == op->out.dtype && p.aligned && p.size <= MAX_FLASH_SIZE;
}

template <int SIZE, int WARPS, int KEY_COUNT, class T>
static void launch_flash(struct mg_cuda_state *state, const struct mg_op_call *call, const struct heads &p, T) {
    const int64_t heads = call->op->params.attention.heads;
    const dim3 grid((unsigned)mg_cuda_divide_up(p.queries, WARPS * FLASH_ROWS),
                    (unsigned)(call->op->in[0].dim[0] * heads));
    mg_cuda_launch(state, grid, WARPS * MG_CUDA_WARP, flash_attention_kernel<T, SIZE, WARPS, KEY_COUNT>, (T *)call->out,
                   (const T *)call->in[0], (const T *)call->in[1], (const T *)call->in[2], p, heads);
}

template <class T>
static void attend_flash(struct mg_cuda_state *state, const struct mg_op_call *call, const struct heads &p, T zero) {
    if (p.size <= 48)
        launch_flash<48, 4, 64>(state, call, p, zero);
    else if (p.size <= 64 && p.queries >= MANY_QUERIES)
        launch_flash<64, 8, 64>(state, call, p, zero);
    else if (p.size <= 64)
        launch_flash<64, 4, 64>(state, call, p, zero);
    else if (p.size <= 96)
        launch_flash<96, 4, 32>(state, call, p, zero);
    else
        launch_flash<MAX_FLASH_SIZE, 4, 32>(state, call, p, zero);
}

/* MARIGOLD_CUDA_ATTENTION=tiled asks for the tiled kernel where there is
 * another one. */
static void attention_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const struct heads p = heads_of(call->op);
    if (!state->tiled_attention && mg_cuda_attention_is_products(call->op))
        mg_cuda_attention_products(state, call);
    else if (!state->tiled_attention && is_flash(call->op, p) && call->op->out.dtype == MG_F16)
        attend_flash(state, call, p, __half());
    else if (!state->tiled_attention && is_flash(call->op, p))
        attend_flash(state, call, p, __nv_bfloat16());
    else
        attend_tiled(state, call, p);
}

static size_t attention_bytes(const struct mg_op_shape *op) {
    return mg_cuda_attention_is_products(op) ? mg_cuda_attention_products_bytes(op) : 0;
}
const struct mg_cuda_driver mg_cuda_attention = {.run = attention_run, .workspace_bytes = attention_bytes};
