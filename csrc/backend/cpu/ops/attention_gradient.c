/* attention_gradient.c: gradients of attention without the matrix of scores (arXiv 2205.14135): the logarithm of each row's sum
 * of exponentials is found once (attention_rows), from it a block of probabilities is computed again whenever it is needed.
 *
 * Both gradients have the same form. `rows` (a block of queries, or of keys) meet `columns` (all keys, or all queries) in
 * blocks: scores and dy v^T by products with the columns' transposed panels; then products of what became of them with the
 * columns as they lie, in panels of channels. Per image and head the columns are packed once, for all threads. */
#include <math.h>
#include <string.h>

#include "../../../core/thread_pool.h"
#include "attention_panels.h"

enum { BLOCK_ROWS = 96, BLOCK_COLUMNS = 256, SCORE_ROW = BLOCK_COLUMNS + 16 };

struct job {
    const struct mg_cpu_kernels *kernels;
    struct mg_attention params;
    bool of_keys; /* rows are keys and values, columns queries and dy */
    int64_t channels, size, panel;
    int64_t rows, columns, row_blocks, channel_panels;
    struct mg_head_rows packing;       /* of the columns */
    size_t transposed, packed;         /* bytes of the columns of a head, each of them twice */
    size_t scores, sums, line, thread; /* bytes of a thread */
};

static struct job job_of(const struct mg_context *context, const struct mg_op_shape *op) {
    const int64_t *q = op->in[0].dim, *k = op->in[1].dim, queries = q[1] * q[2], keys = k[1] * k[2];
    struct job a = {.kernels = mg_cpu_kernels_of(context),
                    .params = op->params.attention,
                    .of_keys = op->kind == MG_OP_ATTENTION_KEY_VALUE_GRADIENT,
                    .channels = q[3],
                    .size = q[3] / op->params.attention.heads};
    a.panel = a.kernels->panel;
    a.rows = a.of_keys ? keys : queries;
    a.columns = a.of_keys ? queries : keys;
    a.row_blocks = mg_ceil_div(a.rows, BLOCK_ROWS);
    a.packing = mg_head_rows_of(context, &op->in[a.of_keys ? 0 : 1], a.params.heads, false);
    a.channel_panels = a.packing.channel_panels;
    a.transposed = mg_transposed_bytes(&a.packing);
    a.packed = mg_packed_bytes_of_rows(&a.packing);
    a.line = mg_line_bytes(&a.packing);
    a.scores = mg_aligned_bytes(BLOCK_ROWS * SCORE_ROW, sizeof(float));
    a.sums = mg_aligned_bytes(BLOCK_ROWS * a.channel_panels * a.panel, sizeof(float));
    /* Two blocks of scores, transposed for keys; two sums; log sums and dots of rows, of columns; a row while it is packed. */
    a.thread = 2 * a.scores + 2 * a.sums + a.line + mg_aligned_bytes(2 * BLOCK_ROWS + 2 * BLOCK_COLUMNS, sizeof(float));
    return a;
}

static size_t workspace_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    const struct job a = job_of(context, op);
    size_t bytes;
    if (!mg_size_mul(&bytes, a.thread, (size_t)context->num_threads) ||
        !mg_size_add(&bytes, bytes, 2 * (a.transposed + a.packed)))
        return SIZE_MAX;
    return bytes;
}

/* ---- one block of rows ---- */
struct scratch {
    float *scores, *products, *first, *second, *line, *row_values, *column_values;
};

static struct scratch scratch_of(const struct job *a, char *at) {
    struct scratch s = {.scores = (float *)at, .products = (float *)(at + a->scores)};
    s.first = (float *)(at + 2 * a->scores);
    s.second = (float *)(at + 2 * a->scores + a->sums);
    s.line = (float *)(at + 2 * a->scores + 2 * a->sums);
    s.row_values = (float *)(at + 2 * a->scores + 2 * a->sums + a->line);
    s.column_values = s.row_values + 2 * BLOCK_ROWS;
    return s;
}

/* The columns of one image and head, packed. */
struct columns {
    const float *left, *right;               /* transposed: meet the rows' left (q or k), right (dy or v) */
    const float *packed_left, *packed_right; /* k for queries; q and dy for keys */
};

