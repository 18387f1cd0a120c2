/* parallel.h: the engine's own thread pool. Signals are blocked in its threads; a worker waits in a bounded
 * spin, then sleeps. */
#ifndef PG_PARALLEL_H
#define PG_PARALLEL_H

#include "error.h"
#include "../../kernels/kernels.h"

/* Splits [0, n) in contiguous chunks over the calling thread and the pool's; returns when all are done. n <=
 * grain, a pool of one, a call from inside a body, or a thread with a budget of one (pg_parallel_budget) runs
 * everything in place. */
void pg_parallel(int64_t n, int64_t grain, pg_body body, void *arg);
/* How many workers pg_parallel may use from this thread now. */
int pg_parallel_threads(void);
/* No grain is taken as larger than this: INT64_MAX, or PERIGEE_GRAIN, with which tests make small tensors use
 * every thread. Read at the first call. */
int64_t pg_parallel_grain_limit(void);
/* This thread's budget: loader threads have one. */
void pg_parallel_budget(int threads);

#endif
