/* control_groups.h: the limits that a container sets, for processors.c and host_memory.c. Private to core. */
#ifndef MG_CONTROL_GROUPS_H
#define MG_CONTROL_GROUPS_H
#include <stdbool.h>
#include <stdio.h>

/* `folder` has the files of a group, below the `root` that was given; second: of version 2. */
typedef void (*mg_visit_group_fn)(void *user, const char *folder, bool second);
/* Every group of this process in hierarchies with that controller ("cpu", "memory"), its own first. `root` comes before
 * /proc/self/cgroup, /proc/self/mountinfo and the mount points that it names; "" for this system's own. None elsewhere than on Linux. */
void mg_visit_groups(const char *root, const char *controller, mg_visit_group_fn visit, void *user);
/* A file of such a system for reading, or NULL. */
FILE *mg_open_at(const char *root, const char *path);
#endif
