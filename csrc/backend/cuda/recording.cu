/* recording.cu: lists of operations that run again and again, as CUDA graphs: launched at once, without the host in
 * between.  */
#include "device.cuh"

/* Only what this thread does on the stream becomes part of the graph; others may go on allocating. */
mg_status mg_cuda_record(bool *begun, const struct mg_context *context, struct mg_err *err) {
    struct mg_cuda_state *state = mg_cuda_state_of(context);
    *begun = state->graphs;
    if (!*begun)
        return MG_OK;
    MG_CUDA_USE_DEVICE(state->device, err);
    return mg_cuda_check(cudaStreamBeginCapture(state->stream, cudaStreamCaptureModeThreadLocal),
                         "cudaStreamBeginCapture", err);
}

mg_status mg_cuda_recorded(void **recording, const struct mg_context *context, struct mg_err *err) {
    struct mg_cuda_state *state = mg_cuda_state_of(context);
    const struct mg_cuda_device_guard guard(state->device);
    cudaGraph_t graph = NULL;
    cudaGraphExec_t launchable = NULL;
    mg_cuda_note(state, guard.status, "cudaSetDevice");
    /* In any case: what is captured no more is launched again. */
    mg_cuda_note(state, cudaStreamEndCapture(state->stream, &graph), "cudaStreamEndCapture");
    if (state->fault == MG_OK)
        mg_cuda_note(state, cudaGraphInstantiate(&launchable, graph, 0), "cudaGraphInstantiate");
    if (graph)
        mg_cuda_note(state, cudaGraphDestroy(graph), "cudaGraphDestroy");
    const mg_status status = mg_cuda_tell(state, err);
    if (status != MG_OK && launchable)
        mg_cuda_forget(context, launchable);
    *recording = status == MG_OK ? launchable : NULL;
    return status;
}

void mg_cuda_replay(const struct mg_context *context, void *recording) {
    struct mg_cuda_state *state = mg_cuda_state_of(context);
    const struct mg_cuda_device_guard guard(state->device);
    state->running = "recorded operations"; /* which of them failed, CUDA does not tell */
    mg_cuda_note(state, guard.status, "cudaSetDevice");
    mg_cuda_note(state, cudaGraphLaunch((cudaGraphExec_t)recording, state->stream), "cudaGraphLaunch");
}

/* A graph that cannot be destroyed belongs to a device that is lost. */
void mg_cuda_forget(const struct mg_context *context, void *recording) {
    const struct mg_cuda_device_guard guard(mg_cuda_state_of(context)->device);
    if (guard.status != cudaSuccess || cudaGraphExecDestroy((cudaGraphExec_t)recording) != cudaSuccess)
        (void)cudaGetLastError();
}
