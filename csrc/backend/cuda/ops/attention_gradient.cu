/* attention_gradient.cu: gradients of attention.
 *
 * With scores s = scale q k^T, p = softmax(s), o = p v and dy the gradient of o: the gradient of v is p^T dy, that of a
 * score p (dy v^T - dy o^T). Neither p nor scores are kept: tiles of p follow from the logarithm of each row's sum.
 *
 * The gradients of queries, keys and values are one kernel: a block owns a tile of 64 row tokens and iterates over tiles of
 * 64 column tokens. Rows are queries for dq, keys for dk and dv. S = q k^T and dP = dy v^T are two tile products; the third,
 * of P or dS with the column tokens, accumulates the gradient of the rows.
 *
 * Tiles have the type of the queries, T. Keys and values of a text are float32 beside any of them, and rounded on their
 * way into a tile; P is the type of the products. */
#include "../attention.cuh"

/* ---- rows: the logarithm of the softmax's sum, and dy times output ---- */
struct row_tiles {
    uint4 q[QUERY_TILE * MG_TILE_CHUNKS], k[KEY_TILE * MG_TILE_CHUNKS];
    float score[QUERY_TILE][KEY_TILE + 1];
    float correction[QUERY_TILE], row_sum[QUERY_TILE], row_max[QUERY_TILE];
};

template <class T, class U> struct row_tensors {
    const T *q;
    const U *k;
    const T *output, *dy;
};

/* The products of 64 row tokens with 64 column tokens, staged through the tiles a and b. */
template <class T, class P, class A, class B>
__device__ void multiply_token_tiles(struct mg_tile_mma<P, QUERY_TILE, KEY_TILE> &product, uint4 *a, uint4 *b,
                                     const A *rows, int64_t first, int64_t row_count, const B *columns,
                                     int64_t first_column, int64_t column_count, const struct heads &p) {
    product.clear();
    for (int64_t channel = 0; channel < p.size; channel += mg_tile_depth<T>()) {
        __syncthreads(); /* nobody reads the tiles any more */
        load_tokens<T>(a, rows, first, row_count, p.channels, channel, p.size, p.aligned);
        load_tokens<T>(b, columns, first_column, column_count, p.channels, channel, p.size, p.aligned);
        __syncthreads();
        product.multiply(a, b);
    }
}

template <class T, class U, class P>
__global__ void __launch_bounds__(MG_CUDA_THREADS)
    attention_rows_kernel(float *out, struct row_tensors<T, U> t, struct heads p, int64_t head_count) {
    MG_SHARED(struct row_tiles, shared);
    const int64_t first = blockIdx.x * (int64_t)QUERY_TILE, image = blockIdx.y / head_count,
                  head = blockIdx.y % head_count;
    const int64_t last = p.causal && first + QUERY_TILE < p.keys ? first + QUERY_TILE : p.keys;
    const int64_t queries = image * p.queries * p.channels + head * p.size;
    const U *k = t.k + image * p.key_stride + head * p.size;
    const int own = threadIdx.x / 4;
    if (threadIdx.x < QUERY_TILE) {
        shared.row_max[threadIdx.x] = -INFINITY;
        shared.row_sum[threadIdx.x] = 0.0f;
    }
    for (int64_t key = 0; key < last; key += KEY_TILE) {
        struct mg_tile_mma<P, QUERY_TILE, KEY_TILE> scores;
        multiply_token_tiles<T>(scores, shared.q, shared.k, t.q + queries, first, p.queries, k, key, p.keys, p);
        scores.for_each([&](int row, int column, float sum) {
            const bool seen = key + column < p.keys && !(p.causal && key + column > first + row);
            shared.score[row][column] = seen ? sum * p.scale : -INFINITY;
        });
        __syncthreads();
        online_softmax_row(shared.score[own], &shared.row_max[own], &shared.row_sum[own], &shared.correction[own]);
    }
    float sum = 0.0f;
    const bool is_query = first + own < p.queries;
    const int64_t token = queries + (first + own) * p.channels;
    for (int64_t c = threadIdx.x % 4; is_query && c < p.size; c += 4)
        sum += mg_float(t.dy[token + c]) * mg_float(t.output[token + c]);
    for (int distance = 1; distance < 4; distance *= 2)
        sum += __shfl_xor_sync(MG_CUDA_ALL_LANES, sum, distance);
    if (is_query && threadIdx.x % 4 == 0) { /* the lane that wrote row_max and row_sum */
        float *row = out + (image * p.queries + first + own) * 2 * head_count + head;
        row[0] = shared.row_max[own] + logf(shared.row_sum[own]);
        row[head_count] = sum;
    }
}

