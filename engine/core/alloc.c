/* alloc.c: the caching allocator.
 *
 * Sizes are rounded up to classes: multiples of 64 bytes up to 1 KiB, then eight a doubling up to 64 MiB,
 * then multiples of 2 MiB. Blocks up to 1 MiB are cut from chunks (2 to 32 MiB, of whatever classes come
 * along); larger ones are asked of the device one by one. A freed block goes on its class's stack and is
 * handed out again, the last freed first: it is the one still in the cache. The stacks lie outside the
 * blocks, whose memory the process may not be able to read, and have room for every block of their class
 * before it is made, so giving back never allocates and never fails.
 *
 * A device whose work is queued has one allocator (a pool) for each stream: a block that is given back is
 * handed out again at once to what comes later on the same stream, which is ordered behind its last use.
 * Where another stream uses it too it waits, with a guard that says when that stream is through
 * (pg_release_when). A captured graph has a pool of its own, since each replay uses the same blocks.
 *
 * One lock guards all pools of a device. Uncontended it costs a few nanoseconds, less than keeping exact
 * statistics without it would. */
#include "alloc.h"

#include <stdatomic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../device/device.h"
#include "debt.h"

#if defined(__SANITIZE_ADDRESS__)
#define PG_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PG_ASAN 1
#endif
#endif
#ifdef PG_ASAN
#include <sanitizer/asan_interface.h>
#endif

enum {
    LINEAR = 16,                       /* classes that are multiples of 64 bytes */
    CLASSES = LINEAR + 8 * 16,         /* and eight a doubling from 1 KiB to 64 MiB */
    CHUNK_CLASSES = LINEAR + 8 * 10    /* up to 1 MiB */
};
static const size_t CHUNK_MIN = (size_t)2 << 20, CHUNK_MAX = (size_t)32 << 20;
/* of sizes past the classes, and of what raw_allocate is asked for chunks */
static const size_t STEP = (size_t)2 << 20;
static const size_t KEEP_MIN = (size_t)512 << 20;      /* cached memory is not trimmed below this */

typedef struct stack {
    void **items;
    int64_t n, room, made;     /* cached now; capacity; blocks of the class that exist */
} stack;

typedef struct chunk {
    char *memory;
    size_t bytes, used, cached;   /* cached: scratch of empty_cache */
} chunk;

typedef struct huge { void *memory; size_t bytes; } huge;

/* A block that another stream may still use. */
typedef struct later { void *memory; size_t got; void *guard; } later;

/* What the pools of one device share. */
typedef struct pg_arena {
    atomic_flag lock;
    struct pg_arena *next;
    pg_allocator *pools;
    _Atomic size_t unchecked;     /* bytes that may be reserved before what is available is asked for again */
    size_t allocated, reserved, max_allocated, max_reserved;
    double allocated_ever;        /* bytes */
    uint64_t allocations, frees, hits, system, retries, failures;
} pg_arena;

struct pg_allocator {
    const pg_device *device;
    pg_arena *arena;
    pg_allocator *next;           /* of the arena's pools */
    stack classes[CLASSES];
    chunk *chunks;
    int chunks_n, chunks_room;
    size_t chunk_next;
    huge *huges;                  /* freed blocks past the classes */
    int64_t huges_n, huges_room, huges_made;
    size_t cached_large;          /* bytes on stacks that could go back to the device one by one */
    later *laters;
    _Atomic int laters_n;
    int laters_room;
    size_t live;                  /* bytes out of this pool */
    bool exact;                   /* each block is the device's own, as large as asked for */
    bool replayed;                /* a graph's: replays use blocks that have come back: none is hidden */
    bool retired;                 /* nothing more is asked of it; free for another use once live is 0 */
};

static _Atomic(pg_arena *) arenas;

/* PERIGEE_FAIL_ALLOCATION, read when the first device is made. */
static int64_t fail_at;
static bool fail_on;
static _Atomic int64_t allocation_count;

