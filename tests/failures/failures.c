/* failures.c: a library to be preloaded that lets a chosen call fail: the n-th allocation that the engine asks for, or writes
 * to regular files from the n-th on. tests/failures/scenarios.py calls it through ctypes; without that it changes nothing.
 *
 * An allocation is the engine's if it is asked for from within the extension marigold_c._C: what Python and NumPy ask for has
 * tests of their own makers. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static _Atomic long allocations, writes;               /* so far */
static _Atomic long failing_allocation, failing_write; /* which one, from 1; 0: none */
static _Atomic int write_error;
static _Atomic bool stays; /* every later write fails, too */
static _Atomic uintptr_t engine_begin, engine_end;

static int find_engine(struct dl_phdr_info *info, size_t size, void *unused) {
    (void)size, (void)unused;
    if (!strstr(info->dlpi_name, "marigold_c/_C."))
        return 0;
    uintptr_t end = 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz > end)
            end = info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
    engine_begin = info->dlpi_addr;
    engine_end = info->dlpi_addr + end;
    return 1;
}

/* Counts from 0 again. Returns whether the engine is loaded. */
int failures_allocation(long which) {
    const int found = dl_iterate_phdr(find_engine, NULL);
    allocations = 0;
    failing_allocation = which;
    return found;
}

void failures_write(long which, int error, int later_too) {
    writes = 0;
    write_error = error;
    stays = later_too;
    failing_write = which;
}

long failures_allocations(void) { return allocations; }
long failures_writes(void) { return writes; }

static bool allocation_fails(const void *caller) {
    const uintptr_t from = (uintptr_t)caller;
    if (from < engine_begin || from >= engine_end)
        return false;
    const long number = ++allocations;
    if (number != failing_allocation)
        return false;
    errno = ENOMEM;
    return true;
}

static bool write_fails(int file) {
    struct stat facts;
    if (file < 3 || fstat(file, &facts) || !S_ISREG(facts.st_mode))
        return false;
    const long number = ++writes, which = failing_write;
    if (!which || (stays ? number < which : number != which))
        return false;
    errno = write_error;
    return true;
}

#define NEXT(name) (__typeof__(&name)) dlsym(RTLD_NEXT, #name)
#define CALLER __builtin_return_address(0)

/* glibc's own names: dlsym itself allocates. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) { return allocation_fails(CALLER) ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return allocation_fails(CALLER) ? NULL : __libc_calloc(count, size); }
void *realloc(void *block, size_t size) { return allocation_fails(CALLER) ? NULL : __libc_realloc(block, size); }
void *aligned_alloc(size_t alignment, size_t size) {
    return allocation_fails(CALLER) ? NULL : __libc_memalign(alignment, size);
}

void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset) {
    if (allocation_fails(CALLER))
        return MAP_FAILED;
    return (NEXT(mmap))(at, size, protection, flags, file, offset);
}

ssize_t write(int file, const void *data, size_t size) { return write_fails(file) ? -1 : (NEXT(write))(file, data, size); }
ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    return write_fails(file) ? -1 : (NEXT(pwrite))(file, data, size, at);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    return write_fails(file) ? -1 : (NEXT(pwrite64))(file, data, size, at);
}
int fsync(int file) { return write_fails(file) ? -1 : (NEXT(fsync))(file); }
int ftruncate64(int file, off64_t size) { return write_fails(file) ? -1 : (NEXT(ftruncate64))(file, size); }