template <class P, class T, class U>
static void find_rows(struct mg_cuda_state *state, const struct mg_op_shape *op, float *rows,
                      const struct row_tensors<T, U> &t) {
    const struct heads p = heads_of(op);
    const int64_t heads = op->params.attention.heads;
    const dim3 grid((unsigned)mg_cuda_divide_up(p.queries, QUERY_TILE), (unsigned)(op->in[0].dim[0] * heads));
    mg_cuda_launch(state, grid, MG_CUDA_THREADS, attention_rows_kernel<T, U, P>, rows, t, p, heads);
}

/* Calls f(T(), U(), P()) for the types of queries, keys and products. */
template <class F> static void dispatch_types(struct mg_cuda_state *state, const struct mg_op_shape *op, F f) {
    mg_cuda_dispatch_product(state, op->in[0].dtype, [&](auto query, auto product) {
        if (op->in[1].dtype == op->in[0].dtype)
            f(query, query, product);
        else
            f(query, float(), product);
    });
}

static void attention_rows_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    dispatch_types(state, call->op, [&](auto query, auto key, auto product) {
        using T = decltype(query);
        using U = decltype(key);
        const struct row_tensors<T, U> t = {
            (const T *)call->in[0], (const U *)call->in[1], (const T *)call->in[2], (const T *)call->in[3]
        };
        find_rows<decltype(product)>(state, call->op, (float *)call->out, t);
    });
}
const struct mg_cuda_driver mg_cuda_attention_rows = {.run = attention_rows_run};

/* ---- gradients ---- */
constexpr int64_t CHANNEL_TILE = 64; /* of the result, that one block makes */

/* Operands of one gradient: S = s_rows s_columns^T, dP = dp_rows dp_columns^T, and the gradient is the product of P or dS
 * with `factor`, which has a token for each column. */
template <class A, class B> struct gradient_operands {
    const A *s_rows, *dp_rows;
    const B *s_columns, *dp_columns, *factor;
    bool rows_are_queries, is_value_gradient; /* neither: of keys */
};

struct gradient_tiles {
    uint4 a[QUERY_TILE * MG_TILE_CHUNKS], b[KEY_TILE * MG_TILE_CHUNKS];
    float score[QUERY_TILE][KEY_TILE + 1];
    float logarithm[KEY_TILE], product[KEY_TILE]; /* of the rows of the queries in the present tiles */
};

/* P for the gradient of the values, else dS, of 64 rows and 64 columns; 0 where a query does not see a key. */
template <class T, class P, class A, class B>
__device__ void find_scores_gradient(struct gradient_tiles &shared, const struct gradient_operands<A, B> &s,
                                     const struct heads &p, int64_t first, int64_t row_count, int64_t first_column,
                                     int64_t column_count) {
    struct mg_tile_mma<P, QUERY_TILE, KEY_TILE> product;
    multiply_token_tiles<T>(product, shared.a, shared.b, s.s_rows, first, row_count, s.s_columns, first_column,
                            column_count, p);
    product.for_each([&](int row, int column, float sum) {
        const int64_t query = s.rows_are_queries ? first + row : first_column + column;
        const int64_t key = s.rows_are_queries ? first_column + column : first + row;
        const bool seen = first + row < row_count && first_column + column < column_count && !(p.causal && key > query);
        const float logarithm = shared.logarithm[s.rows_are_queries ? row : column];
        shared.score[row][column] = seen ? expf(sum * p.scale - logarithm) : 0.0f;
    });
    if (s.is_value_gradient)
        return;
    multiply_token_tiles<T>(product, shared.a, shared.b, s.dp_rows, first, row_count, s.dp_columns, first_column,
                            column_count, p);
    product.for_each([&](int row, int column, float sum) { /* the same elements as above */
                                                           const float of_row =
                                                               shared.product[s.rows_are_queries ? row : column];
                                                           shared.score[row][column] *= p.scale * (sum - of_row);
    });
}

