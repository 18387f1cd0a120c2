/* parallel.c: the thread pool.
 *
 * One job runs at a time; a caller that finds the pool taken by another thread works alone, which is as right
 * and never waits. A job is published by opening a gate; workers that see it open enter, take pieces of the
 * range until none is left, and go. The caller takes pieces too, closes the gate when they run out, and waits
 * only for the workers that did enter: one that sleeps too deep to come in time costs nothing.
 *
 * The gate is one atomic word: the upper half counts openings and closings (odd: open), the lower half the
 * workers inside. Job fields change only while it is closed and nobody is inside.
 */

#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host_limits.h"

enum { THREADS_MAX = 256, PIECES_PER_THREAD = 4 };
static const int64_t SPIN_NS = 100 * 1000;   /* a worker waits this long for the next job before it sleeps */

#define GATE_TURN (UINT64_C(1) << 32)
#define gate_is_open(g) (((g) >> 32) & 1)
#define gate_inside(g) ((uint32_t)(g))

static struct {
    _Alignas(64) _Atomic uint64_t gate;
    _Alignas(64) _Atomic int64_t next;         /* piece to be taken */
    _Alignas(64) pg_body body;
    void *arg;
    int64_t n, piece, pieces;
    _Atomic int limit;                         /* workers with a number below it may enter */
    _Alignas(64) atomic_flag taken;            /* a caller owns the pool */
    _Atomic int threads;                       /* wanted, the caller included; 0: not asked yet */
    int started;                               /* workers that exist; guarded by taken */
    _Atomic int sleepers;
    _Atomic bool caller_sleeps;
    pthread_mutex_t mutex;
    pthread_cond_t work, done;
} pool = {.taken = ATOMIC_FLAG_INIT, .mutex = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static PG_THREAD struct { bool inside; int budget; } here;

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Takes pieces until none is left. */
static void take_pieces(int worker)
{
    pg_body body = pool.body;
    void *arg = pool.arg;
    int64_t n = pool.n, piece = pool.piece, pieces = pool.pieces;
    here.inside = true;
    for (;;) {
        int64_t k = atomic_fetch_add_explicit(&pool.next, 1, memory_order_relaxed);
        if (k >= pieces) break;
        int64_t begin = k * piece, end = n - begin < piece ? n : begin + piece;
        body(arg, begin, end, worker);
    }
    here.inside = false;
}

/* Enters the gate if it is open for this worker; turn is what it entered last, so as not to enter one opening
 * twice. */
static bool enter(int worker, uint64_t *turn)
{
    uint64_t g = atomic_load_explicit(&pool.gate, memory_order_acquire);
    while (gate_is_open(g) && g >> 32 != *turn) {
        if (atomic_load_explicit(&pool.limit, memory_order_relaxed) <= worker) return false;
        if (atomic_compare_exchange_weak_explicit(&pool.gate, &g, g + 1, memory_order_acq_rel,
                                                  memory_order_acquire)) {
            *turn = g >> 32;
            return true;
        }
    }
    return false;
}

static void leave(void)
{
    uint64_t g = atomic_fetch_sub_explicit(&pool.gate, 1, memory_order_acq_rel) - 1;
    if (gate_is_open(g) || gate_inside(g) != 0) return;
    if (!atomic_load(&pool.caller_sleeps)) return;
    pthread_mutex_lock(&pool.mutex);
    pthread_cond_signal(&pool.done);
    pthread_mutex_unlock(&pool.mutex);
}

static void *worker_main(void *arg)
{
    int worker = (int)(intptr_t)arg;
    uint64_t turn = 0;
    for (;;) {
        int64_t until = 0;
        bool entered;
        for (int spins = 0; !(entered = enter(worker, &turn)); spins++) {
            relax();
            if ((spins & 63) != 63) continue;
            int64_t t = now_ns();
            if (until == 0) until = t + SPIN_NS;
            else if (t > until) break;
        }
        if (!entered) {
            pthread_mutex_lock(&pool.mutex);
            atomic_fetch_add(&pool.sleepers, 1);
            while (!(entered = enter(worker, &turn))) pthread_cond_wait(&pool.work, &pool.mutex);
            atomic_fetch_sub(&pool.sleepers, 1);
            pthread_mutex_unlock(&pool.mutex);
        }
        take_pieces(worker);
        leave();
    }
    return NULL;
}

/* Starts workers until there are `wanted`. What cannot be started is done without. */
static void start_workers(int wanted)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) == 0) {
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        while (pool.started < wanted) {
            pthread_t thread;
            if (pthread_create(&thread, &attributes, worker_main, (void *)(intptr_t)(pool.started + 1)) != 0)
                break;
            pool.started++;
        }
        pthread_attr_destroy(&attributes);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int default_threads(void)
{
    int n = 1;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
    else if (sysconf(_SC_NPROCESSORS_ONLN) > 0) n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    double quota = pg_host_cpu_quota();
    if (quota > 0 && n > quota) n = (int)(quota + 0.999);
    return n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : n;
}

int pg_get_num_threads(void)
{
    int n = atomic_load_explicit(&pool.threads, memory_order_relaxed);
    if (n == 0) {
        int none = 0;
        n = default_threads();
        if (!atomic_compare_exchange_strong(&pool.threads, &none, n)) n = none;
    }
    return n;
}

int pg_set_num_threads(int n)
{
    if (n < 1 || n > THREADS_MAX)
        return pg_fail("set_num_threads: expected 1 to %d threads, got %d", THREADS_MAX, n);
    atomic_store(&pool.threads, n);
    return PG_OK;
}

int pg_parallel_threads(void)
{
    if (here.inside || here.budget == 1) return 1;
    int n = pg_get_num_threads();
    return here.budget > 0 && here.budget < n ? here.budget : n;
}

int64_t pg_parallel_grain_limit(void)
{
    static _Atomic int64_t limit;
    int64_t known = atomic_load_explicit(&limit, memory_order_relaxed);
    if (known == 0) {
        const char *wish = getenv("PERIGEE_GRAIN");
        known = wish ? strtoll(wish, NULL, 10) : 0;
        if (known < 1) known = INT64_MAX;
        atomic_store_explicit(&limit, known, memory_order_relaxed);
    }
    return known;
}

void pg_parallel_budget(int threads) { here.budget = threads < 1 ? 1 : threads; }

/* Waits for the workers inside a closed gate. */
static void wait_for_workers(void)
{
    for (int spins = 0; spins < 4096; spins++) {
        if (gate_inside(atomic_load_explicit(&pool.gate, memory_order_acquire)) == 0) return;
        relax();
    }
    pthread_mutex_lock(&pool.mutex);
    atomic_store(&pool.caller_sleeps, true);
    while (gate_inside(atomic_load(&pool.gate)) != 0) pthread_cond_wait(&pool.done, &pool.mutex);
    atomic_store(&pool.caller_sleeps, false);
    pthread_mutex_unlock(&pool.mutex);
}

void pg_parallel(int64_t n, int64_t grain, pg_body body, void *arg)
{
    if (n <= 0) return;
    if (grain < 1) grain = 1;
    if (grain > pg_parallel_grain_limit()) grain = pg_parallel_grain_limit();
    int threads = n <= grain ? 1 : pg_parallel_threads();
    if (threads == 1 || atomic_flag_test_and_set_explicit(&pool.taken, memory_order_acquire)) {
        body(arg, 0, n, 0);
        return;
    }
    if (pool.started < threads - 1) start_workers(threads - 1);

    int64_t most = (n + grain - 1) / grain, pieces = (int64_t)threads * PIECES_PER_THREAD;
    if (pieces > most) pieces = most;
    int64_t piece = (n + pieces - 1) / pieces;
    if (piece > 1024) piece = (piece + 63) / 64 * 64;   /* pieces start on cache lines */
    pool.body = body;
    pool.arg = arg;
    pool.n = n;
    pool.piece = piece;
    pool.pieces = (n + piece - 1) / piece;
    atomic_store_explicit(&pool.next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool.limit, threads, memory_order_relaxed);
    atomic_fetch_add(&pool.gate, GATE_TURN);
    if (atomic_load(&pool.sleepers) > 0) {
        pthread_mutex_lock(&pool.mutex);
        pthread_cond_broadcast(&pool.work);
        pthread_mutex_unlock(&pool.mutex);
    }
    take_pieces(0);
    uint64_t g = atomic_fetch_add(&pool.gate, GATE_TURN);
    if (gate_inside(g) != 0) wait_for_workers();
    atomic_flag_clear_explicit(&pool.taken, memory_order_release);
}
