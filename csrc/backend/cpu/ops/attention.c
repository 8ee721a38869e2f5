/* attention.c: softmax(q k^T scale) v without the matrix of scores (online softmax, arXiv 1805.02867; tiled as in
 * FlashAttention, arXiv 2205.14135). Per image and head, keys are packed into panels of columns and values into panels of
 * channels, once; then blocks of queries run over blocks of keys with scores and partial sums in cache.
 *
 * With bfloat16 queries both products take bfloat16 pairs: two channels of a query and key, two keys of the probabilities and
 * values. Scores, softmax and sums stay float32. Keys and values may be of another type than the queries (those of a constant
 * text are float32) and are converted when they are packed. */
#include <math.h>
#include <string.h>

#include "../../../core/thread_pool.h"
#include "attention_panels.h"

/* SCORE_ROW: elements from one row of scores to the next: whole cache lines of bfloat16, but no power of two, or rows would evict
 * each other from the first-level cache. */
enum { BLOCK_QUERIES = 96, BLOCK_KEYS = 512, SCORE_ROW = BLOCK_KEYS + 32 };

struct attention {
    const struct mg_cpu_kernels *kernels;
    const struct mg_cpu_elements *elements;
    struct mg_attention params;
    bool half; /* bfloat16 products */
    struct mg_head_rows queries, keys;
    int64_t query_blocks, row;                    /* row: padded channels of the partial sums */
    size_t packed_keys, packed_values;            /* bytes, shared */
    size_t scores, sums, line, completed, thread; /* bytes of a thread */
};

static struct attention attention_of(const struct mg_context *context, const struct mg_op_shape *op) {
    const bool half = op->in[0].dtype == MG_BF16;
    struct attention a = {.kernels = mg_cpu_kernels_of(context),
                          .elements = mg_cpu_elements_of(context, &op->in[0]),
                          .params = op->params.attention,
                          .half = half,
                          .queries = mg_head_rows_of(context, &op->in[0], op->params.attention.heads, half),
                          .keys = mg_head_rows_of(context, &op->in[1], op->params.attention.heads, half)};
    a.query_blocks = mg_ceil_div(a.queries.count, BLOCK_QUERIES);
    a.row = mg_padded_channels(&a.keys);
    a.packed_keys = mg_transposed_bytes(&a.keys);
    a.packed_values = mg_packed_bytes_of_rows(&a.keys);
    a.scores = (size_t)BLOCK_QUERIES * SCORE_ROW * sizeof(float);
    a.sums = mg_aligned_bytes(BLOCK_QUERIES * a.row + 3 * BLOCK_QUERIES, sizeof(float));
    a.line = mg_line_bytes(&a.keys);
    a.completed = a.half && a.queries.size % 2 ? mg_aligned_bytes(BLOCK_QUERIES * a.queries.units, 4) : 0;
    a.thread = a.scores + (a.half ? a.scores / 2 : 0) + a.sums + a.line + a.completed;
    return a;
}

static size_t attention_workspace(const struct mg_context *context, const struct mg_op_shape *op) {
    struct attention a = attention_of(context, op);
    size_t bytes;
    if (!mg_size_mul(&bytes, a.thread, (size_t)context->num_threads) ||
        !mg_size_add(&bytes, bytes, a.packed_keys + a.packed_values))
        return SIZE_MAX;
    return bytes;
}

/* A thread's own memory. */
struct scratch {
    float *scores, *sums, *maximum, *total, *correction;
    mg_bf16 *probabilities; /* bfloat16 products: the scores after the softmax */
    char *line;             /* one key's or value's row, two of them for values */
    char *completed;        /* queries with an odd number of bfloat16 channels */
};

static struct scratch scratch_of(const struct attention *a, char *at) {
    struct scratch s = {.scores = (float *)at};
    at += a->scores;
    s.probabilities = (mg_bf16 *)at;
    at += a->half ? a->scores / 2 : 0;
    s.sums = (float *)at;
    s.maximum = s.sums + BLOCK_QUERIES * a->row;
    s.total = s.maximum + BLOCK_QUERIES;
    s.correction = s.total + BLOCK_QUERIES;
    s.line = at += a->sums;
    s.completed = at + a->line;
    return s;
}

static void hide_later_keys(float *scores, int64_t query, int64_t rows, int64_t key, int64_t columns) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = query + i - key + 1 > 0 ? query + i - key + 1 : 0; j < columns; j++)
            scores[i * SCORE_ROW + j] = -INFINITY;
}

/* Scores of `rows` queries (at q, `ld` elements apart) with the keys of `panels` panels from `first` on. */
static void score(const struct attention *a, const void *q, int64_t ld, const char *keys, int64_t rows, int64_t first,
                  int64_t panels, float *scores) {
    const int64_t units = a->keys.units * a->keys.panel; /* of a panel */
    const void *from = keys + first * units * 4;
    if (a->half)
        a->kernels->product_bf16(rows, 2 * a->keys.units, panels, q, ld, from, 2 * units, scores, SCORE_ROW, false);
    else
        for (int64_t p = 0; p < panels; p++)
            a->kernels->product_f32(rows, a->keys.size, q, ld, (const float *)from + p * units,
                                    scores + p * a->keys.panel, SCORE_ROW, false);
}

/* sums += probabilities of `columns` keys from `key` on (even) times their values. */
static void add_values(const struct attention *a, const struct scratch *s, const char *values, int64_t rows,
                       int64_t key, int64_t columns) {
    const int64_t first = a->half ? key / 2 : key, even = (columns + 1) / 2 * 2;
    const int64_t units = a->keys.steps * a->keys.panel; /* of a panel */
    const void *from = values + first * a->keys.panel * 4;
    if (a->half)
        a->kernels->product_bf16(rows, even, a->keys.channel_panels, s->probabilities, SCORE_ROW, from, 2 * units,
                                 s->sums, a->row, key > 0);
    else
        for (int64_t p = 0; p < a->keys.channel_panels; p++)
            a->kernels->product_f32(rows, columns, s->scores, SCORE_ROW, (const float *)from + p * units,
                                    s->sums + p * a->keys.panel, a->row, key > 0);
}

