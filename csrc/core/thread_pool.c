/* thread_pool.c: see thread_pool.h. Calls futex.h and processors.c.
 *
 * A loop in progress is in one of a fixed number of places in static memory. Its iterations are cut into ranges, one for each
 * thread, so that a thread works on the same part of an image in loop after loop; who has finished its range goes on in the
 * others'. Iterations are claimed from the counter of a range, a few at a time.
 *
 * There is no lock, so that neither a thread that is not scheduled nor a fork in another thread can hold one: a place is taken,
 * joined and left by changing one word, `state`. The caller returns as soon as all claimed iterations are done; a worker that
 * joined too late to find work may then still be about to leave, and the place is free when it has (state is 0). */
#include "thread_pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "core.h"
#include "futex.h"

enum {
    PLACES = 32,           /* loops at once; another is done by its caller alone */
    MAX_RANGES = 64,       /* more threads share them */
    CLAIMS_OF_RANGE = 128, /* about so many claims: few enough to cost nothing, small enough to end together */
    CACHE_LINE = 64,
    WAKE_AT_ONCE = 2,       /* each thread wakes so many others, which wake others */
    LOOKS_AT_WORD = 32,     /* between two looks at the clock */
    WORKER_WAIT_NS = 50000, /* before a worker sleeps: longer than what lies between two operations of a network */
    CALLER_WAIT_NS = 20000  /* before a caller sleeps, whose last iterations others do */
};

/* state: threads inside (bits 0 to 14), how many more may join (15 to 29), whether a caller has the place (30). */
#define JOINED 1u
#define VACANCY (1u << 15)
#define TAKEN (1u << 30)
#define COUNT_MASK 0x7fffu
/* left: iterations that are not done, in claims (bits 0 to 30); whether the caller sleeps. */
#define CALLER_SLEEPS (1u << 31)

struct range {
    alignas(CACHE_LINE) _Atomic int64_t next;
    int64_t end;
};

struct loop {
    alignas(CACHE_LINE) _Atomic uint32_t state;
    alignas(CACHE_LINE) _Atomic uint32_t left;
    /* Written while `state` is TAKEN alone. */
    mg_loop_body *body;
    const void *job;
    int64_t claim; /* iterations at once */
    int ranges;
    struct range range[MAX_RANGES];
};

static struct {
    struct loop loops[PLACES];
    alignas(CACHE_LINE) _Atomic uint32_t posted; /* counts the loops that were begun: what idle workers wait for */
    alignas(CACHE_LINE) _Atomic int sleeping;    /* workers */
    alignas(CACHE_LINE) _Atomic int wanted;      /* threads that the loops in progress ask for, without their callers */
    _Atomic int workers, most_workers, processors;
} pool;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void wake(int count) {
    if (count > 0 && atomic_load(&pool.sleeping) > 0)
        mg_futex_wake(&pool.posted, count < WAKE_AT_ONCE ? count : WAKE_AT_ONCE);
}

/* ---- the iterations of a loop ---- */
static void set_up(struct loop *loop, int threads, int64_t count, mg_loop_body *body, const void *job) {
    const int ranges = threads < MAX_RANGES ? threads : MAX_RANGES;
    const int64_t most = count / ranges + 1;
    uint32_t claims = 0;
    loop->body = body;
    loop->job = job;
    loop->ranges = ranges;
    loop->claim = most / CLAIMS_OF_RANGE > 0 ? most / CLAIMS_OF_RANGE : 1;
    for (int r = 0; r < ranges; r++) {
        /* The first ranges have one more of what cannot be divided. */
        const int64_t rest = count % ranges, begin = count / ranges * r + (r < rest ? r : rest);
        const int64_t size = count / ranges + (r < rest);
        atomic_store_explicit(&loop->range[r].next, begin, memory_order_relaxed);
        loop->range[r].end = begin + size;
        claims += (uint32_t)((size + loop->claim - 1) / loop->claim);
    }
    atomic_store_explicit(&loop->left, claims, memory_order_relaxed);
}

/* Claims iterations of a range until none is left; returns the number of claims. */
static uint32_t work_off(const struct loop *loop, struct range *range, int thread) {
    uint32_t claims = 0;
    while (atomic_load_explicit(&range->next, memory_order_relaxed) < range->end) {
        const int64_t begin = atomic_fetch_add_explicit(&range->next, loop->claim, memory_order_relaxed);
        if (begin >= range->end)
            break;
        loop->body(loop->job, begin, range->end - begin < loop->claim ? range->end : begin + loop->claim, thread);
        claims++;
    }
    return claims;
}

static void take_part(struct loop *loop, int first_range, int thread) {
    for (int i = 0; i < loop->ranges; i++) {
        const uint32_t claims = work_off(loop, &loop->range[(first_range + i) % loop->ranges], thread);
        if (claims && atomic_fetch_sub(&loop->left, claims) == (claims | CALLER_SLEEPS))
            mg_futex_wake(&loop->left, 1);
    }
}

/* Until others have done what they claimed. */
static void await_others(struct loop *loop) {
    const int64_t begun = now_ns();
    uint32_t left;
    do {
        for (int i = 0; i < LOOKS_AT_WORD; i++) {
            if (!atomic_load_explicit(&loop->left, memory_order_acquire))
                return;
            mg_pause();
        }
    } while (now_ns() - begun < CALLER_WAIT_NS);
    while ((left = atomic_fetch_or(&loop->left, CALLER_SLEEPS) & ~CALLER_SLEEPS))
        mg_futex_wait(&loop->left, left | CALLER_SLEEPS);
}

