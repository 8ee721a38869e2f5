/* safetensors_writer.c: writes a safetensors file tensor by tensor. Calls the operating system.
 *
 * A file without a name (O_TMPFILE) vanishes with the process, however that ends. */
#include "safetensors_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LENGTH_BYTES = 8 };

/* ---- the header as it grows ---- */
static mg_status add(struct mg_writer_text *text, const char *data, size_t length, struct mg_err *err) {
    size_t needed;
    if (!length)
        return MG_OK;
    if (!mg_size_add(&needed, text->length, length))
        return mg_fail(err, MG_ERR_MEMORY, "a header too long to be addressed");
    if (needed > text->capacity) {
        size_t capacity = needed + needed / 2 + 4096;
        void *bigger;
        MG_TRY(mg_alloc(&bigger, capacity, "the header of a file", err));
        if (text->length)
            memcpy(bigger, text->data, text->length);
        mg_free(text->data);
        text->data = bigger;
        text->capacity = capacity;
    }
    memcpy(text->data + text->length, data, length);
    text->length = needed;
    return MG_OK;
}

static mg_status add_words(struct mg_writer_text *text, const char *words, struct mg_err *err) {
    return add(text, words, strlen(words), err);
}

/* A JSON string: quotes, backslashes and control characters are escaped. */
static mg_status add_string(struct mg_writer_text *text, const char *value, size_t length, struct mg_err *err) {
    MG_TRY(add_words(text, "\"", err));
    for (size_t i = 0; i < length; i++) {
        const unsigned char c = (unsigned char)value[i];
        char escaped[8];
        if (c == '"' || c == '\\')
            snprintf(escaped, sizeof escaped, "\\%c", c);
        else if (c < 0x20)
            snprintf(escaped, sizeof escaped, "\\u%04x", c);
        else
            snprintf(escaped, sizeof escaped, "%c", c);
        MG_TRY(add_words(text, escaped, err));
    }
    return add_words(text, "\"", err);
}

static const char opening[] = "{\"__metadata__\":{";

mg_status mg_safetensors_writer_metadata(size_t *place, struct mg_safetensors_writer *writer, const char *key,
                                         const char *value, size_t length, struct mg_err *err) {
    MG_TRY(add_words(&writer->metadata, writer->metadata.length ? "," : "", err));
    MG_TRY(add_string(&writer->metadata, key, strlen(key), err));
    MG_TRY(add_words(&writer->metadata, ":", err));
    if (place)
        *place = strlen(opening) + writer->metadata.length + 1;
    return add_string(&writer->metadata, value, length, err);
}

static uint64_t aligned(uint64_t bytes) {
    return (bytes + MG_SAFETENSORS_ALIGNMENT - 1) / MG_SAFETENSORS_ALIGNMENT * MG_SAFETENSORS_ALIGNMENT;
}

mg_status mg_safetensors_writer_declare(struct mg_safetensors_writer *writer, const char *key, size_t bytes,
                                        struct mg_err *err) {
    char entry[160];
    const uint64_t begin = writer->declared, whole = aligned(bytes);
    if (whole < bytes || begin + whole > INT64_MAX)
        return mg_fail(err, MG_ERR_MEMORY, "%s: tensor \"%s\" ends beyond what a file can hold", writer->path, key);
    MG_TRY(add_words(&writer->tensors, ",", err));
    MG_TRY(add_string(&writer->tensors, key, strlen(key), err));
    snprintf(entry, sizeof entry, ":{\"dtype\":\"U8\",\"shape\":[%llu],\"data_offsets\":[%llu,%llu]}",
             (unsigned long long)whole, (unsigned long long)begin, (unsigned long long)(begin + whole));
    writer->declared += whole;
    return add_words(&writer->tensors, entry, err);
}

/* ---- the file ---- */
static mg_status check_place(const char *path, bool replace, struct mg_err *err) {
    struct stat info;
    if (lstat(path, &info))
        return errno == ENOENT ? MG_OK : mg_fail_errno(err, errno, "%s: cannot be examined", path);
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return mg_fail_errno(err, S_ISDIR(info.st_mode) ? EISDIR : EEXIST, "%s: not a regular file", path);
    if (!replace)
        return mg_fail_errno(err, EEXIST, "%s: not overwritten", path);
    return MG_OK;
}

