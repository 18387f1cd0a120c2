/* async_copy.h: copies from global to shared memory that a thread starts and waits for later (cp.async,
 * compute capability 8.0).
 *
 * Nothing lands before the wait that asks for it, so a forgotten wait reads what was there before (NaN where
 * shared memory is poisoned), and a source that changes too early is seen changed. A thread that ends with
 * copies under way fails the launch.
 */
#ifndef PG_ON_CPU_ASYNC_COPY_H
#define PG_ON_CPU_ASYNC_COPY_H

#pragma GCC visibility push(hidden)
namespace on_cpu {

struct async_copy {
    void *to;
    const void *from;
    int bytes, taken;     /* 4, 8 or 16 are written: `taken` from the source, zeros for the rest */
    unsigned group;
};

/* Starts one; both addresses must be aligned to `bytes`. */
void async_copy_start(void *to, const void *from, int bytes, int taken, const char *file, int line);
/* What was started since the last commit becomes a group. */
void async_copy_commit(void);
/* Gives the oldest copy under way of the calling thread, all groups but the last `keep` considered; false
 * where there is none. */
bool async_copy_next(int keep, async_copy *copy);

/* Waits until at most `keep` groups are under way. The bytes move here, as the thread's own reads and writes,
 * so that the sanitizers see them. */
static inline void async_copy_wait(int keep) {
    async_copy copy;
    while (async_copy_next(keep, &copy)) {
        for (int i = 0; i < copy.bytes; i += 4) {
            ((unsigned *)copy.to)[i / 4] = i < copy.taken ? ((const unsigned *)copy.from)[i / 4] : 0u;
        }
    }
}

}   // namespace on_cpu
#pragma GCC visibility pop

#endif
