/* async_copy.cpp: each thread's copies under way. See include/on_cpu/async_copy.h. */
#include "include/on_cpu/async_copy.h"

#include <stdint.h>

#include "block.h"

namespace on_cpu {

/* A ring; static, since what a thread allocates and frees the thread sanitizer would watch. */
enum { UNDER_WAY_MAX = 256 };
struct thread_copies {
    unsigned head, tail, group;
    async_copy queue[UNDER_WAY_MAX];
};
static thread_copies copies[THREADS_MAX];

void async_copy_start(void *to, const void *from, int bytes, int taken, const char *file, int line) {
    if (bytes != 4 && bytes != 8 && bytes != 16)
        fail(file, line, "an asynchronous copy of %d bytes: 4, 8 or 16 can be", bytes);
    if (taken < 0 || taken > bytes || taken % 4)
        fail(file, line, "an asynchronous copy takes %d of %d bytes", taken, bytes);
    if (((uintptr_t)to | (uintptr_t)from) & (uintptr_t)(bytes - 1)) {
        fail(file, line, "an asynchronous copy of %d bytes from %p to %p: not aligned", bytes, from, to);
    }
    thread_copies &mine = copies[current->linear];
    if (mine.tail - mine.head == UNDER_WAY_MAX)
        fail(file, line, "more than %d asynchronous copies of a thread under way", UNDER_WAY_MAX);
    mine.queue[mine.tail++ % UNDER_WAY_MAX] = {to, from, bytes, taken, mine.group};
    running()->copies++;
}

void async_copy_commit(void) { copies[current->linear].group++; }

bool async_copy_next(int keep, async_copy *copy) {
    thread_copies &mine = copies[current->linear];
    if (mine.head == mine.tail) return false;
    const async_copy &oldest = mine.queue[mine.head % UNDER_WAY_MAX];
    if ((int)(mine.group - oldest.group) <= keep) return false;
    *copy = oldest;
    mine.head++;
    running()->copies--;
    return true;
}

void async_copies_end(void) {
    fail("its end", 0, "a thread ends with %d asynchronous copies that it never waited for",
         running()->copies);
}

void async_copies_reset(void) {
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        copies[i].head = copies[i].tail;
        threads[i].copies = 0;
    }
}

}   // namespace on_cpu
