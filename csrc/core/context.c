/* context.c: the memory that all plans of one pipeline share, and the question whether to stop.
 * Called by graph/executor and marigold/pipeline. */
#include "core.h"

void mg_context_note_peak(struct mg_context *context) {
    size_t sum =
        context->weights_mapped + context->weights_packed + context->activation_bytes + context->workspace_bytes;
    if (sum > context->peak)
        context->peak = sum;
}

static mg_status grow(void **block, size_t *bytes, size_t wanted, const char *what, struct mg_err *err) {
    if (wanted <= *bytes)
        return MG_OK;
    mg_free(*block); /* first: the old and the new block need not fit in memory together */
    *block = NULL;
    *bytes = 0;
    MG_TRY(mg_alloc(block, wanted, what, err));
    *bytes = wanted;
    return MG_OK;
}

mg_status mg_context_reserve(struct mg_context *context, size_t activation_bytes, size_t workspace_bytes,
                             struct mg_err *err) {
    MG_TRY(grow(&context->activations, &context->activation_bytes, activation_bytes, "activations", err));
    MG_TRY(grow(&context->workspace, &context->workspace_bytes, workspace_bytes, "scratch of the operations", err));
    mg_context_note_peak(context);
    return MG_OK;
}

void mg_context_release(struct mg_context *context) {
    mg_free(context->activations);
    mg_free(context->workspace);
    context->activations = context->workspace = NULL;
    context->activation_bytes = context->workspace_bytes = 0;
}

mg_status mg_context_poll(const struct mg_context *context, struct mg_err *err) {
    if (context->poll && context->poll(context->poll_user))
        return mg_fail(err, MG_ERR_CANCELLED, "stopped on request");
    return MG_OK;
}
