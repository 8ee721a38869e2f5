/* processors.c: how many processors this process may use: those of its affinity mask, and no more than the quota of its control
 * groups (Linux: Documentation/admin-guide/cgroup-v2.rst, cpu.max; scheduler/sched-bwc.rst, cpu.cfs_quota_us). A group's limit
 * holds for all below it, so every group from the process' own up to the root is asked. Elsewhere all that are online. */
#include "processors.h"

#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core.h"

static int online_processors(void) {
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : (int)online;
}

#if defined(__linux__)
/* ---- the quota ---- */

/* A mounted hierarchy of groups. */
struct hierarchy {
    bool second; /* version 2 */
    char root[PATH_MAX], mount[PATH_MAX];
};

static FILE *open_at(const char *root, const char *path) {
    char name[4 * PATH_MAX];
    const int length = snprintf(name, sizeof name, "%s%s", root, path);
    return length > 0 && (size_t)length < sizeof name ? fopen(name, "re") : NULL;
}

/* Whether `word` is in a list that is separated by commas. */
static bool is_listed(const char *list, const char *word) {
    const size_t length = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (!strncmp(at, word, length) && (at[length] == ',' || !at[length]))
            return true;
    }
    return false;
}

/* Spaces and backslashes of a path are written as a backslash and three octal digits. */
static void unescape(char *path) {
    char *to = path;
    for (const char *from = path; *from; to++) {
        const bool escaped = from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' &&
                             from[3] >= '0' && from[3] <= '7';
        *to = escaped ? (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + from[3] - '0') : *from;
        from += escaped ? 4 : 1;
    }
    *to = '\0';
}

/* A line of mountinfo: "id parent device root mount options ... - type source options". False if it is no hierarchy that
 * limits processors. */
static bool read_mount(struct hierarchy *out, const char *line) {
    char type[16], options[4096];
    const char *end = strstr(line, " - ");
    _Static_assert(PATH_MAX == 4096, "the widths below");
    if (!end || sscanf(line, "%*s %*s %*s %4095s %4095s", out->root, out->mount) != 2 ||
        sscanf(end, " - %15s %*s %4095s", type, options) != 2)
        return false;
    unescape(out->root);
    unescape(out->mount);
    out->second = !strcmp(type, "cgroup2");
    return out->second || (!strcmp(type, "cgroup") && is_listed(options, "cpu"));
}

/* The process' group in the hierarchy, out of "number:controllers:path". False if it is in none. */
static bool find_group(char group[PATH_MAX], const struct hierarchy *h, const char *root) {
    FILE *file = open_at(root, "/proc/self/cgroup");
    char *line = NULL;
    size_t size = 0;
    bool found = false;
    while (file && !found && getline(&line, &size, file) > 0) {
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        found = (h->second ? !controllers[1] : is_listed(controllers + 1, "cpu")) && strlen(path) < PATH_MAX;
        if (found)
            memcpy(group, path, strlen(path) + 1);
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

/* Two numbers out of the files of a group; false if it has no limit. */
static bool read_limit(long long *quota, long long *period, const char *root, const char *folder, bool second) {
    static const char *const names[2][2] = {{"cpu.cfs_quota_us", "cpu.cfs_period_us"}, {"cpu.max", NULL}};
    char path[2 * PATH_MAX + 32];
    int numbers = 0;
    for (int i = 0; i < 2 && names[second][i]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[second][i]);
        FILE *file = open_at(root, path);
        if (!file)
            return false;
        numbers += second ? fscanf(file, "%lld %lld", quota, period) : fscanf(file, "%lld", i ? period : quota);
        fclose(file);
    }
    return numbers == 2 && *quota > 0 && *period > 0; /* "max", and -1 in version 1, are no limit */
}

static int processors_of(const struct hierarchy *h, const char *group, const char *root) {
    char folder[2 * PATH_MAX];
    const size_t top = strlen(h->mount), shown = strlen(h->root) == 1 ? 0 : strlen(h->root);
    /* What is mounted may begin below the root of all groups, and the group lie outside of it. */
    const bool inside =
        !strncmp(group, h->root, shown) && (group[shown] == '/' || !group[shown]) && !strstr(group, "/..");
    int least = 0;
    snprintf(folder, sizeof folder, "%s%s", h->mount, inside && strcmp(group, "/") ? group + shown : "");
    for (;;) {
        long long quota = 0, period = 0;
        if (read_limit(&quota, &period, root, folder, h->second)) {
            const long long processors = (quota - 1) / period + 1;
            if (processors < INT_MAX && (!least || processors < least))
                least = (int)processors;
        }
        char *last = strrchr(folder, '/');
        if (!last || (size_t)(last - folder) < top)
            return least;
        *last = '\0';
    }
}

int mg_quota_processors(const char *root) {
    FILE *file = open_at(root, "/proc/self/mountinfo");
    struct hierarchy *h = malloc(sizeof *h);
    char *line = NULL, group[PATH_MAX];
    size_t size = 0;
    int least = 0;
    while (file && h && getline(&line, &size, file) > 0)
        if (read_mount(h, line) && find_group(group, h, root)) {
            const int processors = processors_of(h, group, root);
            if (processors && (!least || processors < least))
                least = processors;
        }
    free(line);
    free(h);
    if (file)
        fclose(file);
    return least;
}

/* ---- the processors of this thread's mask ---- */
static int allowed_processors(void) {
    for (int most = 1024; most <= 1 << 20; most *= 2) {
        cpu_set_t *mask = CPU_ALLOC((size_t)most);
        const size_t bytes = CPU_ALLOC_SIZE((size_t)most);
        const bool fits = mask && sched_getaffinity(0, bytes, mask) == 0; /* fails if the system has more */
        const int count = fits ? CPU_COUNT_S(bytes, mask) : 0;
        CPU_FREE(mask);
        if (count > 0)
            return count;
    }
    return online_processors();
}
#else
int mg_quota_processors(const char *root) {
    (void)root;
    return 0;
}

static int allowed_processors(void) { return online_processors(); }
#endif

int mg_available_threads(void) {
    /* Read once: files are slow beside a small evaluation, and quotas are set before a container starts. */
    static _Atomic int known = -1;
    int quota = atomic_load_explicit(&known, memory_order_relaxed);
    if (quota < 0) {
        quota = mg_quota_processors("");
        atomic_store_explicit(&known, quota, memory_order_relaxed);
    }
    const int allowed = allowed_processors();
    return quota && quota < allowed ? quota : allowed;
}
