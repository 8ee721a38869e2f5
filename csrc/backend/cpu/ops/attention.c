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
#include "../cpu.h"

/* SCORE_ROW: elements from one row of scores to the next, no power of two, or rows would evict each other from the first-level
 * cache. */
enum { BLOCK_QUERIES = 96, BLOCK_KEYS = 512, SCORE_ROW = BLOCK_KEYS + 16 };

struct attention {
    const struct mg_cpu_kernels *kernels;
    const struct mg_cpu_elements *elements;
    struct mg_attention params;
    bool half;                    /* bfloat16 products */
    mg_dtype type, key_type;      /* of queries; of keys and values */
    int64_t bytes;                /* of an element of the products */
    int64_t channels, size;       /* size: channels of one head */
    int64_t units;                /* four bytes each: of a query's or key's row, completed */
    int64_t queries, keys, steps; /* of one image; keys, or pairs of keys */
    int64_t panel, key_panels, value_panels, query_blocks;
    int64_t row;                                  /* value_panels * panel: padded channels of the partial sums */
    size_t packed_keys, packed_values;            /* bytes, shared */
    size_t scores, sums, line, completed, thread; /* bytes of a thread */
};

static struct attention attention_of(const struct mg_context *context, const struct mg_op_shape *op) {
    struct attention a = {.kernels = mg_cpu_kernels_of(context), .params = op->params.attention};
    a.elements = mg_cpu_elements_of(context, &op->in[0]);
    a.type = op->in[0].dtype;
    a.key_type = op->in[1].dtype;
    a.half = a.type == MG_BF16;
    a.bytes = a.half ? 2 : 4;
    a.channels = op->in[0].dim[3];
    a.size = a.channels / a.params.heads;
    a.units = mg_ceil_div(a.size * a.bytes, 4);
    a.queries = op->in[0].dim[1] * op->in[0].dim[2];
    a.keys = op->in[1].dim[1] * op->in[1].dim[2];
    a.steps = mg_ceil_div(a.keys * a.bytes, 4);
    a.panel = a.kernels->panel;
    a.key_panels = mg_ceil_div(a.keys, a.panel);
    a.value_panels = mg_ceil_div(a.size, a.panel);
    a.query_blocks = mg_ceil_div(a.queries, BLOCK_QUERIES);
    a.row = a.value_panels * a.panel;
    a.packed_keys = (size_t)(a.key_panels * a.units * a.panel) * 4;
    a.packed_values = (size_t)(a.value_panels * a.steps * a.panel) * 4;
    a.scores = (size_t)BLOCK_QUERIES * SCORE_ROW * sizeof(float);
    a.sums = (size_t)(BLOCK_QUERIES * a.row + 3 * BLOCK_QUERIES) * sizeof(float);
    a.line = (size_t)(2 * a.row) * sizeof(float);
    a.completed = a.half && a.size % 2 ? (size_t)(BLOCK_QUERIES * a.units) * 4 : 0;
    a.thread = a.scores + (a.half ? a.scores / 2 : 0) + a.sums + a.line + a.completed;
    a.thread = mg_aligned(a.thread);
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

/* One row of a head in the products' type, zeros up to `elements`. x: of type `type`. */
static void load_row(const struct attention *a, char *out, const char *x, mg_dtype type, int64_t elements) {
    if (!a->half || type == MG_BF16)
        memcpy(out, x, (size_t)(a->size * a->bytes));
    else
        a->elements->narrow(out, (const float *)x, a->size);
    memset(out + a->size * a->bytes, 0, (size_t)((elements - a->size) * a->bytes));
}

static const char *row_of(const struct attention *a, const char *head, int64_t index, mg_dtype type) {
    return head + index * a->channels * (int64_t)mg_dtype_bytes(type);
}

/* packed[units][panel]: four bytes of the keys of one panel side by side; zeros past the last key. */
static void pack_keys(const struct attention *a, const char *k, int64_t p, char *packed, char *line) {
    const int64_t count = a->keys - p * a->panel < a->panel ? a->keys - p * a->panel : a->panel;
    packed += p * a->units * a->panel * 4;
    memset(packed, 0, (size_t)(a->units * a->panel * 4));
    for (int64_t j = 0; j < count; j++) {
        load_row(a, line, row_of(a, k, p * a->panel + j, a->key_type), a->key_type, a->units * 4 / a->bytes);
        for (int64_t u = 0; u < a->units; u++)
            memcpy(packed + (u * a->panel + j) * 4, line + u * 4, 4);
    }
}

/* packed[value_panels][steps][panel]: floats of one key, or bfloat16 of two side by side; zeros past the last channel of the
 * head and past the last key. */
static void pack_values(const struct attention *a, const char *v, int64_t step, char *packed, char *line) {
    const int64_t key = a->half ? 2 * step : step;
    char *second = line + a->row * a->bytes;
    load_row(a, line, row_of(a, v, key, a->key_type), a->key_type, a->row);
    if (a->half && key + 1 < a->keys)
        load_row(a, second, row_of(a, v, key + 1, a->key_type), a->key_type, a->row);
    else
        memset(second, 0, (size_t)(a->row * a->bytes));
    for (int64_t p = 0; p < a->value_panels; p++) {
        char *to = packed + (p * a->steps + step) * a->panel * 4;
        const char *from = line + p * a->panel * a->bytes, *other = second + p * a->panel * a->bytes;
        if (!a->half)
            memcpy(to, from, (size_t)a->panel * 4);
        for (int64_t c = 0; a->half && c < a->panel; c++) {
            memcpy(to + 4 * c, from + 2 * c, 2);
            memcpy(to + 4 * c + 2, other + 2 * c, 2);
        }
    }
}

static void hide_later_keys(float *scores, int64_t query, int64_t rows, int64_t key, int64_t columns) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = query + i - key + 1 > 0 ? query + i - key + 1 : 0; j < columns; j++)
            scores[i * SCORE_ROW + j] = -INFINITY;
}

