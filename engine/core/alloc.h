/* alloc.h: the caching allocator, one per device, or one per stream where a device has some. Blocks are
 * 64-byte aligned; freed blocks are kept by size class and handed out again. Their memory is touched on
 * the host alone. */
#ifndef PG_ALLOC_H
#define PG_ALLOC_H

#include "error.h"

typedef struct pg_device pg_device;
typedef struct pg_allocator pg_allocator;

/* One pool of blocks; never destroyed (blocks may outlive everything). The pools of one device are
 * siblings: they share their counters, and emptying one's cache empties all. */
pg_allocator *pg_allocator_new(const pg_device *device, pg_allocator *sibling);
/* The pool keeps nothing and rounds nothing: each block is one of the device's, so that who goes beyond it
 * is seen. */
void pg_allocator_exact(pg_allocator *a);
/* The pool is a captured graph's: what comes back to it is used again by each replay. */
void pg_allocator_replayed(pg_allocator *a);
/* Nothing more will be asked of this pool: its memory goes back to the device as its blocks come in. */
void pg_allocator_retire(pg_allocator *a);
/* At least `bytes` (zero allowed: a valid pointer). *got is the size to give back to pg_release_memory.
 * Answers PG_ERROR_MEMORY after having emptied the device's cache (but see pg_memory_collects).
 * Thread-safe. */
int pg_allocate(pg_allocator *a, size_t bytes, void **memory, size_t *got);
void pg_release_memory(pg_allocator *a, void *memory, size_t got);
/* The same for a block that streams other than the pool's own may still use: handed out again when the
 * device's `passed` says that they are through. */
void pg_release_when(pg_allocator *a, void *memory, size_t got, void *guard);
void pg_allocator_empty_cache(pg_allocator *a);
void pg_allocator_statistics(pg_allocator *a, pg_memory_stats *stats);
void pg_allocator_reset_peak(pg_allocator *a);
/* A call that fails now for want of memory is made once more after collecting (pg_memory_collects): doors
 * say so, until the op starts to change what it was given. */
typedef struct pg_memory_caller { bool collects, collected, asks; } pg_memory_caller;
extern PG_THREAD pg_memory_caller pg_memory_here;
/* Host memory for the engine's own structures; given back with free. As the C library's, but that tests can
 * make them fail: the n-th allocation of the process does where PERIGEE_FAIL_ALLOCATION is n, and all after
 * it where it is n+. pg_allocate counts too. */
void *pg_malloc(size_t bytes);
void *pg_calloc(size_t n, size_t bytes);
void *pg_realloc(void *memory, size_t bytes);
char *pg_strdup(const char *text);
/* Whether this thread's debt passed its limit since the last pg_debt_clear: the door then answers
 * PG_COLLECT. */
bool pg_debt_due(void);

#endif
