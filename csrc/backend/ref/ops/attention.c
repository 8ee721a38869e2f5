/* attention.c: reference of scaled dot-product attention. */
#include "../ref.h"

/* One head of one query: `keys` rows of k and v, `stride` apart, of which `size` channels belong to the head. */
struct head {
    const float *q, *k, *v;
    int64_t keys, size, stride;
    double scale;
};

static double score(const struct head *head, int64_t key) {
    double sum = 0;
    for (int64_t c = 0; c < head->size; c++)
        sum += (double)head->q[c] * head->k[key * head->stride + c];
    return sum * head->scale;
}

/* Scores are computed anew in each pass: the specification needs no memory that grows with the number of keys. */
enum { CHANNEL_BLOCK = 128 };

static void attend(float *out, const struct head *head) {
    double largest = -INFINITY, total = 0;
    for (int64_t key = 0; key < head->keys; key++)
        largest = fmax(largest, score(head, key));
    for (int64_t key = 0; key < head->keys; key++)
        total += exp(score(head, key) - largest);
    for (int64_t begin = 0; begin < head->size; begin += CHANNEL_BLOCK) {
        int64_t count = head->size - begin < CHANNEL_BLOCK ? head->size - begin : CHANNEL_BLOCK;
        double sum[CHANNEL_BLOCK] = {0};
        for (int64_t key = 0; key < head->keys; key++) {
            double probability = exp(score(head, key) - largest) / total;
            for (int64_t c = 0; c < count; c++)
                sum[c] += probability * head->v[key * head->stride + begin + c];
        }
        for (int64_t c = 0; c < count; c++)
            out[begin + c] = (float)sum[c];
    }
}

void mg_ref_attention(const struct mg_op_call *call) {
    const struct mg_op_shape *op = call->op;
    const struct mg_attention *p = &op->params.attention;
    const int64_t channels = op->in[0].dim[3], size = channels / p->heads;
    const int64_t queries = op->in[0].dim[1] * op->in[0].dim[2], keys = op->in[1].dim[1] * op->in[1].dim[2];
    const float *q = call->in[0], *k = call->in[1], *v = call->in[2];
    float *out = call->out;
    for (int64_t n = 0; n < op->in[0].dim[0]; n++)
        for (int64_t query = 0; query < queries; query++)
            for (int64_t h = 0; h < p->heads; h++) {
                int64_t at = (n * queries + query) * channels + h * size;
                int64_t image = (op->in[1].dim[0] > 1 ? n * keys * channels : 0) + h * size;
                struct head head = {.q = q + at,
                                    .k = k + image,
                                    .v = v + image,
                                    .size = size,
                                    .stride = channels,
                                    .keys = p->causal ? query + 1 : keys,
                                    .scale = p->scale};
                attend(out + at, &head);
            }
}
