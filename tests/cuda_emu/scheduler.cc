/* scheduler.cc: runs kernels. Every thread of a block has a stack of its own and goes on until it waits; blocks run
 * one after the other. */
#include <sys/mman.h>

#include <algorithm>
#include <string>
#include <vector>

#include "emulator.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

/* ---- stacks ---- */
#if defined(__x86_64__)
/* Saves what a call must keep and the stack pointer, and takes up another stack. */
extern "C" void mg_emu_switch(void **save, void *load);
asm(R"(
.text
.hidden mg_emu_switch
.globl mg_emu_switch
.type mg_emu_switch, @function
mg_emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size mg_emu_switch, . - mg_emu_switch
)");

struct stack {
    void *pointer;
    char *memory;
};

constexpr int STACK_BYTES = 128 << 10;

static void prepare(struct stack *stack, void (*entry)()) {
    void **top = (void **)(stack->memory + STACK_BYTES);
    *--top = nullptr; /* keeps the stack aligned as after a call */
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    stack->pointer = top;
}

static void switch_to(struct stack *from, struct stack *to) { mg_emu_switch(&from->pointer, to->pointer); }
#else
#include <ucontext.h>

struct stack {
    ucontext_t context;
    char *memory;
};

constexpr int STACK_BYTES = 128 << 10;

static void prepare(struct stack *stack, void (*entry)()) {
    getcontext(&stack->context);
    stack->context.uc_stack.ss_sp = stack->memory;
    stack->context.uc_stack.ss_size = STACK_BYTES;
    stack->context.uc_link = nullptr;
    makecontext(&stack->context, entry, 0);
}

static void switch_to(struct stack *from, struct stack *to) { swapcontext(&from->context, &to->context); }
#endif

/* ---- one block ---- */
enum state { READY, AT_BARRIER, AT_EXCHANGE, DONE };

struct copy {
    void *to;
    const void *from;
    size_t bytes;
    unsigned group;
};

struct thread {
    struct stack *stack;
    enum state state;
    int line;
    unsigned turn; /* exchanges so far */
    dim3 index;
    std::vector<struct copy> copies; /* under way */
    unsigned groups;                 /* of copies so far */
};

struct warp {
    uint64_t values[2][32];
    unsigned arrived, turn;
    int line;
};

constexpr int MAX_THREADS = 1024, SHARED_FENCE = 4096;

static struct {
    std::vector<struct thread> threads;
    std::vector<int> order;
    std::vector<struct warp> warps;
    std::vector<struct stack *> stacks, idle;
    struct stack own; /* of the caller */
    const std::function<void()> *body;
    size_t started;
    int current;
    int order_mode;
    uint64_t random;
    alignas(256) unsigned char shared[MG_EMU_SHARED_BYTES + SHARED_FENCE];
    size_t shared_bytes, most_shared_bytes; /* of this block, of all so far */
    std::string fault;
} block;

static void fail(const std::string &text) {
    if (block.fault.empty())
        block.fault = text;
}

/* Runs threads that have not begun yet, one after the other, on this stack; after the first that waits, another stack
 * takes over. */
static void run_threads() {
    struct stack *stack = block.idle.back();
    for (;;) {
        /* The scheduler has set a thread to start, which takes this stack. */
        block.idle.pop_back();
        while (block.started < block.order.size()) {
            block.current = block.order[block.started++];
            struct thread &thread = block.threads[block.current];
            thread.stack = stack;
            threadIdx = thread.index;
            (*block.body)();
            block.threads[block.current].state = DONE;
        }
        block.idle.push_back(stack);
        switch_to(stack, &block.own);
    }
}

static void wait(enum state state, int line) {
    struct thread &thread = block.threads[block.current];
    thread.state = state;
    thread.line = line;
    switch_to(thread.stack, &block.own);
}

void mg_emu_barrier(int line) { wait(AT_BARRIER, line); }

const uint64_t *mg_emu_exchange(unsigned mask, uint64_t value, int line, bool *last) {
    const int number = block.current, lane = number % 32;
    struct warp &warp = block.warps[number / 32];
    struct thread &thread = block.threads[number];
    const unsigned turn = thread.turn++;
    if (!warp.arrived)
        warp.line = line;
    if (warp.line != line || warp.turn != turn || !(mask >> lane & 1))
        fail("lanes of a warp exchange values at different places");
    warp.values[turn % 2][lane] = value;
    warp.arrived |= 1u << lane;
    if (last)
        *last = warp.arrived == mask;
    if (warp.arrived == mask) {
        warp.arrived = 0;
        warp.turn++;
        for (int i = number / 32 * 32; i < (int)block.threads.size() && i < number / 32 * 32 + 32; i++)
            if (block.threads[i].state == AT_EXCHANGE)
                block.threads[i].state = READY;
    } else
        wait(AT_EXCHANGE, line);
    return warp.values[turn % 2];
}

void mg_emu_copy_async(void *to, const void *from, size_t bytes) {
    struct thread &thread = block.threads[block.current];
    if ((uintptr_t)to % bytes || (uintptr_t)from % bytes)
        fail("an asynchronous copy to or from an address that is no multiple of its size");
    memset(to, 0xff, bytes);
    thread.copies.push_back({to, from, bytes, thread.groups});
}

void mg_emu_commit_copies() { block.threads[block.current].groups++; }

