/* block.h: the threads of the block that runs, and how one that must wait lets others go on. Used by
 * barrier.cpp, warp.cpp and async_copy.cpp; block.cpp has the scheduler.
 *
 * All of this is guarded by the device's lock (device.h): one block runs in the whole process.
 */
#ifndef PG_ON_CPU_BLOCK_H
#define PG_ON_CPU_BLOCK_H

#include <string.h>

#include "fiber.h"
#include "include/on_cpu/launch.h"
#include "include/on_cpu/thread.h"

namespace on_cpu {

enum { THREADS_MAX = 1024, WARP = 32, WARPS_MAX = THREADS_MAX / WARP };

/* For the thread sanitizer a CUDA thread is one of its own, with a stack that no other uses. Blocks take
 * turns with two of them, so that nothing orders a block before the next one. */
struct watched_thread {
    void *fiber;
    fiber_stack *stack;
    bool ran;                 /* in the launch that runs */
};

struct block_thread : thread_head {
    void *stopped_at;         /* stack pointer, while it waits */
    fiber_stack *stack;       /* the one it runs on; threads that never wait share one */
    watched_thread watched[2];
    const char *waits_in;     /* what it waits in, where; NULL: it does not wait */
    const char *file;
    int line;
    int copies;               /* asynchronous copies under way */
};
extern block_thread threads[THREADS_MAX];

struct block_state {
    unsigned size;            /* threads of a block */
    unsigned live;            /* of these, not yet ended */
    unsigned turn;            /* 0 or 1, block by block */
};
extern block_state block;

static inline block_thread *running(void) { return static_cast<block_thread *>(current); }

static inline bool same_place(const char *file, int line, const char *other_file, int other_line) {
    return line == other_line && (file == other_file || strcmp(file, other_file) == 0);
}

/* The running thread waits until somebody wakes it. */
void wait_in(const char *what, const char *file, int line);
void wake(unsigned thread);

/* barrier.cpp, warp.cpp, async_copy.cpp: a thread ends; and nothing of an abandoned block is remembered. */
void barrier_thread_ends(void);
void barriers_reset(void);
void warps_reset(void);
void async_copies_end(void);
void async_copies_reset(void);

}   // namespace on_cpu

#endif