static bool planned_failure(void)
{
    if (__builtin_expect(fail_at == 0, 1)) return false;
    int64_t n = atomic_fetch_add_explicit(&allocation_count, 1, memory_order_relaxed) + 1;
    return n == fail_at || (fail_on && n > fail_at);
}

void *pg_malloc(size_t bytes) { return planned_failure() ? NULL : malloc(bytes); }
void *pg_calloc(size_t n, size_t bytes) { return planned_failure() ? NULL : calloc(n, bytes); }
void *pg_realloc(void *memory, size_t bytes) { return planned_failure() ? NULL : realloc(memory, bytes); }
char *pg_strdup(const char *text) { return planned_failure() ? NULL : strdup(text); }

static void lock_arena(pg_arena *r)
{
    for (int spins = 0; atomic_flag_test_and_set_explicit(&r->lock, memory_order_acquire); spins++) {
        if (spins > 64) sched_yield();
    }
}

static void unlock_arena(pg_arena *r) { atomic_flag_clear_explicit(&r->lock, memory_order_release); }
static void lock(pg_allocator *a) { lock_arena(a->arena); }
static void unlock(pg_allocator *a) { unlock_arena(a->arena); }

/* ---- classes ---- */

static int class_of(size_t bytes)
{
    if (bytes <= 1024) return bytes == 0 ? 0 : (int)((bytes + 63) / 64) - 1;
    int top = 63 - __builtin_clzll((unsigned long long)(bytes - 1));   /* 2^top <= bytes - 1 */
    int eighth = (int)((bytes - 1) >> (top - 3)) & 7;
    return LINEAR + (top - 10) * 8 + eighth;
}

static size_t class_bytes(int k)
{
    if (k < LINEAR) return (size_t)(k + 1) * 64;
    int top = 10 + (k - LINEAR) / 8, eighth = (k - LINEAR) % 8;
    return ((size_t)1 << top) + ((size_t)(eighth + 1) << (top - 3));
}

/* ---- poison: a free block is all hidden; of a block in use the bytes asked for are shown ---- */

static void hide(const pg_device *d, void *memory, size_t bytes)
{
    if (!d->host && !d->in_process) return;
#ifdef PG_ASAN
    __asan_unpoison_memory_region(memory, bytes);
#endif
#ifdef PG_DEBUG
    if (d->host) memset(memory, 0xff, bytes);      /* NaN as a float, -1 as an integer */
#endif
#ifdef PG_ASAN
    __asan_poison_memory_region(memory, bytes);
#endif
    (void)memory;
    (void)bytes;
}

static void show(const pg_device *d, void *memory, size_t bytes)
{
    if (!d->host && !d->in_process) return;
#ifdef PG_ASAN
    __asan_unpoison_memory_region(memory, bytes);
#endif
    (void)memory;
    (void)bytes;
}

/* ---- the device's memory; called without the lock ---- */

/* Asking what is available takes longer than a small reservation: a quarter of the last answer is given out
 * without asking. */
static bool fits(pg_allocator *a, size_t bytes)
{
    const pg_device *d = a->device;
    if (!d->available || !d->host) return true;   /* another device's own answer is the best one */
    pg_arena *r = a->arena;
    size_t left = atomic_load_explicit(&r->unchecked, memory_order_relaxed);
    while (bytes <= left)
        if (atomic_compare_exchange_weak(&r->unchecked, &left, left - bytes)) return true;
    size_t available = d->available(d);
    atomic_store_explicit(&r->unchecked, bytes < available ? (available - bytes) / 4 : 0,
                          memory_order_relaxed);
    return bytes <= available;
}

static void *raw_new(pg_allocator *a, size_t bytes)
{
    return fits(a, bytes) ? a->device->raw_allocate(a->device, bytes) : NULL;
}

static void raw_drop(pg_allocator *a, void *memory, size_t bytes)
{
    show(a->device, memory, bytes);
    a->device->raw_free(a->device, memory, bytes);
}

static void reserved_more(pg_allocator *a, size_t bytes)
{
    pg_arena *r = a->arena;
    r->system++;
    r->reserved += bytes;
    if (r->reserved > r->max_reserved) r->max_reserved = r->reserved;
}

