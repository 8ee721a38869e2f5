/* self_attention_gradient.c: gradients of queries, keys and values together, where all have the same pixels (see
 * attention_gradient.c for those of a text): each score and each product dy v^T is computed once.
 *
 * An image and head is a task of one thread, as threads that read what others have just written wait for it where they do not
 * share a cache. Tasks that are left over (5 heads, 2 threads) are done by all threads together.
 * Per task the operands are packed once. Then slabs of queries, one after the other. First blocks of
 * queries: scores against all keys, their softmax, the gradient of the scores, and from it that of the queries; probabilities
 * and gradients of the scores of the whole slab are left in memory. Then blocks of keys: the slab's queries and dy, weighted
 * with these, are added to the gradients of keys and values. So sums are in the order of slabs, whatever the threads do.
 *
 * bfloat16: both operands of all five products are bfloat16 pairs (two channels, two keys, two queries); scores, softmax and sums
 * are float32. A "unit" is what a step multiplies: four bytes, a float or a pair. */
#include <math.h>
#include <string.h>

#include "../../../core/thread_pool.h"
#include "attention_panels.h"

enum {
    BLOCK_QUERIES = 24,
    SLAB_QUERIES = 4 * BLOCK_QUERIES,
    BLOCK_KEYS = 96,  /* of the second part */
    CHUNK_KEYS = 512, /* of the first: products of so many columns stay in cache */
    CHUNK_ROW = CHUNK_KEYS + 16
};

struct job {
    const struct mg_cpu_kernels *kernels;
    const struct mg_cpu_elements *elements;
    bool half;
    int64_t bytes; /* of an element */
    int64_t pixels, channels, size;
    struct mg_head_rows packing; /* of each operand */
    int64_t panel, channel_panels, chunks;
    int64_t ld; /* units or floats from one row of a slab to the next */
    float scale;
    int64_t tasks;
    int threads, areas; /* areas of memory that a task needs: one for each thread, or one that all share */
    size_t transposed, packed, sums, slab, area; /* bytes */
    size_t probabilities, products, rows, queries, line, thread;
};

static struct job job_of(const struct mg_context *context, const struct mg_op_shape *op) {
    const int64_t *dim = op->in[0].dim;
    struct job a = {.kernels = mg_cpu_kernels_of(context),
                    .elements = mg_cpu_elements_of(context, &op->in[0]),
                    .half = op->in[0].dtype == MG_BF16,
                    .bytes = (int64_t)mg_dtype_bytes(op->in[0].dtype),
                    .pixels = dim[1] * dim[2],
                    .channels = dim[3],
                    .size = dim[3] / op->params.attention.heads,
                    .scale = op->params.attention.scale,
                    .tasks = dim[0] * op->params.attention.heads,
                    .threads = context->num_threads};
    a.packing = mg_head_rows_of(context, &op->in[0], op->params.attention.heads, a.half);
    a.panel = a.packing.panel;
    a.channel_panels = a.packing.channel_panels;
    a.chunks = mg_ceil_div(a.pixels, CHUNK_KEYS);
    /* Rows a power of two apart would evict each other from the caches. */
    a.ld = a.packing.panels * a.panel + 16;
    a.transposed = mg_transposed_bytes(&a.packing);
    a.packed = mg_packed_bytes_of_rows(&a.packing);
    a.sums = mg_aligned_bytes(a.channel_panels * a.pixels * a.panel, sizeof(float));
    a.slab = mg_aligned_bytes((a.half ? SLAB_QUERIES / 2 : SLAB_QUERIES) * a.ld, 4);
    a.areas = a.tasks < a.threads ? 1 : a.threads;
    a.area = 2 * a.transposed + 3 * a.packed + 2 * a.sums + 2 * a.slab;
    a.probabilities = a.half ? mg_aligned_bytes(BLOCK_QUERIES * a.ld, sizeof(float)) : 0;
    a.products = mg_aligned_bytes(BLOCK_QUERIES * CHUNK_ROW, sizeof(float));
    a.rows = mg_aligned_bytes((4 + a.chunks) * BLOCK_QUERIES, sizeof(float));
    a.queries = mg_aligned_bytes(BLOCK_QUERIES * a.channel_panels * a.panel, sizeof(float));
    a.line = mg_line_bytes(&a.packing);
    /* The gradients of scores in rows of bfloat16; rows with an odd number of channels, completed. */
    a.thread = a.probabilities + a.products + a.rows + a.queries + a.line + (a.half ? a.products : 0) +
               2 * mg_aligned_bytes(BLOCK_QUERIES * a.packing.units, 4);
    return a;
}

