/* control_groups.c: the control groups of this process (Linux: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1). A group's limit
 * holds for all below it, so every group from the process' own up to the root is visited. */
#include "control_groups.h"

#if defined(__linux__)
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* A mounted hierarchy of groups. */
struct hierarchy {
    const char *controller; /* whose limits are asked */
    bool second;            /* version 2 */
    char root[PATH_MAX], mount[PATH_MAX];
};

FILE *mg_open_at(const char *root, const char *path) {
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

/* A line of mountinfo: "id parent device root mount options ... - type source options". False if it is no hierarchy with
 * such limits. */
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
    return out->second || (!strcmp(type, "cgroup") && is_listed(options, out->controller));
}

/* The process' group in the hierarchy, out of "number:controllers:path". False if it is in none. */
static bool find_group(char group[PATH_MAX], const struct hierarchy *h, const char *root) {
    FILE *file = mg_open_at(root, "/proc/self/cgroup");
    char *line = NULL;
    size_t size = 0;
    bool found = false;
    while (file && !found && getline(&line, &size, file) > 0) {
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        found = (h->second ? !controllers[1] : is_listed(controllers + 1, h->controller)) && strlen(path) < PATH_MAX;
        if (found)
            memcpy(group, path, strlen(path) + 1);
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

static void visit_up(const struct hierarchy *h, const char *group, mg_visit_group_fn visit, void *user) {
    char folder[2 * PATH_MAX];
    const size_t top = strlen(h->mount), shown = strlen(h->root) == 1 ? 0 : strlen(h->root);
    /* What is mounted may begin below the root of all groups, and the group lie outside of it. */
    const bool inside =
        !strncmp(group, h->root, shown) && (group[shown] == '/' || !group[shown]) && !strstr(group, "/..");
    snprintf(folder, sizeof folder, "%s%s", h->mount, inside && strcmp(group, "/") ? group + shown : "");
    for (;;) {
        visit(user, folder, h->second);
        char *last = strrchr(folder, '/');
        if (!last || (size_t)(last - folder) < top)
            return;
        *last = '\0';
    }
}

void mg_visit_groups(const char *root, const char *controller, mg_visit_group_fn visit, void *user) {
    FILE *file = mg_open_at(root, "/proc/self/mountinfo");
    struct hierarchy *h = malloc(sizeof *h);
    char *line = NULL, group[PATH_MAX];
    size_t size = 0;
    while (file && h && getline(&line, &size, file) > 0) {
        h->controller = controller;
        if (read_mount(h, line) && find_group(group, h, root))
            visit_up(h, group, visit, user);
    }
    free(line);
    free(h);
    if (file)
        fclose(file);
}
#else
void mg_visit_groups(const char *root, const char *controller, mg_visit_group_fn visit, void *user) {
    (void)root, (void)controller, (void)visit, (void)user;
}
#endif
