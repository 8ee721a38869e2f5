/* attention_gradient.cu: gradients of attention. Called by cuda_backend.cu.
 *
 * With scores s = scale q k^T, p = softmax(s), o = p v and dy the gradient of o: the gradient of v is p^T dy, that of a
 * score p (dy v^T - dy o^T). Neither p nor scores are kept: tiles of p follow from the logarithm of each row's sum.
 *
 * The gradients of queries, keys and values are one kernel: 64 own tokens pass over all others, 64 at a time; weights of
 * the others are made from two tile products, and a third one, with the others' tokens, adds to the own gradient.
 *
 * Tiles have the type of the queries, T. Keys and values of a text are float32 beside any of them, and rounded on their
 * way into a tile; P is the type of the products. */
#include "../attention.cuh"

/* ---- rows: the logarithm of the softmax's sum, and dy times output ---- */
struct row_tiles {
    uint4 q[QUERIES * MG_TILE_STRIDE], k[KEYS * MG_TILE_STRIDE];
    float score[QUERIES][KEYS + 1];
    float rescale[QUERIES], total[QUERIES], largest[QUERIES];
};

template <class T, class U> struct row_tensors {
    const T *q;
    const U *k;
    const T *output, *dy;
};

/* Scores, scaled, of 64 own tokens and 64 others: by the tiles a and b. */
template <class T, class P, class A, class B>
__device__ void multiply_tokens(struct mg_tile_product<P, QUERIES, KEYS> &product, uint4 *a, uint4 *b, const A *own,
                                int64_t first, int64_t own_count, const B *others, int64_t other, int64_t other_count,
                                const struct heads &p) {
    product.clear();
    for (int64_t channel = 0; channel < p.size; channel += mg_tile_depth<T>()) {
        __syncthreads(); /* nobody reads the tiles any more */
        load_tokens<T>(a, own, first, own_count, p.channels, channel, p.size, p.whole);
        load_tokens<T>(b, others, other, other_count, p.channels, channel, p.size, p.whole);
        __syncthreads();
        product.multiply(a, b);
    }
}

template <class T, class U, class P>
__global__ void __launch_bounds__(MG_CUDA_THREADS)
    attention_rows_kernel(float *out, struct row_tensors<T, U> t, struct heads p, int64_t head_count) {
    MG_SHARED(struct row_tiles, shared);
    const int64_t first = blockIdx.x * (int64_t)QUERIES, image = blockIdx.y / head_count,
                  head = blockIdx.y % head_count;
    const int64_t last = p.causal && first + QUERIES < p.keys ? first + QUERIES : p.keys;
    const int64_t queries = image * p.queries * p.channels + head * p.size;
    const U *k = t.k + image * p.key_stride + head * p.size;
    const int own = threadIdx.x / 4;
    if (threadIdx.x < QUERIES) {
        shared.largest[threadIdx.x] = -INFINITY;
        shared.total[threadIdx.x] = 0.0f;
    }
    for (int64_t key = 0; key < last; key += KEYS) {
        struct mg_tile_product<P, QUERIES, KEYS> scores;
        multiply_tokens<T>(scores, shared.q, shared.k, t.q + queries, first, p.queries, k, key, p.keys, p);
        scores.each([&](int row, int column, float sum) {
            const bool seen = key + column < p.keys && !(p.causal && key + column > first + row);
            shared.score[row][column] = seen ? sum * p.scale : -INFINITY;
        });
        __syncthreads();
        weigh_row(shared.score[own], &shared.largest[own], &shared.total[own], &shared.rescale[own]);
    }
    float sum = 0.0f;
    const bool is_query = first + own < p.queries;
    const int64_t token = queries + (first + own) * p.channels;
    for (int64_t c = threadIdx.x % 4; is_query && c < p.size; c += 4)
        sum += mg_float(t.dy[token + c]) * mg_float(t.output[token + c]);
    for (int distance = 1; distance < 4; distance *= 2)
        sum += __shfl_xor_sync(MG_CUDA_ALL_LANES, sum, distance);
    if (is_query && threadIdx.x % 4 == 0) { /* the lane that wrote largest and total */
        float *row = out + (image * p.queries + first + own) * 2 * head_count + head;
        row[0] = shared.largest[own] + logf(shared.total[own]);
        row[head_count] = sum;
    }
}

