/* file.h: read-only file mappings. */
#ifndef MG_FILE_H
#define MG_FILE_H
#include "../core/core.h"

/* A file that another process shortens while it is mapped kills this one by SIGBUS when a lost page is read: no check
 * can see that coming. Replace checkpoints by renaming, as downloaders do. */
struct mg_file {
    char *path;
    const unsigned char *data; /* mapped read-only; NULL for an empty file */
    size_t bytes;
};
/* MG_ERR_IO with errno when it cannot be opened; MG_ERR_CHECKPOINT for what is not a regular file. */
mg_status mg_file_open(struct mg_file *out, const char *path, struct mg_err *err);
void mg_file_close(struct mg_file *file);
/* Tells the kernel that these pages will not be needed soon; they can be read again at any time. */
void mg_file_release(const struct mg_file *file, const void *begin, size_t bytes);
/* Joins folder and name with '/', into memory from mg_alloc. */
mg_status mg_path_join(char **out, const char *folder, const char *name, struct mg_err *err);
/* False only when the name is certainly not there; one that may not be looked at "exists", and opening it says why
 * not. */
bool mg_file_exists(const char *path);
/* Maps a JSON file of at most 64 MiB, parses it into `arena`, unmaps. `*text` may be NULL. */
struct mg_json;
mg_status mg_json_read_file(const struct mg_json **out, struct mg_arena *arena, const char *path, struct mg_err *err);
#endif
