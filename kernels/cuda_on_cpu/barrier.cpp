/* barrier.cpp: __syncthreads and the named barriers.
 *
 * Strict where the hardware is lenient: all threads of the block come to the same line, and none has ended
 * before.
 */
#include "block.h"
#include "sanitizer_hooks.h"

namespace on_cpu {

enum { BARRIERS = 16 };
struct barrier_state {
    unsigned arrived, generation;
    int any, count;                      /* votes: any nonzero, how many */
    int last_any, last_count, last_all;  /* of the generation before, for those who wake */
    const char *file;
    int line;
    unsigned short waiting[THREADS_MAX];
    char order[2][2];                    /* for the thread sanitizer: [block's turn][generation's turn] */
};
static barrier_state barriers[BARRIERS];

void barriers_reset(void) {
    for (barrier_state &b : barriers) {
        b.arrived = 0;
        b.any = b.count = 0;
    }
}

int barrier(int id, unsigned expected, int vote, barrier_result result, const char *file, int line) {
    barrier_state &b = barriers[id];
    if (id < 0 || id >= BARRIERS) fail(file, line, "barrier %d: there are 0 to %d", id, BARRIERS - 1);
    if (expected == 0) expected = block.size;
    if (expected == block.size && block.live != block.size) {
        fail(file, line, "a barrier of the whole block, of which %u of %u threads have ended",
             block.size - block.live, block.size);
    }
    if (b.arrived == 0) {
        b.file = file;
        b.line = line;
    } else if (id == 0 && !same_place(file, line, b.file, b.line)) {
        fail(file, line, "threads of one block meet in two different barriers, the other at %s:%d", b.file,
             b.line);
    }
    const unsigned generation = b.generation;
    b.any |= vote != 0;
    b.count += vote != 0;
    char *const order = &b.order[block.turn][generation & 1];
    release(order);
    if (b.arrived + 1 < expected) {
        b.waiting[b.arrived++] = (unsigned short)running()->linear;
        wait_in("__syncthreads", file, line);
    } else {
        for (unsigned i = 0; i < b.arrived; i++) wake(b.waiting[i]);
        b.last_any = b.any;
        b.last_count = b.count;
        b.last_all = b.count == (int)expected;
        b.arrived = 0;
        b.any = b.count = 0;
        b.generation++;
    }
    acquire(order);
    switch (result) {
    case BARRIER_OR: return b.last_any;
    case BARRIER_AND: return b.last_all;
    case BARRIER_COUNT: return b.last_count;
    default: return 0;
    }
}

void barrier_thread_ends(void) {
    const barrier_state &b = barriers[0];
    if (b.arrived > 0)
        fail(b.file, b.line, "a thread ends while %u others wait in a barrier that it has not reached",
             b.arrived);
}

}   // namespace on_cpu
