/* processors.h: the limit that a container sets, for processors.c and its tests. */
#ifndef MG_PROCESSORS_H
#define MG_PROCESSORS_H

/* Processors that the control groups (version 1 or 2) of this process grant it, rounded up; 0 if there is no limit, or none that
 * can be read. `root` comes before /proc/self/cgroup, /proc/self/mountinfo and the mount points that it names; "" for this
 * system's own. */
int mg_quota_processors(const char *root);
#endif