/* ---- giving cached memory back to the device ---- */

enum { BATCH = 64 };
typedef struct batch { huge items[BATCH]; int n; } batch;

/* Moves freed blocks that are not in chunks from their stacks into b, until it is full. Needs the lock. */
static void collect_large(pg_allocator *a, batch *b)
{
    b->n = 0;
    while (b->n < BATCH && a->huges_n > 0) {
        b->items[b->n++] = a->huges[--a->huges_n];
        a->huges_made--;
    }
    for (int k = CLASSES - 1; k >= CHUNK_CLASSES && b->n < BATCH; k--) {
        stack *s = &a->classes[k];
        while (b->n < BATCH && s->n > 0) {
            b->items[b->n++] = (huge){s->items[--s->n], class_bytes(k)};
            s->made--;
        }
    }
    for (int i = 0; i < b->n; i++) {
        a->cached_large -= b->items[i].bytes;
        a->arena->reserved -= b->items[i].bytes;
    }
}

static void drop_large(pg_allocator *a)
{
    batch b;
    do {
        lock(a);
        collect_large(a, &b);
        unlock(a);
        for (int i = 0; i < b.n; i++) raw_drop(a, b.items[i].memory, b.items[i].bytes);
    } while (b.n > 0);
}

static int by_address(const void *p, const void *q)
{
    const char *a = ((const chunk *)p)->memory, *b = ((const chunk *)q)->memory;
    return a < b ? -1 : a > b;
}

static chunk *chunk_of(pg_allocator *a, const void *memory)
{
    int low = 0, high = a->chunks_n - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (a->chunks[middle].memory <= (const char *)memory) low = middle;
        else high = middle - 1;
    }
    return &a->chunks[low];
}

/* Takes one chunk whose blocks are all free out of the books. Needs the lock. */
static bool take_idle_chunk(pg_allocator *a, huge *out)
{
    if (a->chunks_n == 0) return false;
    chunk current = a->chunks[a->chunks_n - 1];
    qsort(a->chunks, (size_t)a->chunks_n, sizeof *a->chunks, by_address);
    for (int i = 0; i < a->chunks_n; i++) a->chunks[i].cached = 0;
    for (int k = 0; k < CHUNK_CLASSES; k++) {
        stack *s = &a->classes[k];
        for (int64_t i = 0; i < s->n; i++) chunk_of(a, s->items[i])->cached += class_bytes(k);
    }
    int found = -1;
    for (int i = 0; i < a->chunks_n && found < 0; i++)
        if (a->chunks[i].cached == a->chunks[i].used) found = i;
    if (found >= 0) {
        chunk gone = a->chunks[found];
        for (int k = 0; k < CHUNK_CLASSES; k++) {
            stack *s = &a->classes[k];
            int64_t kept = 0;
            for (int64_t i = 0; i < s->n; i++) {
                const char *p = s->items[i];
                if (p < gone.memory || p >= gone.memory + gone.bytes) s->items[kept++] = s->items[i];
            }
            s->made -= s->n - kept;
            s->n = kept;
        }
        a->chunks[found] = a->chunks[--a->chunks_n];
        a->arena->reserved -= gone.bytes;
        *out = (huge){gone.memory, gone.bytes};
    }
    /* new blocks are cut from the last chunk */
    for (int i = 0; i < a->chunks_n; i++)
        if (a->chunks[i].memory == current.memory) {
            a->chunks[i] = a->chunks[a->chunks_n - 1];
            a->chunks[a->chunks_n - 1] = current;
            break;
        }
    return found >= 0;
}

static void empty_pool(pg_allocator *a)
{
    drop_large(a);
    for (;;) {
        huge idle;
        lock(a);
        bool found = take_idle_chunk(a, &idle);
        unlock(a);
        if (!found) return;
        raw_drop(a, idle.memory, idle.bytes);
    }
}

/* Blocks whose guards have passed go on their stacks. */
static void settle_laters(pg_allocator *a, bool wait);