template <class P, class T, class U>
static void find_rows(struct mg_cuda_state *state, const struct mg_op_shape *op, float *rows,
                      const struct row_tensors<T, U> &t) {
    const struct heads p = heads_of(op);
    const int64_t heads = op->params.attention.heads;
    const dim3 grid((unsigned)mg_cuda_divide_up(p.queries, QUERIES), (unsigned)(op->in[0].dim[0] * heads));
    mg_cuda_launch(state, grid, MG_CUDA_THREADS, attention_rows_kernel<T, U, P>, rows, t, p, heads);
}

/* Calls f(T(), U(), P()) for the types of queries, keys and products. */
template <class F> static void for_types(struct mg_cuda_state *state, const struct mg_op_shape *op, F f) {
    mg_cuda_for_product(state, op->in[0].dtype, [&](auto query, auto product) {
        if (op->in[1].dtype == op->in[0].dtype)
            f(query, query, product);
        else
            f(query, float(), product);
    });
}

static void attention_rows_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    for_types(state, call->op, [&](auto query, auto key, auto product) {
        using T = decltype(query);
        using U = decltype(key);
        const struct row_tensors<T, U> t = {
            (const T *)call->in[0], (const U *)call->in[1], (const T *)call->in[2], (const T *)call->in[3]
        };
        find_rows<decltype(product)>(state, call->op, (float *)call->out, t);
    });
}
const struct mg_cuda_driver mg_cuda_attention_rows = {attention_rows_run, NULL};

/* ---- gradients ---- */
constexpr int64_t CHANNELS = 64; /* of the result, that one block makes */

/* The sides of one of the gradients: tokens of `own` and `others` make the scores, those of `own_too` and `others_too` the
 * gradients of the probabilities, and `summed` of the others are added up. */
template <class A, class B> struct sides {
    const A *own, *own_too;
    const B *others, *others_too, *summed;
    bool of_queries, of_values; /* neither: of keys */
};

struct gradient_tiles {
    uint4 a[QUERIES * MG_TILE_STRIDE], b[KEYS * MG_TILE_STRIDE];
    float weight[QUERIES][KEYS + 1];
    float logarithm[KEYS], product[KEYS]; /* of the rows of the queries in the present tiles */
};

/* Weights of the others' tokens in the gradient of own ones; 0 where a query does not see a key. */
template <class T, class P, class A, class B>
__device__ void find_weights(struct gradient_tiles &shared, const struct sides<A, B> &s, const struct heads &p,
                             int64_t first, int64_t own_count, int64_t other, int64_t other_count) {
    struct mg_tile_product<P, QUERIES, KEYS> product;
    multiply_tokens<T>(product, shared.a, shared.b, s.own, first, own_count, s.others, other, other_count, p);
    product.each([&](int row, int column, float sum) {
        const int64_t query = s.of_queries ? first + row : other + column;
        const int64_t key = s.of_queries ? other + column : first + row;
        const bool seen = first + row < own_count && other + column < other_count && !(p.causal && key > query);
        const float logarithm = shared.logarithm[s.of_queries ? row : column];
        shared.weight[row][column] = seen ? expf(sum * p.scale - logarithm) : 0.0f;
    });
    if (s.of_values)
        return;
    multiply_tokens<T>(product, shared.a, shared.b, s.own_too, first, own_count, s.others_too, other, other_count, p);
    product.each([&](int row, int column, float sum) { /* the thread's own, as before */
                                                       const float of_row = shared.product[s.of_queries ? row : column];
                                                       shared.weight[row][column] *= p.scale * (sum - of_row);
    });
}