static size_t workspace_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    const struct job a = job_of(context, op);
    size_t areas, threads, bytes;
    if (!mg_size_mul(&threads, a.thread, (size_t)a.threads) || !mg_size_mul(&areas, a.area, (size_t)a.areas) ||
        !mg_size_add(&bytes, areas, threads))
        return SIZE_MAX;
    return bytes;
}

/* Of one task. */
struct area {
    char *keys, *values;                            /* transposed[panels][units][panel]: meet queries, dy */
    char *packed_keys, *packed_queries, *packed_dy; /* [channel panels][steps][panel]: are summed */
    float *key_sums, *value_sums;                   /* [channel panels][pixels][panel] */
    char *probabilities, *gradients;                /* the slab: [queries or pairs of them][ld] */
};

static struct area area_of(const struct job *a, char *at) {
    struct area s = {.keys = at};
    s.values = at += a->transposed;
    s.packed_keys = at += a->transposed;
    s.packed_queries = at += a->packed;
    s.packed_dy = at += a->packed;
    s.key_sums = (float *)(at += a->packed);
    s.value_sums = (float *)(at += a->sums);
    s.probabilities = at += a->sums;
    s.gradients = at + a->slab;
    return s;
}

struct scratch {
    float *probabilities; /* bfloat16: a block of queries against all keys, before it is rounded */
    float *products;      /* dy v^T of one chunk of keys */
    float *largest, *total, *correction, *dots, *maxima; /* by row of the block; by chunk and row */
    float *queries;                                      /* sums of the gradient of queries */
    char *line;
    mg_bf16 *rounded;   /* bfloat16: gradients of the scores of one chunk */
    char *left, *right; /* rows of queries and dy, completed to whole units */
};

static struct scratch scratch_of(const struct job *a, char *at) {
    struct scratch s = {.probabilities = (float *)at};
    s.products = (float *)(at += a->probabilities);
    s.largest = (float *)(at += a->products);
    s.total = s.largest + BLOCK_QUERIES;
    s.correction = s.total + BLOCK_QUERIES;
    s.dots = s.correction + BLOCK_QUERIES;
    s.maxima = s.dots + BLOCK_QUERIES;
    s.queries = (float *)(at += a->rows);
    s.line = at += a->queries;
    s.left = at += a->line;
    s.right = at += mg_aligned_bytes(BLOCK_QUERIES * a->packing.units, 4);
    s.rounded = (mg_bf16 *)(at + mg_aligned_bytes(BLOCK_QUERIES * a->packing.units, 4));
    return s;
}

/* ---- blocks of queries ---- */

/* The block's rows where they lie, or completed to whole units. */
static const char *rows_of(const struct job *a, const char *x, int64_t first, int64_t count, char *completed,
                           int64_t *ld) {
    *ld = a->channels;
    if (a->size * a->bytes % 4 == 0)
        return mg_head_row(&a->packing, x, first);
    *ld = a->packing.units * 2;
    for (int64_t i = 0; i < count; i++)
        mg_load_head_row(&a->packing, completed + i * a->packing.units * 4, mg_head_row(&a->packing, x, first + i),
                         *ld);
    return completed;
}

/* rows times the transposed pixels of `count` columns from `begin` on. */
static void multiply(const struct job *a, const char *rows, int64_t lda, int64_t count, const char *transposed,
                     int64_t begin, int64_t columns, float *out, int64_t ldo) {
    const int64_t units = a->packing.units * a->panel; /* of a panel */
    const void *panel = transposed + begin * a->packing.units * 4;
    if (a->half)
        a->kernels->product_bf16(count, 2 * a->packing.units, mg_ceil_div(columns, a->panel), (const mg_bf16 *)rows,
                                 lda, panel, 2 * units, out, ldo, false);
    else
        for (int64_t p = 0; p * a->panel < columns; p++)
            a->kernels->product_f32(count, a->size, (const float *)rows, lda, (const float *)panel + p * units,
                                    out + p * a->panel, ldo, false);
}