void pg_allocator_empty_cache(pg_allocator *a)
{
    const pg_device *d = a->device;
    if (d->quiet && !d->quiet(d)) return;
    /* pools are only ever added, in front */
    lock(a);
    pg_allocator *first = a->arena->pools;
    unlock(a);
    for (pg_allocator *p = first; p; p = p->next) {
        settle_laters(p, true);
        empty_pool(p);
    }
}

/* ---- allocating ---- */

/* Counts a block that goes out. Needs the lock. */
static void count_out(pg_allocator *a, size_t bytes)
{
    pg_arena *r = a->arena;
    a->live += bytes;
    r->allocations++;
    r->allocated_ever += (double)bytes;
    r->allocated += bytes;
    if (r->allocated > r->max_allocated) r->max_allocated = r->allocated;
}

/* Room for one more block on s. Needs the lock. */
static bool reserve(stack *s)
{
    if (s->made < s->room) return true;
    int64_t room = s->room ? 2 * s->room : 16;
    void **items = realloc(s->items, (size_t)room * sizeof *items);
    if (!items) return false;
    s->items = items;
    s->room = room;
    return true;
}

/* Cuts a block from the current chunk, which must have room for it. Needs the lock. */
static void *cut(pg_allocator *a, int k, size_t bytes)
{
    chunk *c = a->chunks_n ? &a->chunks[a->chunks_n - 1] : NULL;
    if (!c || c->bytes - c->used < bytes || !reserve(&a->classes[k])) return NULL;
    void *memory = c->memory + c->used;
    c->used += bytes;
    a->classes[k].made++;
    return memory;
}

/* A block of a class that chunks serve, its stack being empty. Called without the lock. */
static void *chunk_block(pg_allocator *a, int k, size_t bytes)
{
    for (;;) {
        lock(a);
        stack *s = &a->classes[k];
        void *memory = s->n > 0 ? s->items[--s->n] : cut(a, k, bytes);
        if (memory) count_out(a, bytes);
        size_t size = a->chunk_next;
        unlock(a);
        if (memory) return memory;

        char *fresh = raw_new(a, size);
        while (!fresh && size > CHUNK_MIN) fresh = raw_new(a, size /= 2);
        if (!fresh) return NULL;
        hide(a->device, fresh, size);
        lock(a);
        bool room = a->chunks_n < a->chunks_room;
        if (!room) {
            int n = a->chunks_room ? 2 * a->chunks_room : 16;
            chunk *chunks = realloc(a->chunks, (size_t)n * sizeof *chunks);
            if (chunks) {
                a->chunks = chunks;
                a->chunks_room = n;
                room = true;
            }
        }
        room = room && reserve(&a->classes[k]);
        if (room) {
            /* what is left of the chunk before is not wasted: it becomes the largest blocks it can hold */
            chunk *last = a->chunks_n ? &a->chunks[a->chunks_n - 1] : NULL;
            for (int j = CHUNK_CLASSES - 1; last && j >= 0; j--) {
                size_t piece = class_bytes(j);
                if (last->bytes - last->used < piece || !reserve(&a->classes[j])) continue;
                a->classes[j].items[a->classes[j].n++] = last->memory + last->used;
                a->classes[j].made++;
                last->used += piece;
            }
            a->chunks[a->chunks_n++] = (chunk){fresh, size, 0, 0};
            reserved_more(a, size);
            if (a->chunk_next < CHUNK_MAX) a->chunk_next *= 2;
        }
        unlock(a);
        if (!room) {
            raw_drop(a, fresh, size);
            return NULL;
        }
    }
}

/* The freed block past the classes that fits best, at most a quarter too large; -1 for none. Needs the
 * lock. */
static int64_t find_huge(const pg_allocator *a, size_t bytes)
{
    int64_t best = -1;
    for (int64_t i = 0; i < a->huges_n; i++) {
        size_t size = a->huges[i].bytes;
        if (size >= bytes && size - bytes <= bytes / 4 && (best < 0 || size < a->huges[best].bytes)) best = i;
    }
    return best;
}

