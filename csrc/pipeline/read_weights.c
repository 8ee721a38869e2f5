/* read_weights.c: the weights of an opened pipeline as its checkpoint stores them, brought back into the order of diffusers'
 * layout: for whoever writes a packed file as a folder. Calls graph/weights. */
#include <string.h>

#include "pipeline.h"

/* Of a component by its name in a folder; NULL, with an error, for one that the pipeline has not opened. */
static const struct mg_weights *component_of(const mg_pipeline *pipeline, const char *name, struct mg_err *err) {
    const struct mg_weights *const all[] = {&pipeline->unet_weights, &pipeline->vae_weights,
                                            pipeline->boosting.is_open ? &pipeline->boosting.weights : NULL};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i] && !strcmp(all[i]->component, name))
            return all[i];
    mg_fail(err, MG_ERR_ARGUMENT, "the pipeline has no weights of a component \"%.60s\"", name);
    return NULL;
}

mg_status mg_pipeline_weights(mg_pipeline *pipeline, const char *component, mg_declared_weight_fn found, void *user,
                              struct mg_err *err) {
    MG_TRY(mg_pipeline_enter(pipeline, err));
    const struct mg_weights *weights = component_of(pipeline, component, err);
    for (size_t i = 0; weights && i < weights->count; i++)
        found(user, weights->list[i].key, weights->list[i].shape.dim, weights->list[i].shape.ndim);
    mg_pipeline_leave(pipeline);
    return weights ? MG_OK : MG_ERR_ARGUMENT;
}

/* Its index; -1, with an error, for a weight that is not there. */
static int index_of(const struct mg_weights *weights, const char *key, struct mg_err *err) {
    for (size_t i = 0; i < weights->count; i++)
        if (!strcmp(weights->list[i].key, key))
            return (int)i;
    mg_fail(err, MG_ERR_ARGUMENT, "\"%s\" has no weight \"%.200s\"", weights->component, key);
    return -1;
}

mg_status mg_pipeline_read_weight(float *out, mg_pipeline *pipeline, const char *component, const char *key,
                                  struct mg_err *err) {
    mg_status status = MG_ERR_ARGUMENT;
    MG_TRY(mg_pipeline_enter(pipeline, err));
    const struct mg_weights *weights = component_of(pipeline, component, err);
    const int index = weights ? index_of(weights, key, err) : -1;
    if (index >= 0)
        status = mg_weights_unpack(out, weights, index, pipeline->context.num_threads, err);
    mg_pipeline_leave(pipeline);
    return status;
}