/* scores or products of `rows` rows with columns begin .. begin+count. */
static void multiply(const struct job *a, const float *x, int64_t rows, const float *transposed, int64_t begin,
                     int64_t count, float *out) {
    for (int64_t j = 0; j < count; j += a->panel)
        a->kernels->product_f32(rows, a->size, x, a->channels, transposed + (begin + j) * a->size, out + j, SCORE_ROW,
                                false);
}

/* sums += weights of `count` columns from `begin` on times these columns. */
static void gather(const struct job *a, const float *weights, int64_t rows, const float *packed, int64_t begin,
                   int64_t count, float *sums) {
    for (int64_t p = 0; p < a->channel_panels; p++)
        a->kernels->product_f32(rows, count, weights, SCORE_ROW, packed + (p * a->columns + begin) * a->panel,
                                sums + p * a->panel, a->channel_panels * a->panel, true);
}

/* Log sums and dots of queries first .. first+count of one head, side by side. */
static void load_rows(const struct job *a, const float *rows, int64_t first, int64_t count, int64_t head, float *out,
                      int64_t stride) {
    const int64_t heads = a->params.heads;
    for (int64_t i = 0; i < count; i++) {
        out[i] = rows[(first + i) * 2 * heads + head];
        out[stride + i] = rows[(first + i) * 2 * heads + heads + head];
    }
}