static bool reserve_huge(pg_allocator *a)
{
    if (a->huges_made < a->huges_room) return true;
    int64_t room = a->huges_room ? 2 * a->huges_room : 16;
    huge *items = realloc(a->huges, (size_t)room * sizeof *items);
    if (!items) return false;
    a->huges = items;
    a->huges_room = room;
    return true;
}

/* A block of its own; k is its class or CLASSES. Called without the lock. */
static void *large_block(pg_allocator *a, int k, size_t bytes)
{
    lock(a);
    bool room = k < CLASSES ? reserve(&a->classes[k]) : reserve_huge(a);
    if (room) {
        if (k < CLASSES) a->classes[k].made++;
        else a->huges_made++;
    }
    size_t most = a->arena->max_allocated > KEEP_MIN ? a->arena->max_allocated : KEEP_MIN;
    /* giving back is cheap on the host; elsewhere the device would have to finish first */
    bool trim = a->device->host && a->cached_large > 0 &&
        (a->cached_large > most || bytes > most - a->cached_large);
    unlock(a);
    if (!room) return NULL;
    if (trim) drop_large(a);
    void *memory = raw_new(a, bytes);
    if (memory) hide(a->device, memory, bytes);
    lock(a);
    if (memory) {
        reserved_more(a, bytes);
        count_out(a, bytes);
    } else if (k < CLASSES) {
        a->classes[k].made--;
    } else {
        a->huges_made--;
    }
    unlock(a);
    return memory;
}

static int out_of_memory(pg_allocator *a, size_t bytes)
{
    const pg_device *d = a->device;
    const char *why = d->why ? d->why(d) : NULL;
    if (why) return pg_fail("%s: %s", d->name, why);
    pg_arena *r = a->arena;
    lock(a);
    r->failures++;
    size_t live = r->allocated, cached = r->reserved - r->allocated;
    unlock(a);
    double mib = 1024.0 * 1024.0, available = d->available ? (double)d->available(d) : 0;
    return pg_fail_status(PG_ERROR_MEMORY,
                          "out of memory on %s: %zu bytes (%.1f MiB) asked for, %.1f MiB live in tensors, "
                          "%.1f MiB cached, "
                          "%.1f MiB free on the device",
                          d->name, bytes, (double)bytes / mib, (double)live / mib, (double)cached / mib,
                              available / mib);
}

/* Collecting may find what emptying the cache need not give up: an op whose caller collects and calls again
 * reports a device's failure as it is at first; the cache goes with the second. */
PG_THREAD pg_memory_caller pg_memory_here;

void pg_memory_collects(bool collects) { pg_memory_here.collects = collects; }
void pg_memory_collected(void) { pg_memory_here.collected = true; }

static bool ask_caller_first(const pg_allocator *a)
{
    return !a->device->host && pg_memory_here.asks && pg_memory_here.collects;
}

static int allocate_exact(pg_allocator *a, size_t bytes, void **memory, size_t *got)
{
    size_t size = bytes > 0 ? bytes : 1;
    void *block = raw_new(a, size);
    if (!block) {
        if (ask_caller_first(a)) return out_of_memory(a, bytes);
        settle_laters(a, true);
        if (!(block = raw_new(a, size))) return out_of_memory(a, bytes);
    }
    lock(a);
    reserved_more(a, size);
    count_out(a, size);
    unlock(a);
    pg_debt_add((int64_t)size);
    *memory = block;
    *got = size;
    return PG_OK;
}