static mg_status open_named(struct mg_safetensors_writer *writer, struct mg_err *err) {
    unlink(writer->partial); /* of a process that had our number before */
    writer->descriptor = open(writer->partial, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (writer->descriptor < 0)
        return mg_fail_errno(err, errno, "%s: cannot be written", writer->path);
    writer->is_named = true;
    return MG_OK;
}

static mg_status open_nameless(struct mg_safetensors_writer *writer, struct mg_err *err) {
#ifdef O_TMPFILE
    if (access("/proc/self/fd", F_OK)) /* by which it is named in the end */
        return MG_OK;
    void *folder;
    const char *slash = strrchr(writer->path, '/');
    const size_t length = slash ? (size_t)(slash - writer->path) + 1 : 0;
    MG_TRY(mg_alloc(&folder, length + 2, "a folder name", err));
    memcpy(folder, length ? writer->path : ".", length ? length : 1);
    ((char *)folder)[length ? length : 1] = '\0';
    writer->descriptor = open(folder, O_RDWR | O_TMPFILE | O_CLOEXEC, 0666);
    mg_free(folder);
#else
    (void)writer, (void)err;
#endif
    return MG_OK;
}

mg_status mg_safetensors_writer_open(struct mg_safetensors_writer *out, const char *path, bool replace,
                                     struct mg_err *err) {
    *out = (struct mg_safetensors_writer){.descriptor = -1, .replace = replace};
    mg_status status;
    const size_t bytes = strlen(path) + 32;
    MG_TRY_GOTO(mg_alloc((void **)&out->path, bytes, "a file name", err));
    strcpy(out->path, path);
    MG_TRY_GOTO(mg_alloc((void **)&out->partial, bytes, "a file name", err));
    snprintf(out->partial, bytes, "%s.%ld.partial", path, (long)getpid());
    MG_TRY_GOTO(check_place(path, replace, err));
    MG_TRY_GOTO(open_nameless(out, err));
    if (out->descriptor < 0)
        MG_TRY_GOTO(open_named(out, err));
done:
    if (status != MG_OK)
        mg_safetensors_writer_close(out);
    return status;
}

static mg_status write_at(struct mg_safetensors_writer *writer, uint64_t offset, const void *data, size_t bytes,
                          struct mg_err *err) {
    const char *at = data;
    while (bytes) {
        ssize_t done = pwrite(writer->descriptor, at, bytes, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return mg_fail_errno(err, done < 0 ? errno : ENOSPC, "%s: cannot be written at byte %llu", writer->path,
                                 (unsigned long long)offset);
        at += done;
        bytes -= (size_t)done;
        offset += (uint64_t)done;
    }
    return MG_OK;
}

static mg_status write_header(struct mg_safetensors_writer *writer, struct mg_err *err) {
    unsigned char length[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; i++)
        length[i] = (unsigned char)((uint64_t)writer->header.length >> 8 * i);
    MG_TRY(write_at(writer, 0, length, sizeof length, err));
    return write_at(writer, LENGTH_BYTES, writer->header.data, writer->header.length, err);
}

mg_status mg_safetensors_writer_begin(struct mg_safetensors_writer *writer, struct mg_err *err) {
    struct mg_writer_text *header = &writer->header;
    MG_TRY(add_words(header, opening, err));
    MG_TRY(add(header, writer->metadata.data, writer->metadata.length, err));
    MG_TRY(add_words(header, "}", err));
    MG_TRY(add(header, writer->tensors.data, writer->tensors.length, err));
    MG_TRY(add_words(header, "}", err));
    while ((LENGTH_BYTES + header->length) % MG_SAFETENSORS_ALIGNMENT)
        MG_TRY(add_words(header, " ", err));
    return write_header(writer, err);
}

mg_status mg_safetensors_writer_append(struct mg_safetensors_writer *writer, const void *data, size_t bytes,
                                       struct mg_err *err) {
    static const char zeros[MG_SAFETENSORS_ALIGNMENT];
    const uint64_t at = LENGTH_BYTES + writer->header.length + writer->written;
    MG_TRY(write_at(writer, at, data, bytes, err));
    MG_TRY(write_at(writer, at + bytes, zeros, (size_t)(aligned(bytes) - bytes), err));
    writer->written += aligned(bytes);
    return MG_OK;
}

static mg_status name_file(struct mg_safetensors_writer *writer, struct mg_err *err) {
    if (!writer->is_named) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", writer->descriptor);
        unlink(writer->partial);
        if (linkat(AT_FDCWD, link, AT_FDCWD, writer->partial, AT_SYMLINK_FOLLOW))
            return mg_fail_errno(err, errno, "%s: cannot be named", writer->path);
        writer->is_named = true;
    }
    if (!writer->replace) {
        /* A second name, which fails where there is a file: someone else may have been faster, and renaming replaces. */
        if (!link(writer->partial, writer->path))
            return MG_OK; /* the first name goes when the writer is closed */
        if (errno == EEXIST)
            return mg_fail_errno(err, EEXIST, "%s: not overwritten", writer->path);
    }
    /* Also where the file system knows no second names. */
    MG_TRY(check_place(writer->path, writer->replace, err));
    if (rename(writer->partial, writer->path))
        return mg_fail_errno(err, errno, "%s: cannot be named", writer->path);
    writer->is_named = false;
    return MG_OK;
}

mg_status mg_safetensors_writer_finish(struct mg_safetensors_writer *writer, struct mg_err *err) {
    if (writer->written != writer->declared)
        return mg_fail(err, MG_ERR_ARGUMENT, "%s: %llu bytes are declared and %llu written", writer->path,
                       (unsigned long long)writer->declared, (unsigned long long)writer->written);
    MG_TRY(write_header(writer, err));
    if (fsync(writer->descriptor))
        return mg_fail_errno(err, errno, "%s: cannot be written", writer->path);
    return name_file(writer, err);
}

void mg_safetensors_writer_close(struct mg_safetensors_writer *writer) {
    if (writer->descriptor >= 0)
        close(writer->descriptor);
    if (writer->is_named)
        unlink(writer->partial);
    mg_free(writer->path);
    mg_free(writer->partial);
    mg_free(writer->metadata.data);
    mg_free(writer->tensors.data);
    mg_free(writer->header.data);
    *writer = (struct mg_safetensors_writer){.descriptor = -1};
}