/* One block of queries against one block of keys, into the partial sums. */
static void run_key_block(const struct attention *a, const void *q, int64_t ld, const char *keys, const char *values,
                          int64_t query, int64_t rows, int64_t key, const struct scratch *s) {
    const int64_t columns = a->keys.count - key < BLOCK_KEYS ? a->keys.count - key : BLOCK_KEYS;
    score(a, q, ld, keys, rows, key / a->keys.panel, mg_ceil_div(columns, a->keys.panel), s->scores);
    if (a->params.causal)
        hide_later_keys(s->scores, query, rows, key, columns);
    if (a->half)
        a->kernels->softmax_block_half(s->probabilities, s->scores, SCORE_ROW, rows, columns, a->params.scale,
                                       s->maximum, s->total, s->correction);
    else
        a->kernels->softmax_block(s->scores, SCORE_ROW, rows, columns, a->params.scale, s->maximum, s->total,
                                  s->correction);
    if (key > 0)
        for (int64_t i = 0; i < rows; i++)
            a->kernels->of[MG_CPU_F32].scale(s->sums + i * a->row, s->sums + i * a->row, s->correction[i], 0.0f,
                                             a->row);
    add_values(a, s, values, rows, key, columns);
}

static void run_query_block(const struct attention *a, const char *q, const char *keys, const char *values, char *out,
                            int64_t block, const struct scratch *s) {
    const struct mg_head_rows *queries = &a->queries;
    const int64_t query = block * BLOCK_QUERIES;
    const int64_t rows = queries->count - query < BLOCK_QUERIES ? queries->count - query : BLOCK_QUERIES;
    const void *first = mg_head_row(queries, q, query);
    int64_t ld = queries->channels;
    if (a->completed) {
        ld = queries->units * 4 / queries->bytes;
        for (int64_t i = 0; i < rows; i++)
            mg_load_head_row(queries, s->completed + i * queries->units * 4, mg_head_row(queries, q, query + i), ld);
        first = s->completed;
    }
    for (int64_t i = 0; i < rows; i++) {
        s->maximum[i] = -INFINITY;
        s->total[i] = 0.0f;
    }
    /* Causal blocks of keys that lie wholly behind the last query have nothing to add. */
    const int64_t end = a->params.causal && query + rows < a->keys.count ? query + rows : a->keys.count;
    for (int64_t key = 0; key < end; key += BLOCK_KEYS)
        run_key_block(a, first, ld, keys, values, query, rows, key, s);
    for (int64_t i = 0; i < rows; i++) {
        float *sums = s->sums + i * a->row;
        a->kernels->of[MG_CPU_F32].scale(sums, sums, 1.0f / s->total[i], 0.0f, queries->size);
        a->elements->narrow(out + (query + i) * queries->channels * queries->bytes, sums, queries->size);
    }
}

/* One image and head. */
struct head {
    const struct attention *a;
    const char *q, *k, *v;
    char *out, *keys, *values, *threads; /* packed; the threads' own memory */
};

static struct scratch own_scratch(const struct head *h, int thread) {
    return scratch_of(h->a, h->threads + (size_t)thread * h->a->thread);
}

static void pack_all_keys(const void *user, int64_t begin, int64_t end, int thread) {
    const struct head *h = user;
    for (int64_t p = begin; p < end; p++)
        mg_transpose_rows(&h->a->keys, h->k, p, h->keys, own_scratch(h, thread).line);
}

static void pack_all_values(const void *user, int64_t begin, int64_t end, int thread) {
    const struct head *h = user;
    for (int64_t step = begin; step < end; step++)
        mg_pack_step(&h->a->keys, h->v, step, h->values, own_scratch(h, thread).line);
}

static void run_query_blocks(const void *user, int64_t begin, int64_t end, int thread) {
    const struct head *h = user;
    const struct scratch mine = own_scratch(h, thread);
    for (int64_t block = begin; block < end; block++)
        run_query_block(h->a, h->q, h->keys, h->values, h->out, block, &mine);
}

static void attention_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct attention a = attention_of(context, call->op);
    const int64_t images = call->op->in[0].dim[0], key_images = call->op->in[1].dim[0];
    const int64_t key_bytes = (int64_t)mg_dtype_bytes(a.keys.type);
    struct head h = {.a = &a, .keys = call->workspace};
    h.values = h.keys + a.packed_keys;
    h.threads = h.values + a.packed_values;
    for (int64_t i = 0; i < images * a.params.heads; i++) {
        const int64_t n = i / a.params.heads, head = i % a.params.heads * a.queries.size;
        const int64_t at = (n * a.queries.count * a.queries.channels + head) * a.queries.bytes;
        const int64_t key_at = ((key_images == 1 ? 0 : n) * a.keys.count * a.keys.channels + head) * key_bytes;
        h.q = (const char *)call->in[0] + at;
        h.k = (const char *)call->in[1] + key_at;
        h.v = (const char *)call->in[2] + key_at;
        h.out = (char *)call->out + at;
        mg_parallel_for(context->num_threads, a.keys.panels, pack_all_keys, &h);
        mg_parallel_for(context->num_threads, a.keys.steps, pack_all_values, &h);
        mg_parallel_for(context->num_threads, a.query_blocks, run_query_blocks, &h);
    }
}

const struct mg_cpu_driver mg_cpu_attention = {.run = attention_run, .workspace_bytes = attention_workspace};
