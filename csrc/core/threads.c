/* threads.c: how many processors this process may use. Called by marigold/pipeline and the binding. */
#include <sched.h>
#include <unistd.h>

#include "core.h"

int mg_available_threads(void) {
    cpu_set_t allowed;
    int count = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 0;
    /* More than 1024 processors do not fit a cpu_set_t. */
    if (count < 1)
        count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count;
}
