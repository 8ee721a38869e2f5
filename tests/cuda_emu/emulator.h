/* emulator.h: what the files of the emulation share, and what the tests call in it (through ctypes). */
#ifndef MG_EMU_EMULATOR_H
#define MG_EMU_EMULATOR_H
#include <cublasLt.h>

/* A launch, as a hook is told of it. */
struct mg_emu_launch_record {
    const void *kernel;
    unsigned grid[3], threads;
    const unsigned char *arguments;
    unsigned long long argument_bytes;
    int is_done;
};

#pragma GCC visibility push(default)
extern "C" {
/* The order in which the threads of a block take turns: 0 first to last, 1 last to first, others shuffled, by this
 * seed. */
void mg_emu_set_order(int order);
/* From now on the given number of acquisitions (memory, pinned memory, streams, events, handles) succeed, and the next
 * one fails; -1: all succeed. */
void mg_emu_fail_after(int acquisitions);
/* The same for calls that may fail of themselves: copies, launches, waiting, products. */
void mg_emu_fail_call_after(int calls);
int mg_emu_is_failure_due(void); /* 0 once that call was made */
int mg_emu_held(void);           /* acquisitions not given back */
int mg_emu_faults(void);         /* blocks of device memory written outside their bounds so far */
/* Device memory: allocations beyond `all` bytes, and blocks of more than `block`, fail; 0 for either: no limit. */
void mg_emu_set_memory(unsigned long long all, unsigned long long block);
unsigned long long mg_emu_used_memory(void);
int mg_emu_graph_launches(void); /* so far */
/* Called before and after each launch from now on; NULL: no more. */
void mg_emu_set_launch_hook(void (*hook)(const struct mg_emu_launch_record *));
/* Blocks of device memory by their number, in the order of addresses; 0 past the last. */
int mg_emu_device_block(int number, void **address, unsigned long long *bytes);
/* One device of compute capability 8.6, or others; count -1: no driver. The current device becomes 0. */
void mg_emu_set_device(int count, int capability);
/* Whether kernels were built for the device: 1, or the error that tells of it, 0: cudaErrorNoKernelImageForDevice, -1:
 * cudaErrorInvalidDeviceFunction. */
void mg_emu_set_code(int there);
void mg_emu_set_current_device(int device); /* of the calling thread */
int mg_emu_current_device(void);
}
#pragma GCC visibility pop

/* True if this call is to fail. */
bool mg_emu_call_fails();
/* False if this acquisition is to fail. */
bool mg_emu_acquire();
void mg_emu_give_back();
#endif
