/* token_embedding.c: rows of a table chosen by token, plus rows of positions. At most a few hundred tokens: one thread. */
#include "../cpu.h"

/* Identifiers arrive as data, when nothing can be refused any more: what the table lacks must not be read. */
static int64_t row_of(float id, int64_t rows) {
    if (!(id > 0.0f))
        return 0;
    return id < (float)rows ? (int64_t)id < rows ? (int64_t)id : rows - 1 : rows - 1;
}

static void run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_cpu_kernels *kernels = mg_cpu_kernels_of(context);
    const struct mg_tensor *shape = &call->op->out;
    const float *ids = call->in[0], *table = call->in[1], *positions = call->in[2];
    float *out = call->out;
    int64_t tokens = shape->dim[2], c = shape->dim[3], rows = call->op->in[1].dim[0];
    for (int64_t i = 0; i < shape->dim[0] * tokens; i++)
        kernels->of[MG_CPU_F32].add(out + i * c, table + row_of(ids[i], rows) * c, positions + i % tokens * c, c);
}

const struct mg_cpu_driver mg_cpu_token_embedding = {.run = run};
