/* thread.h: what a CUDA thread sees of itself and of its block: indices, dimensions, barriers, shared memory.
 *
 * Blocks run one after another. The threads of a block are fibers of one OS thread: exactly one of them runs,
 * `current`, until it blocks in a barrier, a warp's collective, or ends. The block that runs is `grid`.
 */
#ifndef PG_ON_CPU_THREAD_H
#define PG_ON_CPU_THREAD_H

#include "vector_types.h"

#pragma GCC visibility push(hidden)
namespace on_cpu {

struct thread_head {
    uint3 index;       /* threadIdx */
    unsigned linear;   /* its place in the block; linear % 32 is the lane, linear / 32 the warp */
};
struct grid_state {
    dim3 grid, block;
    uint3 block_index;
    char *shared;      /* the launch's dynamic shared memory, 128-byte aligned, or NULL */
};
extern thread_head *current;
extern grid_state grid;

enum barrier_result { BARRIER_PLAIN, BARRIER_OR, BARRIER_AND, BARRIER_COUNT };

/* Waits until `threads` threads of the block (0: all of it) have come to barrier `id`, 0 to 15; gives what
 * `result` asks of all their `vote`s. 0 is __syncthreads' own. */
int barrier(int id, unsigned threads, int vote, barrier_result result, const char *file, int line);

/* Ends the launch with cudaErrorLaunchFailure; the message, written as by printf, gets kernel, block, thread,
 * file and line. */
[[noreturn]] void fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

}   // namespace on_cpu
#pragma GCC visibility pop

/* The caller's place, as the last two parameters of what stands in a kernel. */
#define PG_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* One block at a time, so a variable of the block is a static one. A thread_local's place in memory is known
 * for the whole library (shared.cpp poisons it), whereas g++ forgets the section attribute of a template's;
 * under the address sanitizer it is an ordinary static, which gets red zones. */
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

#define threadIdx (on_cpu::current->index)
#define blockIdx (on_cpu::grid.block_index)
#define blockDim (on_cpu::grid.block)
#define gridDim (on_cpu::grid.grid)
static constexpr int warpSize = 32;

static inline void __syncthreads(PG_PLACE) { on_cpu::barrier(0, 0, 0, on_cpu::BARRIER_PLAIN, file, line); }
static inline int __syncthreads_or(int vote, PG_PLACE) {
    return on_cpu::barrier(0, 0, vote, on_cpu::BARRIER_OR, file, line);
}
static inline int __syncthreads_and(int vote, PG_PLACE) {
    return on_cpu::barrier(0, 0, vote, on_cpu::BARRIER_AND, file, line);
}
static inline int __syncthreads_count(int vote, PG_PLACE) {
    return on_cpu::barrier(0, 0, vote, on_cpu::BARRIER_COUNT, file, line);
}

#endif