/* Rows of the queries from `first` on, as attention_rows made them. */
__device__ static inline void load_rows(struct gradient_tiles &shared, const float *rows, int64_t first,
                                        int64_t queries, int64_t head_count) {
    if (threadIdx.x < QUERIES) {
        const bool there = first + threadIdx.x < queries;
        const float *row = rows + (first + threadIdx.x) * 2 * head_count;
        shared.logarithm[threadIdx.x] = there ? row[0] : 0.0f;
        shared.product[threadIdx.x] = there ? row[head_count] : 0.0f;
    }
}

/* Adds what 64 others do to the gradient. */
template <class T, class P, class B>
__device__ void add_others(struct mg_tile_product<P, QUERIES, CHANNELS> &result, struct gradient_tiles &shared,
                           const B *summed, int64_t other, int64_t other_count, int64_t stride, int64_t count) {
    const int own = threadIdx.x / 4;
    T *weights = (T *)shared.a + own * MG_TILE_STRIDE * mg_chunk_elements<T>();
    for (int part = 0; part < KEYS; part += mg_tile_depth<T>()) {
        __syncthreads();
        for (int i = threadIdx.x % 4; i < mg_tile_depth<T>(); i += 4)
            weights[i] = mg_element<T>(shared.weight[own][part + i]);
        load_values<T, B, CHANNELS>(shared.b, summed, other + part, other_count, stride, count);
        __syncthreads();
        result.multiply(shared.a, shared.b);
    }
}

/* Own q and dy, others k and v; or own k and v, others q and dy. */
template <class A, class B> struct gradient_tensors {
    const A *own, *own_too;
    const B *others, *others_too;
    const float *rows;
    A *out;
    int64_t out_channels; /* of a token of the result */
    int64_t images;       /* of queries for each of keys */
    bool of_queries;
};

/* Grid: blocks of own tokens; parts of a head, for keys and then once more for values; heads of all images. */
template <class T, class A, class B, class P>
__global__ void __launch_bounds__(MG_CUDA_THREADS)
    attention_gradient_kernel(struct gradient_tensors<A, B> t, struct heads p, int64_t head_count) {
    MG_SHARED(struct gradient_tiles, shared);
    const int64_t parts = (p.size + CHANNELS - 1) / CHANNELS, begin = blockIdx.y % parts * CHANNELS;
    const int64_t first = blockIdx.x * (int64_t)QUERIES, head = blockIdx.z % head_count;
    const int64_t image = blockIdx.z / head_count, count = p.size - begin < CHANNELS ? p.size - begin : CHANNELS;
    const int64_t own_count = t.of_queries ? p.queries : p.keys, other_count = t.of_queries ? p.keys : p.queries;
    const bool of_values = blockIdx.y >= parts;
    const int64_t own_at = image * own_count * p.channels + head * p.size;
    struct mg_tile_product<P, QUERIES, CHANNELS> result;
    result.clear();
    for (int64_t i = 0; i < t.images; i++) { /* more than one where all images share the keys */
        const int64_t query_image = t.of_queries ? image : image * t.images + i;
        const int64_t others = t.of_queries ? image * p.key_stride : query_image * p.queries * p.channels;
        const float *rows = t.rows + query_image * p.queries * 2 * head_count + head;
        const int64_t others_at = others + head * p.size;
        const struct sides<A, B> s = {
            t.own + own_at, t.own_too + own_at, t.others + others_at, t.others_too + others_at,
                (of_values ? t.others_too : t.others) + others_at + begin, t.of_queries, of_values
        };
        const int64_t last = p.causal && t.of_queries && first + QUERIES < other_count ? first + QUERIES : other_count;
        for (int64_t other = p.causal && !t.of_queries ? first : 0; other < last; other += KEYS) {
            __syncthreads();
            load_rows(shared, rows, t.of_queries ? first : other, p.queries, head_count);
            find_weights<T, P>(shared, s, p, first, own_count, other, other_count);
            add_others<T>(result, shared, s.summed, other, other_count, p.channels, count);
        }
    }
    A *out =
        t.out + (of_values ? p.channels : 0) + (image * own_count + first) * t.out_channels + head * p.size + begin;
    result.each([&](int row, int column, float sum) {
        if (first + row < own_count && column < count)
            out[row * t.out_channels + column] = mg_element<A>(sum);
    });
}

