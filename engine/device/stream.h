/* stream.h: work that a device runs later: streams, what other streams use a block, host memory that
 * devices reach.
 *
 * Every thread has a current stream on each device, the device's default one unless it chooses. Kernels,
 * copies and memory follow it: a block belongs to the stream that was current when it was made, and is
 * handed out again there without waiting. */
#ifndef PG_STREAM_H
#define PG_STREAM_H

#include "device.h"

/* A stream other than its pool's own that uses a storage. */
struct pg_stream_use {
    struct pg_stream *stream;
    struct pg_stream_use *next;
};
typedef struct pg_stream_use pg_stream_use;
/* Gives a block back once the streams are through with it; frees the list. */
void pg_stream_release(pg_allocator *from, void *memory, size_t got, pg_stream_use *uses);

/* The pool of pinned memory; NULL with a message where there is no CUDA device. */
pg_allocator *pg_pinned_pool(void);
bool pg_is_pinned(const pg_allocator *from);

/* Copies that may run after the call has returned, on the calling thread's current stream of the device.
 * Storage: the host's, pinned, which is kept from being handed out again until then. */
struct pg_storage;
int pg_copy_later_to(const pg_device *d, void *memory, struct pg_storage *host, const void *from,
                     size_t bytes);
int pg_copy_later_from(const pg_device *d, struct pg_storage *host, void *to, const void *memory,
                       size_t bytes);
/* From e's memory to d's, on e's current stream, after what was put on d's, and before what will be. */
int pg_copy_between(const pg_device *d, void *to, const pg_device *e, const void *from, size_t bytes);

#endif
