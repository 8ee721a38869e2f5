/* attention.c: softmax(q k^T scale) v without the matrix of scores (online softmax, arXiv 1805.02867; tiled as in
 * FlashAttention, arXiv 2205.14135). Per image and head, keys are packed into panels of columns and values into panels of
 * channels, once; then blocks of queries run over blocks of keys with scores and partial sums in cache. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "../cpu.h"

enum { BLOCK_QUERIES = 96, BLOCK_KEYS = 512 };

struct attention {
    const struct mg_cpu_kernels *kernels;
    struct mg_attention params;
    int64_t channels, size; /* size: channels of one head */
    int64_t queries, keys;  /* of one image */
    int64_t panel, key_panels, value_panels, query_blocks;
    int64_t row; /* value_panels * panel: padded channels of the partial sums */
    size_t keys_floats, values_floats, scores_floats, sums_floats, thread_floats;
};

static struct attention attention_of(const struct mg_context *context, const struct mg_op_shape *op) {
    struct attention a = {.kernels = mg_cpu_kernels_of(context), .params = op->params.attention};
    a.channels = op->in[0].dim[3];
    a.size = a.channels / a.params.heads;
    a.queries = op->in[0].dim[1] * op->in[0].dim[2];
    a.keys = op->in[1].dim[1] * op->in[1].dim[2];
    a.panel = a.kernels->panel;
    a.key_panels = mg_ceil_div(a.keys, a.panel);
    a.value_panels = mg_ceil_div(a.size, a.panel);
    a.query_blocks = mg_ceil_div(a.queries, BLOCK_QUERIES);
    a.row = a.value_panels * a.panel;
    a.keys_floats = (size_t)(a.key_panels * a.size * a.panel);
    a.values_floats = (size_t)(a.value_panels * a.keys * a.panel);
    a.scores_floats = (size_t)BLOCK_QUERIES * BLOCK_KEYS;
    a.sums_floats = (size_t)(BLOCK_QUERIES * a.row);
    a.thread_floats = a.scores_floats + a.sums_floats + 3 * BLOCK_QUERIES;
    return a;
}

static size_t attention_workspace(const struct mg_context *context, const struct mg_op_shape *op) {
    struct attention a = attention_of(context, op);
    return mg_workspace_floats(a.thread_floats, (size_t)context->num_threads, a.keys_floats + a.values_floats);
}

/* packed[size][panel]: channel by channel, the keys of one panel side by side; zeros past the last key. */
static void pack_keys(const struct attention *a, const float *k, int64_t p, float *packed) {
    int64_t count = a->keys - p * a->panel < a->panel ? a->keys - p * a->panel : a->panel;
    packed += p * a->size * a->panel;
    memset(packed, 0, (size_t)(a->size * a->panel) * sizeof(float));
    for (int64_t j = 0; j < count; j++)
        for (int64_t c = 0; c < a->size; c++)
            packed[c * a->panel + j] = k[(p * a->panel + j) * a->channels + c];
}

/* packed[value_panels][keys][panel]; zeros past the last channel of the head. */
static void pack_values(const struct attention *a, const float *v, int64_t key, float *packed) {
    for (int64_t p = 0; p < a->value_panels; p++) {
        float *to = packed + (p * a->keys + key) * a->panel;
        int64_t count = a->size - p * a->panel < a->panel ? a->size - p * a->panel : a->panel;
        memcpy(to, v + key * a->channels + p * a->panel, (size_t)count * sizeof(float));
        memset(to + count, 0, (size_t)(a->panel - count) * sizeof(float));
    }
}

static void hide_later_keys(float *scores, int64_t query, int64_t rows, int64_t key, int64_t columns) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = query + i - key + 1 > 0 ? query + i - key + 1 : 0; j < columns; j++)
            scores[i * BLOCK_KEYS + j] = -INFINITY;
}