int pg_allocate(pg_allocator *a, size_t bytes, void **memory, size_t *got)
{
    if (planned_failure()) return out_of_memory(a, bytes);
    if (bytes > PTRDIFF_MAX - STEP) return out_of_memory(a, bytes);
    if (__builtin_expect(atomic_load_explicit(&a->laters_n, memory_order_relaxed) > 0, 0))
        settle_laters(a, false);
    if (__builtin_expect(a->exact, 0)) return allocate_exact(a, bytes, memory, got);
    int k = CLASSES;
    size_t size;
    void *block = NULL;
    if (bytes <= (size_t)64 << 20) {
        k = class_of(bytes);
        size = class_bytes(k);
        stack *s = &a->classes[k];
        lock(a);
        if (s->n > 0) {
            block = s->items[--s->n];
            if (k >= CHUNK_CLASSES) a->cached_large -= size;
            a->arena->hits++;
            count_out(a, size);
        }
        unlock(a);
    } else {
        size = (bytes + STEP - 1) / STEP * STEP;
        lock(a);
        int64_t i = find_huge(a, size);
        if (i >= 0) {
            block = a->huges[i].memory;
            size = a->huges[i].bytes;
            a->huges[i] = a->huges[--a->huges_n];
            a->cached_large -= size;
            a->arena->hits++;
            count_out(a, size);
        }
        unlock(a);
    }
    if (!block) block = k < CHUNK_CLASSES ? chunk_block(a, k, size) : large_block(a, k, size);
    if (!block) {
        if (ask_caller_first(a)) return out_of_memory(a, bytes);
        lock(a);
        a->arena->retries++;
        unlock(a);
        pg_allocator_empty_cache(a);
        block = k < CHUNK_CLASSES ? chunk_block(a, k, size) : large_block(a, k, size);
        if (!block) return out_of_memory(a, bytes);
    }
    show(a->device, block, bytes);
    pg_debt_add((int64_t)size);
    *memory = block;
    *got = size;
    return PG_OK;
}

/* Puts a block on its stack; true where it was the last one of a retired pool. Needs the lock. */
static bool put_back(pg_allocator *a, void *memory, size_t got)
{
    a->live -= got;
    if (got <= (size_t)64 << 20) {
        int k = class_of(got);
        stack *s = &a->classes[k];
        s->items[s->n++] = memory;
        if (k >= CHUNK_CLASSES) a->cached_large += got;
    } else {
        a->huges[a->huges_n++] = (huge){memory, got};
        a->cached_large += got;
    }
    return a->retired && a->live == 0;
}

/* Counts a block that comes in. Needs the lock. */
static void count_in(pg_allocator *a, size_t got)
{
    a->arena->frees++;
    a->arena->allocated -= got;
}

static void empty_retired(pg_allocator *a)
{
    const pg_device *d = a->device;
    if (!d->quiet || d->quiet(d)) empty_pool(a);
}

static void drop_exact(pg_allocator *a, void *memory, size_t got);

void pg_release_memory(pg_allocator *a, void *memory, size_t got)
{
    if (!memory) return;
    if (!a->replayed) hide(a->device, memory, got);
    pg_debt_add(-(int64_t)got);
    lock(a);
    count_in(a, got);
    if (__builtin_expect(a->exact, 0)) {
        unlock(a);
        drop_exact(a, memory, got);
        return;
    }
    bool last = put_back(a, memory, got);
    unlock(a);
    if (__builtin_expect(last, 0)) empty_retired(a);
}

/* Takes a block up that is to come back later; false where there is no room. Needs the lock. */
static bool leave(pg_allocator *a, later one)
{
    if (a->laters_n == a->laters_room) {
        int n = a->laters_room ? 2 * a->laters_room : 16;
        later *laters = realloc(a->laters, (size_t)n * sizeof *laters);
        if (!laters) return false;
        a->laters = laters;
        a->laters_room = n;
    }
    a->laters[a->laters_n++] = one;
    return true;
}

static bool is_quiet(const pg_device *d) { return !d->quiet || d->quiet(d); }

/* A block of an exact pool goes back to the device, after the capture where a graph is captured. */
static void drop_exact(pg_allocator *a, void *memory, size_t got)
{
    lock(a);
    bool waits = !is_quiet(a->device) && leave(a, (later){memory, got, NULL});
    if (!waits) {
        a->live -= got;
        a->arena->reserved -= got;
    }
    unlock(a);
    if (!waits) raw_drop(a, memory, got);
}

