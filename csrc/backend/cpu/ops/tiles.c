/* tiles.c: see tiles.h. Calls core/thread_pool.c. */
#include "tiles.h"

struct job {
    const struct mg_context *context;
    const struct mg_op_call *call;
    struct mg_tiling tiling;
    mg_tile_body *body;
};

static void run_some(const void *user, int64_t begin, int64_t end, int thread) {
    const struct job *job = user;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        job->body(job->context, job->call, mg_tile_at(&job->tiling, i));
}

void mg_run_tiles(const struct mg_context *context, const struct mg_op_call *call, struct mg_tiling tiling,
                  mg_tile_body *body) {
    const struct job job = {.context = context, .call = call, .tiling = tiling, .body = body};
    mg_parallel_for(context->num_threads, tiling.total, run_some, &job);
}
