/* attention_gradient.c: reference of the gradients of attention.
 *
 * With scores s = scale q k^T, p = softmax(s), o = p v and dy the gradient of o: the gradient of v is p^T dy, that of a score
 * p (dy v^T - dy o^T). Nothing as large as the scores is kept: a row of p follows from the logarithm of its sum. */
#include "../ref.h"

struct job {
    const struct mg_attention *p;
    const float *q, *k, *v, *dy, *rows;
    int64_t queries, keys, channels, size;
    bool shared; /* one image of keys and values for all of queries */
};

static struct job job_of(const struct mg_op_call *call) {
    const int64_t *q = call->op->in[0].dim, *k = call->op->in[1].dim;
    return (struct job){.p = &call->op->params.attention,
                        .q = call->in[0],
                        .k = call->in[1],
                        .v = call->in[2],
                        .dy = call->in[3],
                        .rows = call->in[4],
                        .queries = q[1] * q[2],
                        .keys = k[1] * k[2],
                        .channels = q[3],
                        .size = q[3] / call->op->params.attention.heads,
                        .shared = k[0] == 1};
}

static double dot(const float *a, const float *b, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* Where the channels of head h of query i, or key j, of image n begin. */
static int64_t query_at(const struct job *a, int64_t n, int64_t i, int64_t h) {
    return (n * a->queries + i) * a->channels + h * a->size;
}

static int64_t key_at(const struct job *a, int64_t n, int64_t j, int64_t h) {
    return ((a->shared ? 0 : n) * a->keys + j) * a->channels + h * a->size;
}

static int64_t keys_seen(const struct job *a, int64_t query) { return a->p->causal ? query + 1 : a->keys; }

void mg_ref_attention_rows(const struct mg_op_call *call) {
    struct job a = job_of(call);
    const float *output = call->in[2];
    const int64_t heads = a.p->heads;
    float *out = call->out;
    for (int64_t i = 0; i < call->op->in[0].dim[0] * a.queries; i++)
        for (int64_t h = 0; h < heads; h++) {
            const int64_t n = i / a.queries, query = i % a.queries, at = query_at(&a, n, query, h);
            double largest = -INFINITY, sum = 0;
            for (int64_t j = 0; j < keys_seen(&a, query); j++)
                largest = fmax(largest, a.p->scale * dot(a.q + at, a.k + key_at(&a, n, j, h), a.size));
            for (int64_t j = 0; j < keys_seen(&a, query); j++)
                sum += exp(a.p->scale * dot(a.q + at, a.k + key_at(&a, n, j, h), a.size) - largest);
            out[i * 2 * heads + h] = (float)(largest + log(sum));
            out[i * 2 * heads + heads + h] = (float)dot(a.dy + at, output + at, a.size);
        }
}

/* Probability and gradient of the score of query i and key j. */
static void score_gradient(double *probability, double *gradient, const struct job *a, int64_t n, int64_t i, int64_t j,
                           int64_t h) {
    const float *row = a->rows + (n * a->queries + i) * 2 * a->p->heads + h;
    const int64_t query = query_at(a, n, i, h), key = key_at(a, n, j, h);
    *probability = exp(a->p->scale * dot(a->q + query, a->k + key, a->size) - row[0]);
    *gradient = *probability * (dot(a->dy + query, a->v + key, a->size) - row[a->p->heads]);
}

enum { CHANNEL_BLOCK = 128 };

static int64_t block_of(int64_t left) { return left < CHANNEL_BLOCK ? left : CHANNEL_BLOCK; }

void mg_ref_attention_query_gradient(const struct mg_op_call *call) {
    const struct job a = job_of(call);
    float *out = call->out;
    for (int64_t i = 0; i < call->op->in[0].dim[0] * a.queries; i++)
        for (int64_t h = 0; h < a.p->heads; h++)
            for (int64_t begin = 0; begin < a.size; begin += CHANNEL_BLOCK) {
                const int64_t n = i / a.queries, query = i % a.queries, count = block_of(a.size - begin);
                double sum[CHANNEL_BLOCK] = {0}, probability, gradient;
                for (int64_t j = 0; j < keys_seen(&a, query); j++) {
                    score_gradient(&probability, &gradient, &a, n, query, j, h);
                    for (int64_t c = 0; c < count; c++)
                        sum[c] += gradient * a.p->scale * a.k[key_at(&a, n, j, h) + begin + c];
                }
                for (int64_t c = 0; c < count; c++)
                    out[query_at(&a, n, query, h) + begin + c] = (float)sum[c];
            }
}

/* Of one key: the queries of one image, or of all if they share it. */
static void of_key(float *out, const struct job *a, int64_t first, int64_t images, int64_t key, int64_t h,
                   int64_t begin, int64_t count) {
    double k[CHANNEL_BLOCK] = {0}, v[CHANNEL_BLOCK] = {0}, probability, gradient;
    for (int64_t n = first; n < first + images; n++)
        for (int64_t i = a->p->causal ? key : 0; i < a->queries; i++) {
            score_gradient(&probability, &gradient, a, n, i, key, h);
            for (int64_t c = 0; c < count; c++) {
                k[c] += gradient * a->p->scale * a->q[query_at(a, n, i, h) + begin + c];
                v[c] += probability * a->dy[query_at(a, n, i, h) + begin + c];
            }
        }
    for (int64_t c = 0; c < count; c++) {
        out[h * a->size + begin + c] = (float)k[c];
        out[a->channels + h * a->size + begin + c] = (float)v[c];
    }
}

void mg_ref_attention_key_value_gradient(const struct mg_op_call *call) {
    const struct job a = job_of(call);
    const int64_t images = call->op->in[0].dim[0], key_images = call->op->in[1].dim[0];
    for (int64_t j = 0; j < key_images * a.keys; j++)
        for (int64_t h = 0; h < a.p->heads; h++)
            for (int64_t begin = 0; begin < a.size; begin += CHANNEL_BLOCK)
                of_key((float *)call->out + j * 2 * a.channels, &a, j / a.keys, images / key_images, j % a.keys, h,
                       begin, block_of(a.size - begin));
}