/* Scores of `rows` queries (at q, `ld` elements apart) with the keys of panel `p`. */
static void score(const struct attention *a, const void *q, int64_t ld, const char *keys, int64_t rows, int64_t p,
                  float *scores) {
    const char *panel = keys + p * a->units * a->panel * 4;
    if (a->half)
        a->kernels->product_bf16(rows, 2 * a->units, q, ld, (const mg_bf16 *)panel, scores, SCORE_ROW, false);
    else
        a->kernels->product_f32(rows, a->size, q, ld, (const float *)panel, scores, SCORE_ROW, false);
}

/* sums += probabilities of `columns` keys from `key` on (even) times their values. */
static void add_values(const struct attention *a, const struct scratch *s, const char *values, int64_t rows,
                       int64_t key, int64_t columns) {
    const int64_t first = a->half ? key / 2 : key, even = (columns + 1) / 2 * 2;
    for (int64_t p = 0; p < a->value_panels; p++) {
        const char *panel = values + (p * a->steps + first) * a->panel * 4;
        float *sums = s->sums + p * a->panel;
        if (a->half)
            a->kernels->product_bf16(rows, even, s->probabilities, SCORE_ROW, (const mg_bf16 *)panel, sums, a->row,
                                     key > 0);
        else
            a->kernels->product_f32(rows, columns, s->scores, SCORE_ROW, (const float *)panel, sums, a->row, key > 0);
    }
}

/* One block of queries against one block of keys, into the partial sums. */
static void run_key_block(const struct attention *a, const void *q, int64_t ld, const char *keys, const char *values,
                          int64_t query, int64_t rows, int64_t key, const struct scratch *s) {
    const int64_t columns = a->keys - key < BLOCK_KEYS ? a->keys - key : BLOCK_KEYS;
    for (int64_t j = 0; j < columns; j += a->panel)
        score(a, q, ld, keys, rows, (key + j) / a->panel, s->scores + j);
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
    const int64_t query = block * BLOCK_QUERIES;
    const int64_t rows = a->queries - query < BLOCK_QUERIES ? a->queries - query : BLOCK_QUERIES;
    const void *first = row_of(a, q, query, a->type);
    int64_t ld = a->channels;
    if (a->completed) {
        ld = a->units * 4 / a->bytes;
        for (int64_t i = 0; i < rows; i++)
            load_row(a, s->completed + i * a->units * 4, row_of(a, q, query + i, a->type), a->type, ld);
        first = s->completed;
    }
    for (int64_t i = 0; i < rows; i++) {
        s->maximum[i] = -INFINITY;
        s->total[i] = 0.0f;
    }
    /* Causal blocks of keys that lie wholly behind the last query have nothing to add. */
    const int64_t end = a->params.causal && query + rows < a->keys ? query + rows : a->keys;
    for (int64_t key = 0; key < end; key += BLOCK_KEYS)
        run_key_block(a, first, ld, keys, values, query, rows, key, s);
    for (int64_t i = 0; i < rows; i++) {
        float *sums = s->sums + i * a->row;
        a->kernels->of[MG_CPU_F32].scale(sums, sums, 1.0f / s->total[i], 0.0f, a->size);
        a->elements->narrow(out + (query + i) * a->channels * a->bytes, sums, a->size);
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
        pack_keys(h->a, h->k, p, h->keys, own_scratch(h, thread).line);
}

static void pack_all_values(const void *user, int64_t begin, int64_t end, int thread) {
    const struct head *h = user;
    for (int64_t step = begin; step < end; step++)
        pack_values(h->a, h->v, step, h->values, own_scratch(h, thread).line);
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
    const int64_t key_bytes = (int64_t)mg_dtype_bytes(a.key_type);
    struct head h = {.a = &a, .keys = call->workspace};
    h.values = h.keys + a.packed_keys;
    h.threads = h.values + a.packed_values;
    for (int64_t i = 0; i < images * a.params.heads; i++) {
        const int64_t n = i / a.params.heads, head = i % a.params.heads * a.size;
        const int64_t at = (n * a.queries * a.channels + head) * a.bytes;
        const int64_t key_at = ((key_images == 1 ? 0 : n) * a.keys * a.channels + head) * key_bytes;
        h.q = (const char *)call->in[0] + at;
        h.k = (const char *)call->in[1] + key_at;
        h.v = (const char *)call->in[2] + key_at;
        h.out = (char *)call->out + at;
        mg_parallel_for(context->num_threads, a.key_panels, pack_all_keys, &h);
        mg_parallel_for(context->num_threads, a.steps, pack_all_values, &h);
        mg_parallel_for(context->num_threads, a.query_blocks, run_query_blocks, &h);
    }
}

const struct mg_cpu_driver mg_cpu_attention = {.run = attention_run, .workspace_bytes = attention_workspace};
