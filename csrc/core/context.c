/* context.c: the memory that all plans of one pipeline share, and the question whether to stop. */
#include "core.h"

void mg_context_note_peak(struct mg_context *context) {
    size_t sum = context->weights_mapped + context->weights_packed + context->activation_bytes +
                 context->workspace_bytes + context->training;
    if (sum > context->peak)
        context->peak = sum;
}

mg_status mg_context_alloc(void **out, const struct mg_context *context, size_t bytes, const char *what,
                           struct mg_err *err) {
    return context->memory ? context->memory->alloc(out, context, bytes, what, err) : mg_alloc(out, bytes, what, err);
}

void mg_context_free(const struct mg_context *context, void *block) {
    if (context->memory && block)
        context->memory->free(context, block);
    else
        mg_free(block);
}

mg_status mg_context_clear(const struct mg_context *context, void *block, size_t bytes, struct mg_err *err) {
    if (context->memory)
        return context->memory->clear(context, block, bytes, err);
    memset(block, 0, bytes);
    return MG_OK;
}

mg_status mg_context_upload(const struct mg_context *context, void *to, const void *host, size_t bytes,
                            struct mg_err *err) {
    if (context->memory)
        return context->memory->upload(context, to, host, bytes, err);
    memcpy(to, host, bytes);
    return MG_OK;
}

mg_status mg_context_download(const struct mg_context *context, void *host, const void *from, size_t bytes,
                              struct mg_err *err) {
    if (context->memory)
        return context->memory->download(context, host, from, bytes, err);
    memcpy(host, from, bytes);
    return MG_OK;
}

static mg_status grow(struct mg_context *context, void **block, size_t *bytes, size_t wanted, const char *what,
                      struct mg_err *err) {
    if (wanted <= *bytes)
        return MG_OK;
    mg_context_free(context, *block); /* first: the old and the new block need not fit in memory together */
    *block = NULL;
    *bytes = 0;
    MG_TRY(mg_context_alloc(block, context, wanted, what, err));
    *bytes = wanted;
    return MG_OK;
}

mg_status mg_context_reserve(struct mg_context *context, size_t activation_bytes, size_t workspace_bytes,
                             struct mg_err *err) {
    MG_TRY(grow(context, &context->activations, &context->activation_bytes, activation_bytes, "activations", err));
    MG_TRY(grow(context, &context->workspace, &context->workspace_bytes, workspace_bytes, "scratch of the operations",
                err));
    mg_context_note_peak(context);
    return MG_OK;
}

void mg_context_release(struct mg_context *context) {
    mg_context_free(context, context->activations);
    mg_context_free(context, context->workspace);
    context->activations = context->workspace = NULL;
    context->activation_bytes = context->workspace_bytes = 0;
}

mg_status mg_context_poll(const struct mg_context *context, struct mg_err *err) {
    if (context->poll && context->poll(context->poll_user))
        return mg_fail(err, MG_ERR_CANCELLED, "stopped on request");
    return MG_OK;
}
