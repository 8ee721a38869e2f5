/* processors.c: how many processors this process may use: those of its affinity mask, and no more than the quota of its control
 * groups (Linux: Documentation/admin-guide/cgroup-v2.rst, cpu.max; scheduler/sched-bwc.rst, cpu.cfs_quota_us). Elsewhere all that are
 * online. Calls control_groups.c. */
#include "processors.h"

#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "control_groups.h"
#include "core.h"

static int online_processors(void) {
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : (int)online;
}

#if defined(__linux__)
/* ---- the quota ---- */

/* Two numbers out of the files of a group; false if it has no limit. */
static bool read_limit(long long *quota, long long *period, const char *root, const char *folder, bool second) {
    static const char *const names[2][2] = {{"cpu.cfs_quota_us", "cpu.cfs_period_us"}, {"cpu.max", NULL}};
    char path[2 * PATH_MAX + 32];
    int numbers = 0;
    for (int i = 0; i < 2 && names[second][i]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[second][i]);
        FILE *file = mg_open_at(root, path);
        if (!file)
            return false;
        numbers += second ? fscanf(file, "%lld %lld", quota, period) : fscanf(file, "%lld", i ? period : quota);
        fclose(file);
    }
    return numbers == 2 && *quota > 0 && *period > 0; /* "max", and -1 in version 1, are no limit */
}

struct quota {
    const char *root;
    int least; /* 0: no limit so far */
};

static void take_least(void *user, const char *folder, bool second) {
    struct quota *q = user;
    long long quota = 0, period = 0;
    if (!read_limit(&quota, &period, q->root, folder, second))
        return;
    const long long processors = (quota - 1) / period + 1;
    if (processors < INT_MAX && (!q->least || processors < q->least))
        q->least = (int)processors;
}

int mg_quota_processors(const char *root) {
    struct quota q = {.root = root};
    mg_visit_groups(root, "cpu", take_least, &q);
    return q.least;
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
