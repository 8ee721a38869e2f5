/* library.c: loads the CUDA backend, a shared object of its own, so that the engine runs where there is no CUDA. Calls
 * the dynamic linker. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "library.h"

#define LIBRARY_NAME "libmarigold_cuda.so"

/* Beside the file that this code is in. */
static mg_status find_library(char *out, size_t bytes, struct mg_err *err) {
    const char *named = getenv("MARIGOLD_CUDA_LIBRARY");
    Dl_info self;
    int length;
    if (named && *named)
        length = snprintf(out, bytes, "%s", named);
    else if (dladdr((const void *)&mg_backend_cpu, &self) && self.dli_fname) {
        const char *slash = strrchr(self.dli_fname, '/');
        length =
            snprintf(out, bytes, "%.*s%s", slash ? (int)(slash - self.dli_fname + 1) : 0, self.dli_fname, LIBRARY_NAME);
    } else
        return mg_fail(err, MG_ERR_DEVICE, "device \"cuda\": the folder of the engine cannot be found");
    if (length < 0 || (size_t)length >= bytes)
        return mg_fail(err, MG_ERR_DEVICE, "device \"cuda\": the path of " LIBRARY_NAME " is too long");
    return MG_OK;
}

static mg_status load(void **out, const char *path, struct mg_err *err) {
    FILE *file = fopen(path, "rb");
    if (!file)
        return mg_fail(
            err, MG_ERR_DEVICE,
            "device \"cuda\": this installation has no CUDA backend (%s cannot be read); it is built where nvcc "
            "is, with MARIGOLD_CUDA=1 pip install .",
            path);
    fclose(file);
    /* Never unloaded: CUDA's libraries do not survive it, and threads of theirs may run. */
    *out = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!*out)
        return mg_fail(err, MG_ERR_DEVICE,
                       "device \"cuda\": the CUDA backend lacks a library: %s; those of the toolkit come with "
                       "pip install 'marigold-c[cuda]'",
                       dlerror());
    return MG_OK;
}

mg_status mg_cuda_library_load(const struct mg_backend **out, struct mg_err *err) {
    char path[4096];
    void *handle;
    MG_TRY(find_library(path, sizeof path, err));
    MG_TRY(load(&handle, path, err));
    const struct mg_backend_library *library = dlsym(handle, "mg_backend_library");
    const bool fits = library && library->layout == MG_BACKEND_LAYOUT && !strcmp(library->operations, mg_operations);
    if (fits)
        *out = library->backend;
    dlclose(handle);
    if (!fits)
        return mg_fail(err, MG_ERR_DEVICE,
                       "device \"cuda\": %s is %s; build both together, with MARIGOLD_CUDA=1 pip install .", path,
                       library ? "of another version of the engine" : "no backend of the engine");
    return MG_OK;
}