/* ---- workers ---- */

/* Joins the loop if it may have more threads, and works with them to its end. */
static bool help(struct loop *loop, int number) {
    uint32_t state = atomic_load_explicit(&loop->state, memory_order_relaxed);
    do {
        if (!(state / VACANCY & COUNT_MASK))
            return false;
    } while (!atomic_compare_exchange_weak(&loop->state, &state, state - VACANCY + JOINED));
    const int vacancies = (int)(state / VACANCY & COUNT_MASK);
    wake(vacancies - 1);
    take_part(loop, number % loop->ranges, vacancies);
    atomic_fetch_sub(&loop->state, JOINED);
    return true;
}

/* Until another loop than the `seen` first ones is begun. */
static void await_loop(uint32_t seen) {
    const int64_t begun = now_ns();
    do {
        for (int i = 0; i < LOOKS_AT_WORD; i++) {
            if (atomic_load_explicit(&pool.posted, memory_order_acquire) != seen)
                return;
            mg_pause();
        }
    } while (now_ns() - begun < WORKER_WAIT_NS);
    atomic_fetch_add(&pool.sleeping, 1);
    mg_futex_wait(&pool.posted, seen);
    atomic_fetch_sub(&pool.sleeping, 1);
}

/* For whoever looks at the program's threads. */
static void name_thread(const char *name) {
#if defined(__APPLE__)
    pthread_setname_np(name);
#else
    pthread_setname_np(pthread_self(), name);
#endif
}

static void *work(void *number) {
    name_thread("marigold");
    for (;;) {
        const uint32_t seen = atomic_load(&pool.posted);
        bool helped = false;
        for (int i = 0; i < PLACES; i++)
            helped |= help(&pool.loops[i], (int)(intptr_t)number);
        if (!helped)
            await_loop(seen);
    }
    return NULL;
}

/* Signals are for the threads of the program that the engine is in, but for those that a fault of this very thread raises. */
static bool start_worker(int number) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t blocked, before;
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes))
        return false;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&blocked, own[i]);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    const bool started = pthread_create(&thread, &attributes, work, (void *)(intptr_t)number) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

/* In the child, which has one thread: no worker and no loop of another thread. */
static void forget_threads(void) {
    for (int i = 0; i < PLACES; i++)
        atomic_store(&pool.loops[i].state, 0);
    atomic_store(&pool.sleeping, 0);
    atomic_store(&pool.wanted, 0);
    atomic_store(&pool.workers, 0);
    atomic_store(&pool.most_workers, 0);
    atomic_store(&pool.processors, 0);
}

static void register_fork(void) { pthread_atfork(NULL, NULL, forget_threads); }

/* Enough for the loops in progress, but where they come from several callers not more than there are processors. */
static void ensure_workers(int threads, int wanted) {
    int workers = atomic_load_explicit(&pool.workers, memory_order_relaxed);
    if (workers >= wanted)
        return;
    if (!atomic_load(&pool.processors)) {
        atomic_store(&pool.processors, mg_available_threads());
        atomic_store(&pool.most_workers, MG_MAX_THREADS);
    }
    const int processors = atomic_load(&pool.processors), enough = (threads > processors ? threads : processors) - 1;
    while (workers < wanted && workers < enough && workers < atomic_load(&pool.most_workers)) {
        if (!atomic_compare_exchange_weak(&pool.workers, &workers, workers + 1))
            continue;
        if (!start_worker(++workers)) {
            atomic_store(&pool.most_workers, workers - 1); /* it is not tried again */
            atomic_fetch_sub(&pool.workers, 1);
        }
    }
}

/* ---- callers ---- */
static struct loop *take_place(void) {
    for (int i = 0; i < PLACES; i++) {
        uint32_t vacant = 0;
        if (!atomic_load_explicit(&pool.loops[i].state, memory_order_relaxed) &&
            atomic_compare_exchange_strong(&pool.loops[i].state, &vacant, TAKEN))
            return &pool.loops[i];
    }
    return NULL;
}

void mg_parallel_for(int num_threads, int64_t count, mg_loop_body *body, const void *job) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int threads = num_threads < MG_MAX_THREADS ? num_threads : MG_MAX_THREADS;
    struct loop *loop = NULL;
    if (threads > count)
        threads = (int)count;
    if (threads > 1) {
        pthread_once(&once, register_fork); /* before anything that a child would have to forget */
        loop = take_place();
    }
    if (!loop) {
        if (count > 0)
            body(job, 0, count, 0);
        return;
    }
    set_up(loop, threads, count, body, job);
    ensure_workers(threads, atomic_fetch_add(&pool.wanted, threads - 1) + threads - 1);
    atomic_store(&loop->state, TAKEN | (uint32_t)(threads - 1) * VACANCY);
    atomic_fetch_add(&pool.posted, 1);
    wake(threads - 1);
    take_part(loop, 0, 0);
    await_others(loop);
    atomic_fetch_sub(&pool.wanted, threads - 1);
    atomic_fetch_and(&loop->state, COUNT_MASK); /* those inside leave by themselves */
}