/* Numbers that belong to rows: dy times the output, and what a chunk's exponentials are multiplied with to be
 * probabilities. */
static void finish_rows(const struct job *a, const char *y, const char *dy, int64_t first, int64_t count,
                        const struct scratch *s) {
    float *wide = (float *)s->line, *other = wide + a->channel_panels * a->panel;
    for (int64_t i = 0; i < count; i++) {
        a->elements->widen(wide, mg_head_row(&a->packing, y, first + i), a->size);
        a->elements->widen(other, mg_head_row(&a->packing, dy, first + i), a->size);
        s->dots[i] = 0.0f;
        for (int64_t c = 0; c < a->size; c++)
            s->dots[i] += wide[c] * other[c];
        for (int64_t chunk = 0; chunk < a->chunks; chunk++) {
            float *maximum = s->maxima + chunk * BLOCK_QUERIES + i;
            *maximum = expf(*maximum - s->largest[i]) / s->total[i];
        }
    }
}

/* What one chunk adds to the gradient of the block's queries; leaves probabilities and gradients of the scores in the slab,
 * at the block's first row. */
static void run_chunk(const struct job *a, const struct area *h, const struct scratch *s, const float *probabilities,
                      const char *dy, int64_t ld_dy, int64_t row, int64_t count, int64_t chunk) {
    const int64_t begin = chunk * CHUNK_KEYS, even = a->half ? 2 : 1;
    const int64_t columns = a->pixels - begin < CHUNK_KEYS ? a->pixels - begin : CHUNK_KEYS;
    const float *factors = s->maxima + chunk * BLOCK_QUERIES;
    const int64_t at = (row / even * a->ld + begin) * 4;
    multiply(a, dy, ld_dy, count, h->values, begin, columns, s->products, CHUNK_ROW);
    if (a->half)
        a->kernels->attention_gradient_half((uint32_t *)(h->probabilities + at), (uint32_t *)(h->gradients + at), a->ld,
                                            s->rounded, CHUNK_ROW, probabilities + begin, s->products, count, columns,
                                            a->scale, factors, s->dots);
    else
        a->kernels->attention_gradient((float *)(h->probabilities + at), (float *)(h->gradients + at), a->ld,
                                       s->products, CHUNK_ROW, count, columns, a->scale, factors, s->dots);
    const int64_t units = a->packing.steps * a->panel /* of a panel */, ldc = a->channel_panels * a->panel;
    const void *keys = h->packed_keys + begin / even * a->panel * 4;
    if (a->half)
        a->kernels->product_bf16(count, (columns + 1) / 2 * 2, a->channel_panels, s->rounded, CHUNK_ROW, keys,
                                 2 * units, s->queries, ldc, chunk > 0);
    else
        for (int64_t p = 0; p < a->channel_panels; p++)
            a->kernels->product_f32(count, columns, (const float *)(h->gradients + at), a->ld,
                                    (const float *)keys + p * units, s->queries + p * a->panel, ldc, chunk > 0);
}

/* The four rows of one image and head: queries, dy, the output; and where the gradient goes, 3 times as wide. */
struct head {
    const char *q, *dy, *y;
    char *out;
};

static void run_queries(const struct job *a, const struct area *h, const struct head *head, int64_t slab, int64_t block,
                        const struct scratch *s) {
    const int64_t row = block * BLOCK_QUERIES, first = slab * SLAB_QUERIES + row;
    const int64_t count = a->pixels - first < BLOCK_QUERIES ? a->pixels - first : BLOCK_QUERIES;
    float *probabilities = a->half ? s->probabilities : (float *)h->probabilities + row * a->ld;
    int64_t ld, ld_dy;
    const char *q = rows_of(a, head->q, first, count, s->left, &ld);
    const char *dy = rows_of(a, head->dy, first, count, s->right, &ld_dy);
    void (*const softmax)(float *, int64_t, int64_t, int64_t, float, float *, float *, float *) =
        a->half ? a->kernels->softmax_block_coarse : a->kernels->softmax_block;
    for (int64_t i = 0; i < count; i++) {
        s->largest[i] = -INFINITY;
        s->total[i] = 0.0f;
    }
    for (int64_t chunk = 0; chunk < a->chunks; chunk++) {
        const int64_t begin = chunk * CHUNK_KEYS;
        const int64_t columns = a->pixels - begin < CHUNK_KEYS ? a->pixels - begin : CHUNK_KEYS;
        multiply(a, q, ld, count, h->keys, begin, columns, probabilities + begin, a->ld);
        softmax(probabilities + begin, a->ld, count, columns, a->scale, s->largest, s->total, s->correction);
        memcpy(s->maxima + chunk * BLOCK_QUERIES, s->largest, (size_t)count * sizeof *s->largest);
    }
    finish_rows(a, head->y, head->dy, first, count, s);
    for (int64_t chunk = 0; chunk < a->chunks; chunk++)
        run_chunk(a, h, s, probabilities, dy, ld_dy, row, count, chunk);
    for (int64_t i = 0; i < count; i++)
        a->elements->narrow(head->out + (first + i) * 3 * a->channels * a->bytes,
                            s->queries + i * a->channel_panels * a->panel, a->size);
}

