/* host_memory.c: how much memory this process may still use (Linux: proc_meminfo(5), MemAvailable; cgroup-v2.rst, memory.max;
 * cgroup-v1/memory.rst; getrlimit(2), RLIMIT_AS). Elsewhere a half of what the machine has. Calls control_groups.c. */
#include "host_memory.h"

#include <limits.h>
#include <stdint.h>
#include <unistd.h>

#include "control_groups.h"

#if defined(__linux__)
#include <string.h>
#include <sys/resource.h>

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* ---- the system ---- */
/* Of a file of lines "name: number kB", in bytes; `otherwise` if the line is not there. */
static size_t read_line(const char *root, const char *path, const char *name, size_t otherwise) {
    FILE *file = mg_open_at(root, path);
    char line[256];
    size_t found = otherwise;
    while (file && fgets(line, sizeof line, file)) {
        unsigned long long kilobytes;
        if (!strncmp(line, name, strlen(name)) && sscanf(line + strlen(name), ": %llu kB", &kilobytes) == 1 &&
            kilobytes <= SIZE_MAX >> 10) {
            found = (size_t)kilobytes << 10;
            break;
        }
    }
    if (file)
        fclose(file);
    return found;
}

/* ---- control groups ---- */
/* False: the file is not there, or says "max". */
static bool read_number(size_t *out, const char *root, const char *folder, const char *name) {
    char path[2 * PATH_MAX + 64];
    unsigned long long number;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = mg_open_at(root, path);
    const bool found = file && fscanf(file, "%llu", &number) == 1;
    if (file)
        fclose(file);
    if (found)
        *out = (size_t)number;
    return found;
}

/* What a group's files in memory take is given back when others need it. */
static size_t cached(const char *root, const char *folder, bool second) {
    char path[2 * PATH_MAX + 64], line[256];
    const char *name = second ? "inactive_file" : "total_inactive_file";
    unsigned long long bytes = 0;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    FILE *file = mg_open_at(root, path);
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, name, strlen(name)) && sscanf(line + strlen(name), " %llu", &bytes) == 1)
            break;
    if (file)
        fclose(file);
    return (size_t)bytes;
}

struct left {
    const char *root;
    size_t bytes;
};

static void take_least(void *user, const char *folder, bool second) {
    struct left *left = user;
    size_t limit, used;
    if (!read_number(&limit, left->root, folder, second ? "memory.max" : "memory.limit_in_bytes") ||
        !read_number(&used, left->root, folder, second ? "memory.current" : "memory.usage_in_bytes"))
        return;
    const size_t back = least(used, cached(left->root, folder, second));
    left->bytes = least(left->bytes, limit > used - back ? limit - (used - back) : 0);
}

/* ---- the limit of the process ---- */
static size_t address_space_left(const char *root) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) || limit.rlim_cur == RLIM_INFINITY)
        return SIZE_MAX;
    const size_t used = read_line(root, "/proc/self/status", "VmSize", 0);
    return limit.rlim_cur > used ? (size_t)limit.rlim_cur - used : 0;
}

size_t mg_host_memory(const char *root) {
    struct left left = {root,
                        least(read_line(root, "/proc/meminfo", "MemAvailable", SIZE_MAX), address_space_left(root))};
    mg_visit_groups(root, "memory", take_least, &left);
    return left.bytes;
}
#else
size_t mg_host_memory(const char *root) {
    (void)root;
    const long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
    return pages < 1 || bytes < 1 ? SIZE_MAX : (size_t)pages / 2 * (size_t)bytes;
}
#endif
