/* futex.h: sleeping until a word in memory changes, and a hint to the processor for loops that wait without sleeping. Linux'
 * futex(2), macOS's ulock, which its C++ library waits by; another system needs these three functions only. Calls nothing of
 * the engine. */
#ifndef MG_FUTEX_H
#define MG_FUTEX_H
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Sleeps until mg_futex_wake, unless *word is no longer `expected`. May return early: the caller looks at the word again. */
static inline void mg_futex_wait(_Atomic uint32_t *word, uint32_t expected) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

/* Wakes at most `count` of the threads that sleep on the word. */
static inline void mg_futex_wake(_Atomic uint32_t *word, int count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}
#elif defined(__APPLE__)
/* No header has them; the public names (os_sync_wait_on_address) are of macOS 14.4. */
int __ulock_wait(uint32_t operation, void *address, uint64_t value, uint32_t microseconds);
int __ulock_wake(uint32_t operation, void *address, uint64_t value);
enum { MG_COMPARE_AND_WAIT = 1 };

static inline void mg_futex_wait(_Atomic uint32_t *word, uint32_t expected) {
    __ulock_wait(MG_COMPARE_AND_WAIT, (void *)word, expected, 0);
}

static inline void mg_futex_wake(_Atomic uint32_t *word, int count) {
    while (count-- > 0 && __ulock_wake(MG_COMPARE_AND_WAIT, (void *)word, 0) == 0)
        ;
}
#else
#error "futex.h cannot wait on this system"
#endif

/* Between two looks at a word that another thread will change soon. */
static inline void mg_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}
#endif