void mg_emu_wait_copies(int pending) {
    struct thread &thread = block.threads[block.current];
    std::vector<struct copy> left;
    for (const struct copy &copy : thread.copies) {
        if (copy.group + (unsigned)pending >= thread.groups)
            left.push_back(copy);
        else if (copy.from)
            memcpy(copy.to, copy.from, copy.bytes);
        else
            memset(copy.to, 0, copy.bytes);
    }
    thread.copies = std::move(left);
}

void *mg_emu_shared(size_t bytes) {
    block.shared_bytes = std::max(block.shared_bytes, bytes);
    return block.shared;
}

/* All threads that are not done wait at one barrier: they may go on. */
static bool release_barrier() {
    int line = 0;
    for (struct thread &thread : block.threads) {
        if (thread.state == DONE)
            fail("a thread ended while others wait for it");
        if (thread.state != AT_BARRIER)
            return false;
        if (line && thread.line != line)
            fail("threads of a block wait at different barriers");
        line = thread.line;
    }
    for (struct thread &thread : block.threads)
        thread.state = READY;
    return true;
}

static void start_threads() {
    while (block.started < block.order.size()) {
        if (block.idle.empty()) {
            struct stack *stack = new struct stack();
            void *memory = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            stack->memory = (char *)memory;
            prepare(stack, run_threads);
            block.stacks.push_back(stack);
            block.idle.push_back(stack);
        }
        switch_to(&block.own, block.idle.back());
    }
}

static void run_block() {
    const auto is_done = [](const struct thread &thread) { return thread.state == DONE; };
    block.started = 0;
    start_threads();
    while (block.fault.empty()) {
        bool moved = false;
        for (int number : block.order)
            if (block.threads[number].state == READY) {
                moved = true;
                block.current = number;
                threadIdx = block.threads[number].index;
                switch_to(&block.own, block.threads[number].stack);
            }
        if (!moved && std::all_of(block.threads.begin(), block.threads.end(), is_done))
            return;
        if (!moved && !release_barrier())
            fail("threads of a block wait for each other for ever");
    }
}

static uint64_t next_random() { return block.random = block.random * 6364136223846793005u + 1442695040888963407u; }

static void prepare_block(dim3 dim) {
    const int threads = (int)(dim.x * dim.y * dim.z);
    block.threads.assign((size_t)threads, {});
    block.warps.assign((size_t)(threads + 31) / 32, {});
    block.order.resize((size_t)threads);
    for (int i = 0; i < threads; i++) {
        block.threads[i].index = dim3((unsigned)i % dim.x, (unsigned)i / dim.x % dim.y, (unsigned)i / (dim.x * dim.y));
        block.order[i] = block.order_mode == 1 ? threads - 1 - i : i;
    }
    for (int i = threads - 1; block.order_mode > 1 && i > 0; i--)
        std::swap(block.order[i], block.order[(next_random() >> 33) % (uint64_t)(i + 1)]);
    block.most_shared_bytes = std::max(block.most_shared_bytes, block.shared_bytes);
    memset(block.shared, 0xff, block.most_shared_bytes + SHARED_FENCE);
    block.shared_bytes = 0;
}

static void check_shared() {
    for (size_t i = 0; i < SHARED_FENCE; i++)
        if (block.shared_bytes && block.shared[block.shared_bytes + i] != 0xff)
            return fail("a block wrote beyond its shared memory");
}

/* A block that failed leaves threads in the middle: their stacks are not used again. */
static void abandon() {
    block.stacks.clear();
    block.idle.clear();
}

cudaError_t mg_emu_launch(const cudaLaunchConfig_t &config, const std::function<void()> &thread) {
    const dim3 grid = config.gridDim, dim = config.blockDim;
    const unsigned threads = dim.x * dim.y * dim.z;
    if (!threads || threads > MAX_THREADS || !grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535 || config.dynamicSmemBytes)
        return cudaErrorInvalidValue;
    if (!block.body)
        memset(block.shared, 0xff, sizeof block.shared);
    block.body = &thread;
    block.fault.clear();
    block.random = (uint64_t)block.order_mode;
    gridDim = grid;
    blockDim = dim;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = dim3(x, y, z);
                prepare_block(dim);
                run_block();
                check_shared();
                if (!block.fault.empty()) {
                    abandon();
                    return cudaErrorLaunchFailure;
                }
            }
    return cudaSuccess;
}

static void (*launch_hook)(const struct mg_emu_launch_record *);

extern "C" void mg_emu_set_launch_hook(void (*hook)(const struct mg_emu_launch_record *)) { launch_hook = hook; }

cudaError_t mg_emu_launch_kernel(const cudaLaunchConfig_t &config, const void *kernel,
                                 const std::vector<unsigned char> &arguments, const std::function<void()> &thread) {
    const dim3 grid = config.gridDim;
    struct mg_emu_launch_record record = {
        .kernel = kernel,
        .grid = {grid.x, grid.y, grid.z},
        .threads = config.blockDim.x,
        .arguments = arguments.data(),
        .argument_bytes = arguments.size(),
        .is_done = 0,
    };
    if (launch_hook)
        launch_hook(&record);
    const cudaError_t status = mg_emu_launch(config, thread);
    record.is_done = 1;
    if (launch_hook)
        launch_hook(&record);
    return status;
}

const char *mg_emu_launch_fault() { return block.fault.c_str(); }

extern "C" void mg_emu_set_order(int order) { block.order_mode = order; }
