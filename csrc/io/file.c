/* file.c: read-only file mappings. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static mg_status map(struct mg_file *out, int descriptor, const char *path, struct mg_err *err) {
    struct stat info;
    if (fstat(descriptor, &info))
        return mg_fail_errno(err, errno, "%s: cannot be examined", path);
    if (!S_ISREG(info.st_mode))
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: not a regular file", path);
    void *copy;
    MG_TRY(mg_alloc(&copy, strlen(path) + 1, "a file name", err));
    out->path = strcpy(copy, path);
    out->bytes = (size_t)info.st_size;
    if (!out->bytes)
        return MG_OK;
    void *data = mmap(NULL, out->bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED)
        return mg_fail_errno(err, errno, "%s: cannot be mapped (%zu bytes)", path, out->bytes);
    out->data = data;
    return MG_OK;
}

mg_status mg_file_open(struct mg_file *out, const char *path, struct mg_err *err) {
    *out = (struct mg_file){0};
    /* O_NONBLOCK: a named pipe in a checkpoint folder must not hang the process. */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return mg_fail_errno(err, errno, "%s: cannot be opened", path);
    mg_status status = map(out, descriptor, path, err);
    close(descriptor);
    if (status != MG_OK)
        mg_file_close(out);
    return status;
}

void mg_file_close(struct mg_file *file) {
    if (file->data)
        munmap((void *)file->data, file->bytes);
    mg_free(file->path);
    *file = (struct mg_file){0};
}

void mg_file_release(const struct mg_file *file, const void *begin, size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)begin + page - 1) / page * page, end = ((uintptr_t)begin + bytes) / page * page;
    if (file->data && end > first)
        madvise((void *)first, end - first, MADV_DONTNEED);
}

mg_status mg_path_join(char **out, const char *folder, const char *name, struct mg_err *err) {
    size_t length = strlen(folder), bytes = length + strlen(name) + 2;
    void *path;
    MG_TRY(mg_alloc(&path, bytes, "a file name", err));
    *out = path;
    memcpy(*out, folder, length);
    if (length && folder[length - 1] != '/')
        (*out)[length++] = '/';
    strcpy(*out + length, name);
    return MG_OK;
}

bool mg_file_exists(const char *path) { return access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR); }