/* ---- blocks of keys: what the slab's queries add ---- */
static void run_keys(const struct job *a, const struct area *h, int64_t slab, int64_t block) {
    const int64_t key = block * BLOCK_KEYS, first = slab * SLAB_QUERIES;
    const int64_t keys = a->pixels - key < BLOCK_KEYS ? a->pixels - key : BLOCK_KEYS;
    const int64_t queries = a->pixels - first < SLAB_QUERIES ? a->pixels - first : SLAB_QUERIES;
    const int64_t steps = a->half ? (queries + 1) / 2 : queries, step = a->half ? first / 2 : first;
    const void *probabilities[SLAB_QUERIES], *gradients[SLAB_QUERIES];
    for (int64_t i = 0; i < steps; i++) {
        probabilities[i] = h->probabilities + i * a->ld * 4;
        gradients[i] = h->gradients + i * a->ld * 4;
    }
    for (int64_t p = 0; p < a->channel_panels; p++) {
        const int64_t from = (p * a->packing.steps + step) * a->panel * 4, to = (p * a->pixels + key) * a->panel;
        if (a->half) {
            a->kernels->product_pixels_half(keys, steps, gradients, key, h->packed_queries + from, h->key_sums + to);
            a->kernels->product_pixels_half(keys, steps, probabilities, key, h->packed_dy + from, h->value_sums + to);
        } else {
            a->kernels->product_pixels(keys, steps, gradients, key, h->packed_queries + from, h->key_sums + to);
            a->kernels->product_pixels(keys, steps, probabilities, key, h->packed_dy + from, h->value_sums + to);
        }
    }
}

static void store_keys(const struct job *a, const struct area *h, const struct head *head, int64_t pixel,
                       const struct scratch *s) {
    char *out = head->out + pixel * 3 * a->channels * a->bytes;
    for (int which = 0; which < 2; which++) {
        const float *sums = which ? h->value_sums : h->key_sums;
        float *row = (float *)s->line;
        for (int64_t p = 0; p < a->channel_panels; p++)
            memcpy(row + p * a->panel, sums + (p * a->pixels + pixel) * a->panel, (size_t)a->panel * sizeof *row);
        a->elements->narrow(out + (1 + which) * a->channels * a->bytes, row, a->size);
    }
}

/* ---- tasks ---- */

/* An image and head, and the threads that do it: all of the context's, or the one that has it for itself. */
struct task {
    const struct job *a;
    struct area area;
    struct head head;
    const char *k, *v;
    int threads, own_thread; /* own_thread: whose scratch it is if threads is 1 */
    char *scratch;           /* of all threads */
    int64_t slab;
};

static struct scratch own_scratch(const struct task *t, int thread) {
    return scratch_of(t->a, t->scratch + (size_t)(t->threads > 1 ? thread : t->own_thread) * t->a->thread);
}

static void transpose_panels(const void *user, int64_t begin, int64_t end, int thread) {
    const struct task *t = user;
    const struct scratch mine = own_scratch(t, thread);
    for (int64_t p = begin; p < end; p++) {
        mg_transpose_rows(&t->a->packing, t->k, p, t->area.keys, mine.line);
        mg_transpose_rows(&t->a->packing, t->v, p, t->area.values, mine.line);
    }
}

