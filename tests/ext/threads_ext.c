/* threads_ext.c: the thread pool and the processors of a container's quota, for tests/test_thread_pool.py and
 * test_processors.py. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "../../csrc/core/host_memory.h"
#include "../../csrc/core/processors.h"
#include "../../csrc/core/thread_pool.h"
#include "test_ext.h"

struct visits {
    uint8_t *of_iteration;
    _Atomic bool *busy; /* by thread number */
    _Atomic int64_t threads, clashes;
    int num_threads, nanoseconds;
    int64_t inner; /* iterations of a loop within each */
    struct visits *of_inner;
};

static void spend(int nanoseconds) {
    struct timespec begun, now;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - begun.tv_sec) * 1000000000 + now.tv_nsec - begun.tv_nsec < nanoseconds);
}

static void visit(const void *user, int64_t begin, int64_t end, int thread) {
    struct visits *v = *(struct visits *const *)user;
    if (thread < 0 || thread >= v->num_threads || atomic_exchange(&v->busy[thread], true)) {
        atomic_fetch_add(&v->clashes, 1);
        return;
    }
    for (int64_t i = begin; i < end; i++) {
        v->of_iteration[i]++;
        spend(v->nanoseconds);
        if (v->inner)
            mg_parallel_for(v->num_threads, v->inner, visit, &(struct visits *){v->of_inner + i});
    }
    atomic_store(&v->busy[thread], false);
}

static void count_threads(const void *user, int64_t begin, int64_t end, int thread) {
    (void)begin, (void)end;
    atomic_fetch_or((_Atomic int64_t *)user, INT64_C(1) << thread % 63);
    spend(200000);
}

static PyObject *number_list(const uint8_t *numbers, int64_t count) {
    return PyBytes_FromStringAndSize((const char *)numbers, (Py_ssize_t)count);
}

/* parallel_for(threads, count, nanoseconds, inner) -> (how often each iteration was visited, how often a thread number was out of
 * range or in use twice); inner: iterations of a loop within each, visited as well. */
static PyObject *parallel_for(PyObject *self, PyObject *args) {
    int threads, nanoseconds;
    long long count, inner;
    (void)self;
    if (!PyArg_ParseTuple(args, "iLiL", &threads, &count, &nanoseconds, &inner))
        return NULL;
    const int64_t loops = inner ? count + 1 : 1, size = inner > count ? inner : count, width = size ? size : 1;
    struct visits *visits = PyMem_RawCalloc((size_t)loops, sizeof *visits);
    uint8_t *numbers = PyMem_RawCalloc((size_t)(loops * width), 1);
    _Atomic bool *busy = PyMem_RawCalloc((size_t)(loops * threads), sizeof *busy);
    for (int64_t i = 0; i < loops; i++) {
        visits[i].of_iteration = numbers + i * width;
        visits[i].busy = busy + i * threads;
        visits[i].num_threads = threads;
        visits[i].nanoseconds = nanoseconds;
    }
    visits[0].inner = inner;
    visits[0].of_inner = visits + 1;
    struct visits *first = visits;
    Py_BEGIN_ALLOW_THREADS mg_parallel_for(threads, count, visit, &first);
    Py_END_ALLOW_THREADS int64_t clashes = 0;
    for (int64_t i = 0; i < loops; i++) {
        clashes += visits[i].clashes;
        for (int64_t k = 0; i > 0 && k < inner; k++)
            clashes += visits[i].of_iteration[k] != 1;
    }
    PyObject *result = Py_BuildValue("(NL)", number_list(numbers, count), (long long)clashes);
    PyMem_RawFree(visits);
    PyMem_RawFree(numbers);
    PyMem_RawFree((void *)busy);
    return result;
}

/* helpers(threads) -> how many threads took part in a loop that gives each something to do. */
static PyObject *helpers(PyObject *self, PyObject *args) {
    int threads;
    _Atomic int64_t seen = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "i", &threads))
        return NULL;
    Py_BEGIN_ALLOW_THREADS mg_parallel_for(threads, 64 * threads, count_threads, &seen);
    Py_END_ALLOW_THREADS return PyLong_FromLong(__builtin_popcountll((unsigned long long)seen));
}

/* quota_processors(root) -> int */
static PyObject *quota_processors(PyObject *self, PyObject *args) {
    const char *root;
    (void)self;
    return PyArg_ParseTuple(args, "s", &root) ? PyLong_FromLong(mg_quota_processors(root)) : NULL;
}

/* host_memory(root) -> bytes */
static PyObject *host_memory(PyObject *self, PyObject *args) {
    const char *root;
    (void)self;
    return PyArg_ParseTuple(args, "s", &root) ? PyLong_FromSize_t(mg_host_memory(root)) : NULL;
}

PyMethodDef mg_test_threads_methods[] = {{"parallel_for", parallel_for, METH_VARARGS, NULL},
                                         {"helpers", helpers, METH_VARARGS, NULL},
                                         {"quota_processors", quota_processors, METH_VARARGS, NULL},
                                         {"host_memory", host_memory, METH_VARARGS, NULL},
                                         {NULL, NULL, 0, NULL}};
