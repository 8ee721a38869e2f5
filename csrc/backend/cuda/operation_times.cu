/* operation_times.cu: how long each operation takes: MARIGOLD_CUDA_TIMES. Operations then run one by one, each waited for,
 * and a line of JSON tells its name, type, shapes and milliseconds between two events, the first of which the GPU
 * passes before the host has launched: a few microseconds a line are the launch's. */
#include <stdio.h>
#include <stdlib.h>

#include "device.cuh"

mg_status mg_cuda_open_times(struct mg_cuda_state *state, struct mg_err *err) {
    const char *path = getenv("MARIGOLD_CUDA_TIMES");
    if (!path || !*path)
        return MG_OK;
    for (cudaEvent_t &event : state->timed)
        MG_TRY(mg_cuda_check(cudaEventCreateWithFlags(&event, 0), "cudaEventCreate", err));
    state->times = fopen(path, "a");
    if (!state->times || setvbuf(state->times, NULL, _IOLBF, BUFSIZ)) /* whoever reads along sees whole lines */
        return mg_fail(err, MG_ERR_IO, "MARIGOLD_CUDA_TIMES: %s cannot be written", path);
    return MG_OK;
}

bool mg_cuda_close_times(struct mg_cuda_state *state) {
    bool failed = state->times && fclose(state->times);
    for (cudaEvent_t event : state->timed)
        failed |= event && cudaEventDestroy(event) != cudaSuccess;
    return !failed;
}

void mg_cuda_begin_time(struct mg_cuda_state *state) {
    mg_cuda_note(state, cudaEventRecord(state->timed[0], state->stream), "cudaEventRecord");
}

void mg_cuda_end_time(struct mg_cuda_state *state, const struct mg_op_shape *op) {
    float milliseconds = 0.0f;
    char shape[MG_SHAPE_TEXT];
    mg_cuda_note(state, cudaEventRecord(state->timed[1], state->stream), "cudaEventRecord");
    mg_cuda_note(state, cudaEventSynchronize(state->timed[1]), "or before it");
    if (state->fault == MG_OK)
        mg_cuda_note(state, cudaEventElapsedTime(&milliseconds, state->timed[0], state->timed[1]),
                     "cudaEventElapsedTime");
    if (state->fault != MG_OK)
        return;
    char line[(size_t)MG_MAX_INPUTS * (size_t)MG_SHAPE_TEXT + 512]; /* names are ours, and short */
    int length = snprintf(line, sizeof line, "{\"operation\": \"%s\", \"dtype\": \"%s\", \"in\": [", state->running,
                          mg_dtype_name(op->out.dtype));
    for (int i = 0; i < MG_MAX_INPUTS; i++)
        if (op->in[i].ndim)
            length += snprintf(line + length, sizeof line - (size_t)length, "%s%s", i ? ", " : "",
                               mg_shape_text(shape, op->in[i].ndim, op->in[i].dim));
    length += snprintf(line + length, sizeof line - (size_t)length, "], \"out\": %s, \"ms\": %.6f}\n",
                       mg_shape_text(shape, op->out.ndim, op->out.dim), (double)milliseconds);
    fwrite(line, 1, (size_t)length, state->times);
}
