/* block.cpp: runs a grid: its blocks one after another, the threads of a block as fibers.
 *
 * A stack is taken lazily. The first fiber runs the block's threads in a loop, each to its end. When one of
 * them must wait, its stack stays as it is, and another fiber goes on with the loop. So a kernel that never
 * waits is a plain loop on one stack.
 */
#include "block.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <utility>

#include "errors.h"
#include "modes.h"
#include "sanitizer_hooks.h"
#include "shared.h"

namespace on_cpu {

thread_head *current;
grid_state grid;
block_thread threads[THREADS_MAX];
block_state block;

/* The launch that runs. */
static const launch_shape *shape;
static void (*thread_body)(void *arguments);
static void *thread_arguments;

/* The loop over threads: order[next] starts next. */
static unsigned short order[THREADS_MAX];
static unsigned next;

/* Threads that may go on, first come first served: a ring, since each thread is in it once at most. */
static unsigned short ready[THREADS_MAX];
static unsigned ready_head, ready_tail;

/* The caller of the launch. */
static void *caller_stopped_at, *caller_tsan_fiber;
static const void *caller_stack_bottom;
static size_t caller_stack_bytes;
static bool from_caller;
static bool failed;
static char grid_begins, grid_ends;   /* where the thread sanitizer sees order between caller and threads */

/* ---- switching ---- */

enum { ORDERS_NOTHING = 1 };    /* a flag of __tsan_switch_to_fiber */

static void go(void **save, void *load, block_thread *to) {
    void *fake_stack = nullptr;
    current = to;
    if (__tsan_switch_to_fiber)
        __tsan_switch_to_fiber(to ? to->watched[block.turn].fiber : caller_tsan_fiber, ORDERS_NOTHING);
    if (__sanitizer_start_switch_fiber) {
        __sanitizer_start_switch_fiber(&fake_stack, to ? to->stack->low : caller_stack_bottom,
                                       to ? to->stack->bytes : caller_stack_bytes);
    }
    pg_fiber_switch(save, load);
    if (__sanitizer_finish_switch_fiber) {
        const void *bottom;
        size_t bytes;
        __sanitizer_finish_switch_fiber(fake_stack, &bottom, &bytes);
    }
}

static block_thread *next_ready(void) {
    if (ready_head == ready_tail) return nullptr;
    if (modes.order == ORDER_RANDOM) {
        const unsigned other = ready_head + random_below(ready_tail - ready_head);
        std::swap(ready[ready_head % THREADS_MAX], ready[other % THREADS_MAX]);
    }
    return &threads[ready[ready_head++ % THREADS_MAX]];
}

static void thread_loop(void);

/* Leaves the running stack for: a thread that may go on, else one that has not started, else the caller. */
static void leave(void **save, bool ended) {
    const bool start_first =
        modes.order == ORDER_RANDOM && !ended && next < block.size && random_below(4) == 0;
    if (!start_first) {
        if (block_thread *thread = next_ready()) return go(save, thread->stopped_at, thread);
    }
    if (next < block.size) {
        block_thread *thread = &threads[order[next]];
        fiber_stack **const kept = &thread->watched[block.turn].stack;
        if (!*kept) {
            thread->stack = stack_take();
            if (__tsan_switch_to_fiber) *kept = thread->stack;
        } else {
            thread->stack = *kept;
        }
        if (!thread->stack) fail(shape->file, shape->line, "no memory for the threads' stacks");
        return go(save, fiber_prepare(thread->stack, thread_loop), thread);
    }
    if (block.live == 0) return go(save, caller_stopped_at, nullptr);
    fail(shape->file, shape->line,
         "deadlock: no thread of the block can go on (a barrier or a collective that some never reach)");
}

static void thread_loop(void) {
    if (__sanitizer_finish_switch_fiber) {
        const void *bottom;
        size_t bytes;
        __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
        if (from_caller) caller_stack_bottom = bottom, caller_stack_bytes = bytes;
    }
    from_caller = false;
    fiber_stack *stack = running()->stack;
    while (next < block.size) {
        block_thread *thread = &threads[order[next++]];
        thread->stack = stack;
        current = thread;
        if (__tsan_switch_to_fiber) {
            watched_thread &watched = thread->watched[block.turn];
            __tsan_switch_to_fiber(watched.fiber, ORDERS_NOTHING);
            if (!watched.ran) acquire(&grid_begins);
            watched.ran = true;
        }
        thread_body(thread_arguments);
        if (running()->copies > 0) async_copies_end();
        block.live--;
        barrier_thread_ends();
        if (ready_head != ready_tail || __tsan_switch_to_fiber) break;
    }
    if (!__tsan_switch_to_fiber) stack_give(stack);
    void *never;
    leave(&never, true);
    __builtin_unreachable();
}

void wait_in(const char *what, const char *file, int line) {
    block_thread *thread = running();
    thread->waits_in = what;
    thread->file = file;
    thread->line = line;
    leave(&thread->stopped_at, false);
    thread->waits_in = nullptr;
}
void wake(unsigned thread) { ready[ready_tail++ % THREADS_MAX] = (unsigned short)thread; }

/* ---- failing ---- */

void fail(const char *file, int line, const char *format, ...) {
    char what[512], where[512] = "", waiting[256] = "";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    const uint3 at = grid.block_index;
    if (current) {
        const uint3 i = current->index;
        snprintf(where, sizeof where, "block (%u, %u, %u), thread (%u, %u, %u), ", at.x, at.y, at.z, i.x, i.y,
                 i.z);
    }
    unsigned count = 0, first = 0;
    for (unsigned i = block.size; i-- > 0;) {
        if (threads[i].waits_in) count++, first = i;
    }
    if (count > 0) {
        snprintf(waiting, sizeof waiting, "; %u of %u threads wait, thread %u in %s at %s:%d", count,
                 block.size, first, threads[first].waits_in, threads[first].file, threads[first].line);
    }
    launch_failed("kernel %s: %s (%s%s:%d)%s", shape->name, what, where, file, line, waiting);
    failed = true;
    void *never;
    go(&never, caller_stopped_at, nullptr);
    __builtin_unreachable();
}

/* The threads' stacks are abandoned where they stand: kernels own nothing. */
static void clean_up(void) {
    stacks_reset();
    barriers_reset();
    warps_reset();
    async_copies_reset();
    for (block_thread &thread : threads) {
        thread.waits_in = nullptr;
        thread.stack = nullptr;
        for (watched_thread &w : thread.watched) {
            if (w.fiber) __tsan_destroy_fiber(w.fiber);
            w = {nullptr, nullptr, false};
        }
    }
    failed = false;
}

/* ---- the grid ---- */

static void shuffle_order(void) {
    for (unsigned i = block.size; i > 1; i--) std::swap(order[i - 1], order[random_below(i)]);
}

/* threads[] as the launch's shape wants it. */
static void prepare_threads(dim3 size) {
    static dim3 prepared = dim3(0, 0, 0);
    if (prepared.x != size.x || prepared.y != size.y || prepared.z != size.z) {
        for (unsigned i = 0; i < block.size; i++) {
            threads[i].index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
            threads[i].linear = i;
        }
        prepared = size;
    }
    for (unsigned i = 0; i < block.size; i++)
        order[i] = (unsigned short)(modes.order == ORDER_REVERSE ? block.size - 1 - i : i);
    if (__tsan_create_fiber) {
        for (unsigned i = 0; i < block.size; i++) {
            for (watched_thread &w : threads[i].watched) {
                if (!w.fiber) w.fiber = __tsan_create_fiber(0);
            }
        }
        caller_tsan_fiber = __tsan_get_current_fiber();
    }
}

/* What the threads of the launch did, abandoned ones too, comes before what its caller does next. Once for
 * all blocks that a watched thread ran in: each order that the sanitizer learns costs it microseconds. */
static void watched_threads_end(void) {
    if (!__tsan_switch_to_fiber) return;
    for (unsigned i = 0; i < block.size; i++) {
        for (watched_thread &w : threads[i].watched) {
            if (!w.ran) continue;
            __tsan_switch_to_fiber(w.fiber, ORDERS_NOTHING);
            release(&grid_ends);
            w.ran = false;
        }
    }
    __tsan_switch_to_fiber(caller_tsan_fiber, ORDERS_NOTHING);
    acquire(&grid_ends);
}

/* The k-th block to run of n: in random order k times a step that has no factor in common with n, from a
 * random start. */
struct block_order {
    unsigned long long n, step, start;
    explicit block_order(unsigned long long count) : n(count), step(1), start(0) {
        if (modes.order != ORDER_RANDOM) return;
        start = random_below(n);
        do step = 1 + random_below(n);
        while (common_factor(step, n) != 1);
    }
    static unsigned long long common_factor(unsigned long long a, unsigned long long b) {
        while (b) {
            const unsigned long long rest = a % b;
            a = b, b = rest;
        }
        return a;
    }
    unsigned long long operator()(unsigned long long k) const {
        if (modes.order == ORDER_REVERSE) return n - 1 - k;
        return modes.order == ORDER_RANDOM ? (unsigned long long)((start + (unsigned __int128)k * step) % n)
                                           : k;
    }
};

void run_grid(const launch_shape &launch, void (*body)(void *arguments), void *arguments) {
    shape = &launch;
    thread_body = body;
    thread_arguments = arguments;
    grid.grid = launch.grid;
    grid.block = launch.block;
    block.size = launch.block.x * launch.block.y * launch.block.z;
    current = nullptr;
    prepare_threads(launch.block);
    grid.shared = shared_begin(launch.shared_bytes);
    if (launch.shared_bytes > 0 && !grid.shared) {
        launch_failed("kernel %s: no memory for its shared memory", launch.name);
        return;
    }
    const unsigned long long blocks = (unsigned long long)launch.grid.x * launch.grid.y * launch.grid.z;
    const block_order which(blocks);
    release(&grid_begins);
    for (unsigned long long k = 0; k < blocks && !failed; k++) {
        const unsigned long long b = which(k), layer = (unsigned long long)launch.grid.x * launch.grid.y;
        grid.block_index = {(unsigned)(b % launch.grid.x), (unsigned)(b / launch.grid.x % launch.grid.y),
                            (unsigned)(b / layer)};
        block.live = block.size;
        next = ready_head = ready_tail = 0;
        if (modes.order == ORDER_RANDOM) shuffle_order();
        block.turn ^= 1;
        shared_next_block(grid.shared, launch.shared_bytes);
        from_caller = true;
        leave(&caller_stopped_at, false);
    }
    current = nullptr;
    watched_threads_end();
    if (failed) clean_up();
    shared_end(grid.shared);
    grid.shared = nullptr;
}

}   // namespace on_cpu
