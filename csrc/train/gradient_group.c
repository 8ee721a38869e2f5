/* gradient_group.c: gradients in the memory of GPUs, one for each of several processes, summed over these. Calls the
 * backend. */
#include "trainer.h"

_Static_assert((int)MG_GRADIENT_GROUP_NAME == (int)MG_GROUP_NAME, "the name of a group is the backend's");

static mg_status check_device(const mg_trainer *trainer, struct mg_err *err) {
    const struct mg_context *context = &trainer->pipeline->context;
    if (context->backend->join)
        return MG_OK;
    return mg_fail(err, MG_ERR_UNSUPPORTED, "device \"%s\" leaves sums over processes to MPI", context->backend->name);
}

mg_status mg_trainer_name_group(char name[MG_GRADIENT_GROUP_NAME], const mg_trainer *trainer, struct mg_err *err) {
    MG_TRY(check_device(trainer, err));
    return trainer->pipeline->context.backend->group_name(name, err);
}

void mg_trainer_leave_group(mg_trainer *trainer) {
    const struct mg_context *context = &trainer->pipeline->context;
    if (trainer->group)
        context->backend->leave(context, trainer->group);
    trainer->group = NULL;
}

mg_status mg_trainer_join_group(mg_trainer *trainer, const char name[MG_GRADIENT_GROUP_NAME], int rank, int size,
                                struct mg_err *err) {
    const struct mg_context *context = &trainer->pipeline->context;
    MG_TRY(check_device(trainer, err));
    MG_TRY(mg_trainer_check_kept(trainer, err));
    MG_TRY(mg_pipeline_enter(trainer->pipeline, err));
    mg_trainer_leave_group(trainer);
    const mg_status status = context->backend->join(&trainer->group, context, name, rank, size, err);
    mg_pipeline_leave(trainer->pipeline);
    return status;
}

mg_status mg_trainer_sum_gradients(mg_trainer *trainer, struct mg_err *err) {
    const struct mg_context *context = &trainer->pipeline->context;
    const struct mg_weights *weights = trainer->weights;
    if (!trainer->group)
        return mg_fail(err, MG_ERR_ARGUMENT, "the trainer is in no group of processes");
    MG_TRY(mg_pipeline_enter(trainer->pipeline, err));
    const mg_status status =
        context->backend->sum(context, trainer->group, weights->gradients, weights->block_count, err);
    if (status != MG_OK)
        mg_trainer_leave_group(trainer);
    mg_pipeline_leave(trainer->pipeline);
    return status;
}