/* Rows of the queries from `first` on, as attention_rows made them. Barriers of the products that follow and of those that
 * came before, in accumulate_columns, keep them apart from their readers. */
__device__ static inline void load_rows(struct gradient_tiles &shared, const float *rows, int64_t first,
                                        int64_t queries, int64_t head_count) {
    if (threadIdx.x < QUERY_TILE) {
        const bool there = first + threadIdx.x < queries;
        const float *row = rows + (first + threadIdx.x) * 2 * head_count;
        shared.logarithm[threadIdx.x] = there ? row[0] : 0.0f;
        shared.product[threadIdx.x] = there ? row[head_count] : 0.0f;
    }
}

/* Accumulates the product of P or dS with 64 column tokens. */
template <class T, class P, class B>
__device__ void accumulate_columns(struct mg_tile_mma<P, QUERY_TILE, CHANNEL_TILE> &result,
                                   struct gradient_tiles &shared, const B *factor, int64_t first_column,
                                   int64_t column_count, int64_t stride, int64_t count) {
    const int own = threadIdx.x / 4;

    for (int part = 0; part < KEY_TILE; part += mg_tile_depth<T>()) {
        __syncthreads();
        for (int i = threadIdx.x % 4; i < mg_tile_depth<T>(); i += 4)
            *mg_tile_element<T>(shared.a, own, i) = mg_element<T>(shared.score[own][part + i]);
        load_values<T, B, CHANNEL_TILE>(shared.b, factor, first_column + part, column_count, stride, count);
        __syncthreads();
        result.multiply(shared.a, shared.b);
    }
}

/* Rows q and dy, columns k and v; or rows k and v, columns q and dy. */
template <class A, class B> struct gradient_tensors {
    const A *s_rows, *dp_rows;
    const B *s_columns, *dp_columns;
    const float *rows;
    A *out;
    int64_t out_channels; /* of a token of the result */
    int64_t images;       /* of queries for each of keys */
    bool rows_are_queries;
};

/* Grid: tiles of rows; parts of a head, for keys and then once more for values; heads of all images. */
template <class T, class A, class B, class P>
__global__ void __launch_bounds__(MG_CUDA_THREADS)
    attention_gradient_kernel(struct gradient_tensors<A, B> t, struct heads p, int64_t head_count) {
    MG_SHARED(struct gradient_tiles, shared);
    const int64_t parts = (p.size + CHANNEL_TILE - 1) / CHANNEL_TILE, begin = blockIdx.y % parts * CHANNEL_TILE;
    const int64_t first = blockIdx.x * (int64_t)QUERY_TILE, head = blockIdx.z % head_count;
    const int64_t image = blockIdx.z / head_count,
                  count = p.size - begin < CHANNEL_TILE ? p.size - begin : CHANNEL_TILE;
    const int64_t row_count = t.rows_are_queries ? p.queries : p.keys,
                  column_count = t.rows_are_queries ? p.keys : p.queries;
    const bool is_value_gradient = blockIdx.y >= parts;
    const int64_t row_offset = image * row_count * p.channels + head * p.size;
    struct mg_tile_mma<P, QUERY_TILE, CHANNEL_TILE> result;
    result.clear();
    for (int64_t i = 0; i < t.images; i++) { /* more than one where all images share the keys */
        const int64_t query_image = t.rows_are_queries ? image : image * t.images + i;
        const int64_t column_image = t.rows_are_queries ? image * p.key_stride : query_image * p.queries * p.channels;
        const float *rows = t.rows + query_image * p.queries * 2 * head_count + head;
        const int64_t column_offset = column_image + head * p.size;
        const struct gradient_operands<A, B> s = {
            t.s_rows + row_offset, t.dp_rows + row_offset, t.s_columns + column_offset, t.dp_columns + column_offset,
                (is_value_gradient ? t.dp_columns : t.s_columns) + column_offset + begin, t.rows_are_queries,
                is_value_gradient
        };
        const int64_t last =
            p.causal && t.rows_are_queries && first + QUERY_TILE < column_count ? first + QUERY_TILE : column_count;
        for (int64_t first_column = p.causal && !t.rows_are_queries ? first : 0; first_column < last;
             first_column += KEY_TILE) {
            load_rows(shared, rows, t.rows_are_queries ? first : first_column, p.queries, head_count);
            find_scores_gradient<T, P>(shared, s, p, first, row_count, first_column, column_count);
            accumulate_columns<T>(result, shared, s.factor, first_column, column_count, p.channels, count);
        }
    }
    A *out = t.out + (is_value_gradient ? p.channels : 0) + (image * row_count + first) * t.out_channels +
             head * p.size + begin;
    result.for_each([&](int row, int column, float sum) {
        if (first + row < row_count && column < count)
            out[row * t.out_channels + column] = mg_element<A>(sum);
    });
}