/* Probabilities and gradients of key j for query i < j are 0. */
static void hide_later_keys(const struct job *a, const struct scratch *s, int64_t row, int64_t rows, int64_t column,
                            int64_t columns) {
    for (int64_t i = 0; a->params.causal && i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            if (a->of_keys ? row + i > column + j : column + j > row + i)
                s->scores[i * SCORE_ROW + j] = s->products[i * SCORE_ROW + j] = 0.0f;
}

/* left, right: the rows' q and dy, or k and v; rows: attention_rows of the image. */
static void run_block(const struct job *a, const float *left, const float *right, const float *rows, int64_t head,
                      const struct columns *columns, int64_t block, bool accumulate, float *out, int64_t ldo,
                      const struct scratch *s) {
    const int64_t first = block * BLOCK_ROWS, count = a->rows - first < BLOCK_ROWS ? a->rows - first : BLOCK_ROWS;
    const int64_t ld = a->channel_panels * a->panel;
    memset(s->first, 0, 2 * a->sums);
    if (!a->of_keys)
        load_rows(a, rows, first, count, head, s->row_values, BLOCK_ROWS);
    for (int64_t begin = 0; begin < a->columns; begin += BLOCK_COLUMNS) {
        const int64_t some = a->columns - begin < BLOCK_COLUMNS ? a->columns - begin : BLOCK_COLUMNS;
        if (a->of_keys)
            load_rows(a, rows, begin, some, head, s->column_values, BLOCK_COLUMNS);
        multiply(a, left + first * a->channels, count, columns->left, begin, some, s->scores);
        multiply(a, right + first * a->channels, count, columns->right, begin, some, s->products);
        const float *values = a->of_keys ? s->column_values : s->row_values;
        a->kernels->score_gradient(s->scores, s->products, SCORE_ROW, count, some, a->params.scale, values,
                                   values + (a->of_keys ? BLOCK_COLUMNS : BLOCK_ROWS), a->of_keys);
        hide_later_keys(a, s, first, count, begin, some);
        gather(a, s->products, count, columns->packed_left, begin, some, s->first);
        if (a->of_keys)
            gather(a, s->scores, count, columns->packed_right, begin, some, s->second);
    }
    for (int64_t i = 0; i < count; i++)
        for (int which = 0; which < 1 + a->of_keys; which++) {
            const float *sums = (which ? s->second : s->first) + i * ld;
            float *to = out + (first + i) * ldo + which * a->channels;
            if (accumulate)
                a->kernels->of[MG_CPU_F32].add(to, to, sums, a->size);
            else
                memcpy(to, sums, (size_t)a->size * sizeof *to);
        }
}

/* ---- all images and heads, one after the other; threads share the blocks ---- */
struct head {
    const struct job *a;
    int64_t index;
    const float *left, *right; /* of the rows: q and dy, or k and v */
    const float *column_left, *column_right, *rows;
    float *out;
    int64_t ldo;
    bool accumulate;
    struct columns columns;
    float *packed_left, *packed_right, *transposed_left, *transposed_right; /* the same, to be written */
    char *threads;
};

/* The columns of some panels, in both orders. */
static void pack_panels(const void *user, int64_t begin, int64_t end, int thread) {
    const struct head *h = user;
    const struct mg_head_rows *columns = &h->a->packing;
    float *line = scratch_of(h->a, h->threads + (size_t)thread * h->a->thread).line;
    for (int64_t p = begin; p < end; p++) {
        mg_transpose_rows(columns, h->column_left, p, h->transposed_left, line);
        mg_transpose_rows(columns, h->column_right, p, h->transposed_right, line);
        for (int64_t i = p * columns->panel; i < columns->count && i < (p + 1) * columns->panel; i++) {
            mg_pack_step(columns, h->column_left, i, h->packed_left, line);
            if (h->a->of_keys)
                mg_pack_step(columns, h->column_right, i, h->packed_right, line);
        }
    }
}

static void run_blocks(const void *user, int64_t begin, int64_t end, int thread) {
    const struct head *h = user;
    const struct scratch mine = scratch_of(h->a, h->threads + (size_t)thread * h->a->thread);
    for (int64_t block = begin; block < end; block++)
        run_block(h->a, h->left, h->right, h->rows, h->index, &h->columns, block, h->accumulate, h->out, h->ldo, &mine);
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct job a = job_of(context, call->op);
    const int64_t *q = call->op->in[0].dim, *k = call->op->in[1].dim, heads = a.params.heads;
    const int64_t query_image = q[1] * q[2] * q[3], key_image = k[0] == 1 ? 0 : k[1] * k[2] * k[3];
    char *at = call->workspace;
    struct head h = {.a = &a, .ldo = a.of_keys ? 2 * a.channels : a.channels};
    h.transposed_left = (float *)at;
    h.transposed_right = (float *)(at += a.transposed);
    h.packed_left = (float *)(at += a.transposed);
    h.packed_right = (float *)(at += a.packed);
    h.threads = at + a.packed;
    h.columns = (struct columns){h.transposed_left, h.transposed_right, h.packed_left, h.packed_right};
    for (int64_t i = 0; i < q[0] * heads; i++) {
        const int64_t n = i / heads, channel = i % heads * a.size;
        const float *query = (const float *)call->in[0] + n * query_image + channel;
        const float *dy = (const float *)call->in[3] + n * query_image + channel;
        const float *key = (const float *)call->in[1] + n * key_image + channel;
        const float *value = (const float *)call->in[2] + n * key_image + channel;
        h.index = i % heads;
        h.left = a.of_keys ? key : query;
        h.right = a.of_keys ? value : dy;
        h.column_left = a.of_keys ? query : key;
        h.column_right = a.of_keys ? dy : value;
        h.rows = (const float *)call->in[4] + n * q[1] * q[2] * 2 * heads;
        h.out = (float *)call->out + channel + n * (a.of_keys ? 2 * key_image : query_image);
        h.accumulate = a.of_keys && k[0] == 1 && n > 0;
        mg_parallel_for(context->num_threads, a.packing.panels, pack_panels, &h);
        mg_parallel_for(context->num_threads, a.row_blocks, run_blocks, &h);
    }
}

const struct mg_cpu_driver mg_cpu_attention_query_gradient = {
    .run = run, .workspace_bytes = workspace_bytes, .widened = true};
const struct mg_cpu_driver mg_cpu_attention_key_value_gradient = {
    .run = run, .workspace_bytes = workspace_bytes, .widened = true};

/* ---- rows: running maximum and sum, as in attention.c ---- */
static size_t rows_workspace(const struct mg_context *context, const struct mg_op_shape *op) {
    const struct job a = job_of(context, op);
    size_t bytes;
    if (!mg_size_mul(&bytes, a.thread + mg_aligned_bytes(3 * BLOCK_ROWS, sizeof(float)),
                     (size_t)context->num_threads) ||
        !mg_size_add(&bytes, bytes, a.transposed))
        return SIZE_MAX;
    return bytes;
}

static void rows_of_block(const struct job *a, const struct mg_op_call *call, const float *q, int64_t at, int64_t head,
                          const float *keys, int64_t block, float *scores, float *running) {
    const int64_t first = block * BLOCK_ROWS, count = a->rows - first < BLOCK_ROWS ? a->rows - first : BLOCK_ROWS;
    float *largest = running, *total = running + BLOCK_ROWS, *correction = running + 2 * BLOCK_ROWS;
    for (int64_t i = 0; i < count; i++) {
        largest[i] = -INFINITY;
        total[i] = 0.0f;
    }
    const int64_t end = a->params.causal && first + count < a->columns ? first + count : a->columns;
    for (int64_t begin = 0; begin < end; begin += BLOCK_COLUMNS) {
        const int64_t some = end - begin < BLOCK_COLUMNS ? end - begin : BLOCK_COLUMNS;
        multiply(a, q + first * a->channels, count, keys, begin, some, scores);
        for (int64_t i = 0; a->params.causal && i < count; i++)
            for (int64_t j = first + i + 1 > begin ? first + i + 1 - begin : 0; j < some; j++)
                scores[i * SCORE_ROW + j] = -INFINITY;
        a->kernels->softmax_block(scores, SCORE_ROW, count, some, a->params.scale, largest, total, correction);
    }
    for (int64_t i = 0; i < count; i++) {
        const int64_t pixel = at + first + i;
        const float *y = (const float *)call->in[2] + pixel * a->channels + head * a->size;
        const float *dy = (const float *)call->in[3] + pixel * a->channels + head * a->size;
        float *out = (float *)call->out + pixel * 2 * a->params.heads + head, dot = 0.0f;
        for (int64_t c = 0; c < a->size; c++)
            dot += y[c] * dy[c];
        out[0] = largest[i] + logf(total[i]);
        out[a->params.heads] = dot;
    }
}

struct rows_head {
    const struct job *a;
    const struct mg_op_call *call;
    int64_t index, first_pixel;
    const float *q, *k;
    float *keys;
    char *threads;
};

static char *own_memory(const struct rows_head *h, int thread) {
    return h->threads + (size_t)thread * (h->a->thread + mg_aligned_bytes(3 * BLOCK_ROWS, sizeof(float)));
}

static void transpose_panels(const void *user, int64_t begin, int64_t end, int thread) {
    const struct rows_head *h = user;
    float *line = scratch_of(h->a, own_memory(h, thread)).line;
    for (int64_t p = begin; p < end; p++)
        mg_transpose_rows(&h->a->packing, h->k, p, h->keys, line);
}

static void rows_of_blocks(const void *user, int64_t begin, int64_t end, int thread) {
    const struct rows_head *h = user;
    char *mine = own_memory(h, thread);
    for (int64_t block = begin; block < end; block++)
        rows_of_block(h->a, h->call, h->q, h->first_pixel, h->index, h->keys, block, (float *)mine,
                      (float *)(mine + h->a->thread));
}

static void rows_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct job a = job_of(context, call->op);
    const int64_t *k = call->op->in[1].dim, heads = a.params.heads;
    const int64_t key_image = k[0] == 1 ? 0 : k[1] * k[2] * k[3];
    struct rows_head h = {
        .a = &a, .call = call, .keys = call->workspace, .threads = (char *)call->workspace + a.transposed};
    for (int64_t i = 0; i < call->op->in[0].dim[0] * heads; i++) {
        const int64_t n = i / heads, channel = i % heads * a.size;
        h.index = i % heads;
        h.first_pixel = n * a.rows;
        h.q = (const float *)call->in[0] + n * a.rows * a.channels + channel;
        h.k = (const float *)call->in[1] + n * key_image + channel;
        mg_parallel_for(context->num_threads, a.packing.panels, transpose_panels, &h);
        mg_parallel_for(context->num_threads, a.row_blocks, rows_of_blocks, &h);
    }
}

const struct mg_cpu_driver mg_cpu_attention_rows = {
    .run = rows_run, .workspace_bytes = rows_workspace, .widened = true};
