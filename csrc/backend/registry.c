/* registry.c: the backends of this build, by name. Calls library.c for the one that is loaded on request. */
#include <stdio.h>
#include <string.h>

#include "backend.h"

static const struct mg_backend *const backends[] = {&mg_backend_cpu, &mg_backend_ref};
enum { NUM_BACKENDS = sizeof backends / sizeof backends[0], MAX_DEVICE = 999 };

/* "cuda" is 0, "cuda:1" is 1; -1: no such name. */
static int cuda_device(const char *name) {
    int device = 0, length = 0;
    if (!strcmp(name, "cuda"))
        return 0;
    if (sscanf(name, "cuda:%3d%n", &device, &length) != 1 || name[length] || device < 0 || device > MAX_DEVICE)
        return -1;
    return device;
}

mg_status mg_backend_find(const struct mg_backend **out, const char *name, struct mg_err *err) {
    char known[256] = "";
    size_t length = 0;
    for (int i = 0; i < NUM_BACKENDS; i++) {
        if (!strcmp(backends[i]->name, name)) {
            *out = backends[i];
            return MG_OK;
        }
        length += (size_t)snprintf(known + length, sizeof known - length, "\"%s\", ", backends[i]->name);
    }
    if (cuda_device(name) >= 0)
        return mg_cuda_library_load(out, err);
    return mg_fail(err, MG_ERR_DEVICE, "unknown device \"%.60s\"; known: %s\"cuda\", \"cuda:1\" and so on", name,
                   known);
}

mg_status mg_backend_open(struct mg_context *context, const char *device, const char *isa, struct mg_err *err) {
    const int number = cuda_device(device);
    context->device = number > 0 ? number : 0;
    MG_TRY(mg_backend_find(&context->backend, device, err));
    return context->backend->open(context, isa, err);
}
