/* thread_pool.h: loops whose iterations are shared out to threads. Callers are what owns work: the drivers of backend/cpu,
 * pack_weight.c, ensemble and evaluation. Knows core only.
 *
 * The threads (workers) belong to the process, not to a pipeline: they are started when a loop first asks for them, help whichever
 * loop has work, wait for a few microseconds after it and then sleep. The thread that runs a loop takes part in it and needs no
 * worker to get to the end: iterations are claimed one after the other, and it waits only for those that others have claimed.
 * So loops may run in several threads at once, with more threads than processors, and in a child of fork(2), which has no workers
 * until its first loop starts new ones. */
#ifndef MG_THREAD_POOL_H
#define MG_THREAD_POOL_H
#include <stdint.h>

enum { MG_MAX_THREADS = 4096 };

/* Iterations begin .. end of a loop. `thread` is below the loop's number of threads, and of no other thread that is in this
 * loop: it chooses scratch memory. */
typedef void mg_loop_body(const void *job, int64_t begin, int64_t end, int thread);

/* Calls body for parts of 0 .. count until all are done, each iteration once. At most num_threads threads (bounded by
 * MG_MAX_THREADS; the caller is one of them), in no order: a result must not depend on who computes what. What was written before
 * the call is seen by the body, and what the body wrote after it. Cannot fail: without workers the caller does all. */
void mg_parallel_for(int num_threads, int64_t count, mg_loop_body *body, const void *job);
#endif
