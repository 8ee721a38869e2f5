/* token_embedding.c: reference of the embedding of tokens. */
#include "../ref.h"

/* An id outside the table is moved to its nearest row: ids are data, and running may not fail. */
static int64_t row_of(float id, int64_t rows) {
    if (!(id > 0))
        return 0;
    return id < (float)rows ? (int64_t)id : rows - 1;
}

void mg_ref_token_embedding(const struct mg_op_call *call) {
    const int64_t *out_dim = call->op->out.dim, tokens = out_dim[2], channels = out_dim[3];
    const int64_t rows = call->op->in[1].dim[0];
    const float *ids = call->in[0], *table = call->in[1], *positions = call->in[2];
    float *out = call->out;
    for (int64_t i = 0; i < out_dim[0] * tokens; i++)
        for (int64_t c = 0; c < channels; c++)
            out[i * channels + c] =
                (float)((double)table[row_of(ids[i], rows) * channels + c] + positions[i % tokens * channels + c]);
}