static void give_later(pg_allocator *a, later one)
{
    if (a->exact) {
        drop_exact(a, one.memory, one.got);
        return;
    }
    if (!a->replayed) hide(a->device, one.memory, one.got);
    lock(a);
    bool last = put_back(a, one.memory, one.got);
    unlock(a);
    if (last) empty_retired(a);
}

void pg_release_when(pg_allocator *a, void *memory, size_t got, void *guard)
{
    later one = {memory, got, guard};
    pg_debt_add(-(int64_t)got);
    lock(a);
    count_in(a, got);
    bool waits = leave(a, one);
    unlock(a);
    if (waits) return;
    a->device->passed(guard, true);
    give_later(a, one);
}

static bool has_passed(const pg_allocator *a, const later *one, bool wait)
{
    return one->guard ? wait || a->device->passed(one->guard, false) : is_quiet(a->device);
}

static void settle_laters(pg_allocator *a, bool wait)
{
    for (;;) {
        later one = {NULL, 0, NULL};
        lock(a);
        for (int i = 0; i < a->laters_n && !one.memory; i++)
            if (has_passed(a, &a->laters[i], wait)) {
                one = a->laters[i];
                a->laters[i] = a->laters[--a->laters_n];
            }
        unlock(a);
        if (!one.memory) return;
        if (wait && one.guard) a->device->passed(one.guard, true);
        give_later(a, one);
    }
}

/* ---- the allocator itself ---- */

static pg_arena *arena_new(void)
{
    pg_arena *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    atomic_flag_clear(&r->lock);
    const char *fail = getenv("PERIGEE_FAIL_ALLOCATION");
    if (fail && *fail) {
        char *end;
        fail_at = strtoll(fail, &end, 10);
        fail_on = *end == '+';
    }
    pg_arena *first = atomic_load(&arenas);
    do r->next = first;
    while (!atomic_compare_exchange_weak(&arenas, &first, r));
    return r;
}

void pg_allocator_exact(pg_allocator *a) { a->exact = true; }
void pg_allocator_replayed(pg_allocator *a) { a->replayed = true; }

pg_allocator *pg_allocator_new(const pg_device *device, pg_allocator *sibling)
{
    pg_arena *r = sibling ? sibling->arena : arena_new();
    if (!r) return NULL;
    lock_arena(r);
    pg_allocator *a = r->pools;
    while (a && !(a->retired && !a->exact && a->live == 0 && a->laters_n == 0)) a = a->next;
    if (a) a->retired = false;
    unlock_arena(r);
    if (a) return a;
    if (!(a = calloc(1, sizeof *a))) return NULL;
    a->device = device;
    a->arena = r;
    a->chunk_next = CHUNK_MIN;
    lock_arena(r);
    a->next = r->pools;
    r->pools = a;
    unlock_arena(r);
    return a;
}

void pg_allocator_retire(pg_allocator *a)
{
    lock(a);
    a->retired = true;
    unlock(a);
    settle_laters(a, false);
    empty_retired(a);
}

void pg_allocator_statistics(pg_allocator *a, pg_memory_stats *stats)
{
    pg_arena *r = a->arena;
    lock(a);
    stats->allocated = (double)r->allocated;
    stats->reserved = (double)r->reserved;
    stats->max_allocated = (double)r->max_allocated;
    stats->max_reserved = (double)r->max_reserved;
    stats->allocations = (double)r->allocations;
    stats->frees = (double)r->frees;
    stats->cache_hits = (double)r->hits;
    stats->system_allocations = (double)r->system;
    stats->allocated_ever = r->allocated_ever;
    stats->retries = (double)r->retries;
    stats->failures = (double)r->failures;
    unlock(a);
}

void pg_allocator_reset_peak(pg_allocator *a)
{
    pg_arena *r = a->arena;
    lock(a);
    r->max_allocated = r->allocated;
    r->max_reserved = r->reserved;
    unlock(a);
}

size_t pg_allocated_everywhere(void)
{
    size_t sum = 0;
    for (pg_arena *r = atomic_load(&arenas); r; r = r->next) {
        lock_arena(r);
        sum += r->allocated;
        unlock_arena(r);
    }
    return sum;
}