template <class T, class P, class A, class B>
static void find_gradient(struct mg_cuda_state *state, const struct mg_op_shape *op,
                          const struct gradient_tensors<A, B> &t) {
    const struct heads p = heads_of(op);
    const int64_t heads = op->params.attention.heads, parts = mg_cuda_divide_up(p.size, CHANNELS);
    const int64_t images = t.of_queries ? op->in[0].dim[0] : op->in[1].dim[0];
    const dim3 grid((unsigned)mg_cuda_divide_up(t.of_queries ? p.queries : p.keys, QUERIES),
                    (unsigned)(t.of_queries ? parts : 2 * parts), (unsigned)(images * heads));
    mg_cuda_launch(state, grid, MG_CUDA_THREADS, attention_gradient_kernel<T, A, B, P>, t, p, heads);
}

static void query_gradient_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    for_types(state, call->op, [&](auto query, auto key, auto product) {
        using T = decltype(query);
        using U = decltype(key);
        const struct gradient_tensors<T, U> t = {
            (const T *)call->in[0], (const T *)call->in[3], (const U *)call->in[1], (const U *)call->in[2],
                (const float *)call->in[4], (T *)call->out, call->op->out.dim[3], 1, true
        };
        find_gradient<T, decltype(product)>(state, call->op, t);
    });
}
const struct mg_cuda_driver mg_cuda_attention_query_gradient = {query_gradient_run, NULL};

static void key_value_gradient_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    for_types(state, call->op, [&](auto query, auto key, auto product) {
        using T = decltype(query);
        using U = decltype(key);
        const struct gradient_tensors<U, T> t = {
            (const U *)call->in[1], (const U *)call->in[2], (const T *)call->in[0], (const T *)call->in[3],
                (const float *)call->in[4],
                (U *)call->out, call->op->out.dim[3], call->op->in[0].dim[0] / call->op->in[1].dim[0], false
        };
        find_gradient<T, decltype(product)>(state, call->op, t);
    });
}
const struct mg_cuda_driver mg_cuda_attention_key_value_gradient = {key_value_gradient_run, NULL};

/* All three, with the rows in the workspace. */
static size_t self_attention_bytes(const struct mg_op_shape *op) {
    const int64_t tokens = mg_tensor_count(&op->in[0]) / op->in[0].dim[3];
    return (size_t)(tokens * 2 * op->params.attention.heads) * sizeof(float);
}

static void self_attention_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t channels = call->op->in[0].dim[3];
    float *rows = (float *)call->workspace;
    mg_cuda_for_product(state, call->op->out.dtype, [&](auto zero, auto product) {
        using T = decltype(zero);
        using P = decltype(product);
        const T *q = (const T *)call->in[0], *k = (const T *)call->in[1], *v = (const T *)call->in[2];
        const T *output = (const T *)call->in[3], *dy = (const T *)call->in[4];
        T *out = (T *)call->out;
        const struct row_tensors<T, T> t = { q, k, output, dy };
        const struct gradient_tensors<T, T> of_queries = { q, dy, k, v, rows, out, 3 * channels, 1, true };
        const struct gradient_tensors<T, T> of_keys = { k, v, q, dy, rows, out + channels, 3 * channels, 1, false };
        find_rows<P>(state, call->op, rows, t);
        find_gradient<T, P>(state, call->op, of_queries);
        find_gradient<T, P>(state, call->op, of_keys);
    });
}
const struct mg_cuda_driver mg_cuda_self_attention_gradient = {self_attention_run, self_attention_bytes};