static void pack_steps(const void *user, int64_t begin, int64_t end, int thread) {
    const struct task *t = user;
    const struct scratch mine = own_scratch(t, thread);
    for (int64_t step = begin; step < end; step++) {
        mg_pack_step(&t->a->packing, t->k, step, t->area.packed_keys, mine.line);
        mg_pack_step(&t->a->packing, t->head.q, step, t->area.packed_queries, mine.line);
        mg_pack_step(&t->a->packing, t->head.dy, step, t->area.packed_dy, mine.line);
    }
}

static void clear_sums(const void *user, int64_t begin, int64_t end, int thread) {
    const struct task *t = user;
    const size_t bytes = (size_t)((end - begin) * t->a->panel) * sizeof(float);
    (void)thread;
    memset(t->area.key_sums + begin * t->a->panel, 0, bytes);
    memset(t->area.value_sums + begin * t->a->panel, 0, bytes);
}

static void run_query_blocks(const void *user, int64_t begin, int64_t end, int thread) {
    const struct task *t = user;
    const struct scratch mine = own_scratch(t, thread);
    for (int64_t block = begin; block < end; block++)
        run_queries(t->a, &t->area, &t->head, t->slab, block, &mine);
}

static void run_key_blocks(const void *user, int64_t begin, int64_t end, int thread) {
    const struct task *t = user;
    (void)thread;
    for (int64_t block = begin; block < end; block++)
        run_keys(t->a, &t->area, t->slab, block);
}

static void store_all_keys(const void *user, int64_t begin, int64_t end, int thread) {
    const struct task *t = user;
    const struct scratch mine = own_scratch(t, thread);
    for (int64_t pixel = begin; pixel < end; pixel++)
        store_keys(t->a, &t->area, &t->head, pixel, &mine);
}

static void run_task(struct task *t) {
    const struct job *a = t->a;
    const int64_t slabs = mg_ceil_div(a->pixels, SLAB_QUERIES);
    mg_parallel_for(t->threads, a->packing.panels, transpose_panels, t);
    mg_parallel_for(t->threads, a->packing.steps, pack_steps, t);
    mg_parallel_for(t->threads, a->channel_panels * a->pixels, clear_sums, t);
    for (t->slab = 0; t->slab < slabs; t->slab++) {
        const int64_t left = a->pixels - t->slab * SLAB_QUERIES, queries = left < SLAB_QUERIES ? left : SLAB_QUERIES;
        mg_parallel_for(t->threads, mg_ceil_div(queries, BLOCK_QUERIES), run_query_blocks, t);
        mg_parallel_for(t->threads, mg_ceil_div(a->pixels, BLOCK_KEYS), run_key_blocks, t);
    }
    mg_parallel_for(t->threads, a->pixels, store_all_keys, t);
}

struct all_tasks {
    const struct job *a;
    const struct mg_op_call *call;
};

/* Task `index` in memory area `area`. */
static struct task task_of(const struct all_tasks *all, int64_t index, int64_t area) {
    const struct mg_op_call *call = all->call;
    const struct job *a = all->a;
    const int64_t heads = call->op->params.attention.heads, image = a->pixels * a->channels;
    const int64_t n = index / heads, channel = index % heads * a->size, at = (n * image + channel) * a->bytes;
    return (struct task){.a = a,
                         .area = area_of(a, (char *)call->workspace + (size_t)area * a->area),
                         .head = {.q = (const char *)call->in[0] + at,
                                  .y = (const char *)call->in[3] + at,
                                  .dy = (const char *)call->in[4] + at,
                                  .out = (char *)call->out + (3 * n * image + channel) * a->bytes},
                         .k = (const char *)call->in[1] + at,
                         .v = (const char *)call->in[2] + at,
                         .threads = 1,
                         .own_thread = (int)area,
                         .scratch = (char *)call->workspace + (size_t)a->areas * a->area};
}

static void run_alone(const void *all, int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; i++) {
        struct task task = task_of(all, i, thread);
        run_task(&task);
    }
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct job a = job_of(context, call->op);
    const struct all_tasks all = {.a = &a, .call = call};
    const int64_t alone = a.areas > 1 ? a.tasks / a.threads * a.threads : 0;
    mg_parallel_for(a.threads, alone, run_alone, &all);
    for (int64_t i = alone; i < a.tasks; i++) {
        struct task task = task_of(&all, i, 0);
        task.threads = a.threads;
        run_task(&task);
    }
}

const struct mg_cpu_driver mg_cpu_self_attention_gradient = {.run = run, .workspace_bytes = workspace_bytes};
