/* cpu_backend.c: the CPU as a backend: chooses the kernels of an instruction set and hands each operation to its
 * driver in ops/. */
#include <stdio.h>
#include <string.h>

#include "ops/widened.h"

/* From the least to the most capable. */
static const struct mg_cpu_kernels *const kernel_tables[] = {
    &mg_cpu_kernels_scalar,
#if defined(__x86_64__)
    &mg_cpu_kernels_avx2,       &mg_cpu_kernels_avxvnni,    &mg_cpu_kernels_avx512,
    &mg_cpu_kernels_avx512vnni, &mg_cpu_kernels_avx512bf16, &mg_cpu_kernels_amx,
#elif defined(__aarch64__)
    &mg_cpu_kernels_neon,   &mg_cpu_kernels_neon_dotprod, &mg_cpu_kernels_neon_bf16, &mg_cpu_kernels_neon_i8mm,
#endif
};
enum { NUM_TABLES = sizeof kernel_tables / sizeof kernel_tables[0], LONGEST_NAME = 24 /* with what separates it */ };

static const struct mg_cpu_driver *const drivers[MG_OP_COUNT] = {
#define MG_OP(ID, name, inputs, required, alias, meaning) [MG_OP_##ID] = &mg_cpu_##name,
#include "../../op/ops.def"
#undef MG_OP
};

static mg_status refuse_isa(const char *isa, struct mg_err *err) {
    char available[NUM_TABLES * LONGEST_NAME] = "";
    size_t length = 0;
    for (int i = 0; i < NUM_TABLES; i++)
        if (mg_cpu_has(kernel_tables[i]->isa))
            length += (size_t)snprintf(available + length, sizeof available - length, "%s%s", length ? ", " : "",
                                       kernel_tables[i]->isa);
    return mg_fail(err, MG_ERR_DEVICE, "the instruction set \"%s\" is unknown, or this processor lacks it; it has: %s",
                   isa, available);
}

static void cpu_close(struct mg_context *context) {
    mg_free(context->backend_state);
    context->backend_state = NULL;
}

/* The context has a copy of the table, of which single kernels may be replaced. */
static mg_status take_kernels(struct mg_context *context, const struct mg_cpu_kernels *table, struct mg_err *err) {
    MG_TRY(mg_alloc(&context->backend_state, sizeof *table, "the table of kernels", err));
    memcpy(context->backend_state, table, sizeof *table);
    context->isa = table->isa;
    const mg_status status = mg_cpu_choose_blas(context->backend_state, err);
    if (status != MG_OK)
        cpu_close(context);
    return status;
}

static mg_status cpu_open(struct mg_context *context, const char *isa, struct mg_err *err) {
    const char *wanted = isa ? isa : mg_best_isa();
    for (int i = 0; i < NUM_TABLES; i++)
        if (!strcmp(kernel_tables[i]->isa, wanted) && mg_cpu_has(wanted))
            return take_kernels(context, kernel_tables[i], err);
    return refuse_isa(wanted, err);
}

static size_t cpu_workspace_bytes(const struct mg_context *context, const struct mg_op_shape *op) {
    const struct mg_cpu_driver *driver = drivers[op->kind];
    if (mg_is_widened(driver, op))
        return mg_widened_bytes(context, driver, op);
    return driver->workspace_bytes ? driver->workspace_bytes(context, op) : 0;
}

static size_t cpu_trailing_gap(const struct mg_context *context, const struct mg_op_shape *op) {
    const struct mg_cpu_driver *driver = drivers[op->kind];
    return driver->trailing_gap ? driver->trailing_gap(context, op) : 0;
}

static void cpu_run(const struct mg_context *context, const struct mg_op_call *call) {
    const struct mg_cpu_driver *driver = drivers[call->op->kind];
    if (mg_is_widened(driver, call->op))
        mg_widened_run(context, driver, call);
    else
        driver->run(context, call);
}

const struct mg_backend mg_backend_cpu = {
    .name = "cpu",
    .trains = true,
    .fuses_attention_gradient = true,
    .open = cpu_open,
    .close = cpu_close,
    .weight_layout = mg_cpu_weight_layout,
    .workspace_bytes = cpu_workspace_bytes,
    .trailing_gap = cpu_trailing_gap,
    .run = cpu_run,
    .adam = mg_cpu_adam,
    .sum_of_squares = mg_cpu_sum_of_squares,
    .average = mg_cpu_average,
    .measure = mg_cpu_measure,
};