template <class T, class P, class A, class B>
static void find_gradient(struct mg_cuda_state *state, const struct mg_op_shape *op,
                          const struct gradient_tensors<A, B> &t) {
    const struct heads p = heads_of(op);
    const int64_t heads = op->params.attention.heads, parts = mg_cuda_divide_up(p.size, CHANNEL_TILE);
    const int64_t images = t.rows_are_queries ? op->in[0].dim[0] : op->in[1].dim[0];
    const dim3 grid((unsigned)mg_cuda_divide_up(t.rows_are_queries ? p.queries : p.keys, QUERY_TILE),
                    (unsigned)(t.rows_are_queries ? parts : 2 * parts), (unsigned)(images * heads));
    mg_cuda_launch(state, grid, MG_CUDA_THREADS, attention_gradient_kernel<T, A, B, P>, t, p, heads);
}

static void query_gradient_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    dispatch_types(state, call->op, [&](auto query, auto key, auto product) {
        using T = decltype(query);
        using U = decltype(key);
        const struct gradient_tensors<T, U> t = {
            (const T *)call->in[0], (const T *)call->in[3], (const U *)call->in[1], (const U *)call->in[2],
                (const float *)call->in[4], (T *)call->out, call->op->out.dim[3], 1, true
        };
        find_gradient<T, decltype(product)>(state, call->op, t);
    });
}
const struct mg_cuda_driver mg_cuda_attention_query_gradient = {.run = query_gradient_run};

static void key_value_gradient_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    dispatch_types(state, call->op, [&](auto query, auto key, auto product) {
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
const struct mg_cuda_driver mg_cuda_attention_key_value_gradient = {.run = key_value_gradient_run};

/* All three, with the rows in the workspace. */
static size_t self_attention_bytes(const struct mg_op_shape *op) {
    const int64_t tokens = mg_tensor_count(&op->in[0]) / op->in[0].dim[3];
    return (size_t)(tokens * 2 * op->params.attention.heads) * sizeof(float);
}

static void self_attention_run(struct mg_cuda_state *state, const struct mg_op_call *call) {
    const int64_t channels = call->op->in[0].dim[3];
    float *rows = (float *)call->workspace;
    mg_cuda_dispatch_product(state, call->op->out.dtype, [&](auto zero, auto product) {
        using T = decltype(zero);
        using P = decltype(product);
        const T *q = (const T *)call->in[0], *k = (const T *)call->in[1], *v = (const T *)call->in[2];
        const T *output = (const T *)call->in[3], *dy = (const T *)call->in[4];
        T *out = (T *)call->out;
        const struct row_tensors<T, T> t = { q, k, output, dy };
        const struct gradient_tensors<T, T> query_gradient = { q, dy, k, v, rows, out, 3 * channels, 1, true };
        const struct gradient_tensors<T, T> key_value_gradient = {
            k, v, q, dy, rows, out + channels, 3 * channels, 1, false
        };
        find_rows<P>(state, call->op, rows, t);
        find_gradient<T, P>(state, call->op, query_gradient);
        find_gradient<T, P>(state, call->op, key_value_gradient);
    });
}
const struct mg_cuda_driver mg_cuda_self_attention_gradient = {.run = self_attention_run,
                                                               .workspace_bytes = self_attention_bytes};