/* One block of queries against one block of keys, into the partial sums. */
static void run_key_block(const struct attention *a, const float *q, const float *keys, const float *values,
                          int64_t query, int64_t rows, int64_t key, float *scratch) {
    float *scores = scratch, *sums = scores + a->scores_floats;
    float *maximum = sums + a->sums_floats, *total = maximum + BLOCK_QUERIES, *correction = total + BLOCK_QUERIES;
    int64_t columns = a->keys - key < BLOCK_KEYS ? a->keys - key : BLOCK_KEYS;
    for (int64_t j = 0; j < columns; j += a->panel)
        a->kernels->gemm_panel(rows, a->size, q, a->channels, keys + (key + j) * a->size, scores + j, BLOCK_KEYS,
                               false);
    if (a->params.causal)
        hide_later_keys(scores, query, rows, key, columns);
    a->kernels->softmax_block(scores, BLOCK_KEYS, rows, columns, a->params.scale, maximum, total, correction);
    if (key > 0)
        for (int64_t i = 0; i < rows; i++)
            a->kernels->scale(sums + i * a->row, sums + i * a->row, correction[i], 0.0f, a->row);
    for (int64_t p = 0; p < a->value_panels; p++)
        a->kernels->gemm_panel(rows, columns, scores, BLOCK_KEYS, values + (p * a->keys + key) * a->panel,
                               sums + p * a->panel, a->row, key > 0);
}

static void run_query_block(const struct attention *a, const float *q, const float *keys, const float *values,
                            float *out, int64_t block, float *scratch) {
    int64_t query = block * BLOCK_QUERIES;
    int64_t rows = a->queries - query < BLOCK_QUERIES ? a->queries - query : BLOCK_QUERIES;
    float *sums = scratch + a->scores_floats, *maximum = sums + a->sums_floats, *total = maximum + BLOCK_QUERIES;
    for (int64_t i = 0; i < rows; i++) {
        maximum[i] = -INFINITY;
        total[i] = 0.0f;
    }
    /* Causal blocks of keys that lie wholly behind the last query have nothing to add. */
    int64_t end = a->params.causal && query + rows < a->keys ? query + rows : a->keys;
    for (int64_t key = 0; key < end; key += BLOCK_KEYS)
        run_key_block(a, q + query * a->channels, keys, values, query, rows, key, scratch);
    for (int64_t i = 0; i < rows; i++)
        a->kernels->scale(out + (query + i) * a->channels, sums + i * a->row, 1.0f / total[i], 0.0f, a->size);
}

static void attention_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct attention a = attention_of(context, call->op);
    float *keys = call->workspace, *values = keys + a.keys_floats, *scratch = values + a.values_floats;
    const int64_t images = call->op->in[0].dim[0], key_images = call->op->in[1].dim[0];
#pragma omp parallel num_threads(context->num_threads)
    {
        float *mine = scratch + (size_t)omp_get_thread_num() * a.thread_floats;
        for (int64_t job = 0; job < images * a.params.heads; job++) {
            int64_t n = job / a.params.heads, head = job % a.params.heads * a.size;
            int64_t at = n * a.queries * a.channels + head;
            int64_t key_at = (key_images == 1 ? 0 : n) * a.keys * a.channels + head;
            /* The implicit barriers keep the packed keys and values whole while any thread reads them. */
#pragma omp for schedule(static) nowait
            for (int64_t p = 0; p < a.key_panels; p++)
                pack_keys(&a, (const float *)call->in[1] + key_at, p, keys);
#pragma omp for schedule(static)
            for (int64_t key = 0; key < a.keys; key++)
                pack_values(&a, (const float *)call->in[2] + key_at, key, values);
#pragma omp for schedule(dynamic)
            for (int64_t block = 0; block < a.query_blocks; block++)
                run_query_block(&a, (const float *)call->in[0] + at, keys, values, (float *)call->out + at, block,
                                mine);
        }
    }
}

const struct mg_cpu_driver mg_cpu_attention = {.run = attention_run, .workspace_bytes = attention_workspace};
