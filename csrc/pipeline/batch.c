/* batch.c: how many samples go through the UNet at a time. */
#include "run.h"

/* More do not occupy a GPU better. */
enum { MOST_CHOSEN = 32 };
/* Part of the free memory that is left to others: to recordings, the driver, and to what does not fit between blocks. */
enum { SPARED = 16 };

/* What the free memory and that of the context's activations, which is made anew, hold beside the weights. */
static mg_status largest_fitting(int64_t *out, const struct mg_run *run, struct mg_err *err) {
    mg_pipeline *pipe = run->pipeline;
    const struct mg_context *context = &pipe->context;
    const struct mg_stage_key one_key = mg_denoise_key(run, 1), two_key = mg_denoise_key(run, 2);
    struct mg_plan *plan;
    size_t free_bytes, one, two;
    /* The decoder comes after the loop: its weights and its activations are to be there before the rest is given away. */
    const struct mg_stage_key decoder = mg_decode_key(run);
    MG_TRY(mg_autoencode_reserve(pipe, &decoder, err));
    MG_TRY(mg_stage_plan(&plan, pipe, &one_key, err));
    MG_TRY(mg_stage_bytes(&one, pipe, &one_key, err));
    MG_TRY(mg_stage_bytes(&two, pipe, &two_key, err));
    MG_TRY(context->memory->available(&free_bytes, context, err));
    const size_t usable = free_bytes - free_bytes / SPARED + context->activation_bytes + context->workspace_bytes;
    const size_t more = usable > one && two > one ? (usable - one) / (two - one) : 0;
    *out = more < MOST_CHOSEN ? 1 + (int64_t)more : MOST_CHOSEN;
    return MG_OK;
}

/* The same number of batches of nearly equal size, so that the last one is no plan of its own. */
static int64_t even(int64_t samples, int64_t most) {
    const int64_t batches = (samples + most - 1) / most;
    return (samples + batches - 1) / batches;
}

/* The largest batch that fits. Fewer samples where memory lies in pieces. */
static mg_status choose(int64_t *out, struct mg_run *run, struct mg_err *err) {
    int64_t most;
    MG_TRY(largest_fitting(&most, run, err));
    for (;;) {
        struct mg_plan *plan;
        *out = even(run->samples, most);
        const struct mg_stage_key key = mg_denoise_key(run, *out);
        const mg_status status = mg_stage_plan(&plan, run->pipeline, &key, err);
        if (status != MG_ERR_MEMORY || *out == 1)
            return status;
        most = *out / 2;
    }
}

/* What is asked for; too much of it is told before anything is computed. */
static mg_status check(struct mg_run *run, int64_t batch, struct mg_err *err) {
    const struct mg_stage_key key = mg_denoise_key(run, batch);
    struct mg_plan *plan;
    struct mg_err reason = {0};
    const mg_status status = mg_stage_plan(&plan, run->pipeline, &key, &reason);
    if (status == MG_OK)
        return MG_OK;
    return status == MG_ERR_MEMORY
               ? mg_fail(err, status, "%s; batch_size is %lld: 0 chooses what fits", reason.message, (long long)batch)
               : mg_fail(err, status, "%s", reason.message);
}

mg_status mg_run_choose_batch(int64_t *out, struct mg_run *run, struct mg_err *err) {
    const int asked = run->params->batch_size;
    *out = asked < run->samples ? asked : run->samples;
    /* A processor's cores are busy with one sample. */
    if (!run->pipeline->context.memory || run->samples == 1) {
        *out = asked ? *out : 1;
        return MG_OK;
    }
    if (!asked)
        return choose(out, run, err);
    return *out > 1 ? check(run, *out, err) : MG_OK;
}
