/* registry.c: the backends of this build, by name. Called by marigold/pipeline; calls no backend. */
#include <stdio.h>
#include <string.h>

#include "backend.h"

static const struct mg_backend *const backends[] = {&mg_backend_cpu, &mg_backend_ref};
enum { NUM_BACKENDS = sizeof backends / sizeof backends[0] };

mg_status mg_backend_find(const struct mg_backend **out, const char *name, struct mg_err *err) {
    char known[256] = "";
    size_t length = 0;
    for (int i = 0; i < NUM_BACKENDS; i++) {
        if (!strcmp(backends[i]->name, name)) {
            *out = backends[i];
            return MG_OK;
        }
        length += (size_t)snprintf(known + length, sizeof known - length, "%s\"%s\"", i ? ", " : "", backends[i]->name);
    }
    return mg_fail(err, MG_ERR_DEVICE, "unknown device \"%s\"; this build has %s", name, known);
}
