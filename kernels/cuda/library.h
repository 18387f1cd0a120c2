/* library.h: what the engine sees of the CUDA library: plain C, no CUDA type. The library is opened at run time
 * (libperigee_cuda.so, or its twin for machines without a GPU, libperigee_cuda_emulated.so), and pg_cuda_library_open is all that
 * it exports.
 *
 * Functions that return int give PG_CUDA_OK or a status with a message in error(). Each of them makes the device that it is given, or
 * that its stream or event was made on, the calling thread's where that matters. None of them waits but those that say so. All are
 * thread-safe; streams, events and graphs are CUDA's, named by pointers.
 */
#ifndef PG_CUDA_LIBRARY_H
#define PG_CUDA_LIBRARY_H

#include "../kernels.h"

/* Raised whenever this file changes; with the kernels' own hash it says whether engine and library belong together. */
#define PG_CUDA_LIBRARY_HASH (PG_KERNELS_HASH ^ (UINT64_C(3) << 40))

enum { PG_CUDA_OK = 0, PG_CUDA_FAILED = 1, PG_CUDA_MEMORY = 2, PG_CUDA_BUSY = 3 /* asked whether it is done: not yet */ };
enum { PG_CUDA_TO_DEVICE, PG_CUDA_TO_HOST, PG_CUDA_BETWEEN /* two devices */ };

typedef struct pg_cuda_properties {
    char name[256];
    int major, minor, multi_processors, warp_size, threads_per_block, threads_per_multi_processor;
    size_t total_memory, shared_per_block, shared_per_multi_processor, l2_cache;   /* bytes */
} pg_cuda_properties;

typedef struct pg_cuda_library {
    uint64_t hash;                   /* PG_CUDA_LIBRARY_HASH; nothing else may be read where it differs */
    bool emulated;
    const pg_kernels *kernels;
    const char *(*error)(void);      /* this thread's last failure: "cudaMalloc: out of memory" */
    const char *(*failure)(void);    /* what a launch that answered PG_KERNEL_FAILED met; forgotten by asking */

    int (*devices)(int *n);          /* FAILED where there is no driver, an old one or no device */
    int (*properties)(int device, pg_cuda_properties *out);
    int (*use)(int device);          /* for launches by this thread */
    int (*synchronize)(int device);  /* waits */

    int (*memory)(int device, size_t *free_bytes, size_t *total);
    int (*allocate)(int device, size_t bytes, void **out);
    int (*release)(int device, void *memory);                       /* may wait */
    int (*allocate_pinned)(size_t bytes, void **out);               /* host memory that devices read and write at its address */
    int (*release_pinned)(void *memory);
    /* Ordered on the stream. Host memory is pinned and stays as it is until the copy has run, else the call may wait. */
    int (*copy)(void *stream, void *to, const void *from, size_t bytes, int kind);

    int (*stream_new)(int device, bool urgent, void **out);         /* never the legacy stream, nor ordered with it */
    int (*stream_query)(void *stream);
    int (*stream_synchronize)(void *stream);                        /* waits */
    int (*stream_wait)(void *stream, void *event);                  /* what comes on stream waits for the event; the host does not */

    int (*event_new)(int device, bool timed, void **out);
    int (*event_free)(void *event);
    int (*event_record)(void *event, void *stream);
    int (*event_query)(void *event);
    int (*event_synchronize)(void *event);                          /* waits */
    int (*event_elapsed)(double *milliseconds, void *from, void *to);

    /* Between the two what comes on the stream is recorded, not run. Memory may be allocated meanwhile, not released. */
    int (*capture_begin)(void *stream);
    int (*capture_end)(void *stream, void **graph);                 /* graph NULL: what was recorded is dropped */
    int (*graph_launch)(void *graph, void *stream);
    int (*graph_free)(void *graph);
} pg_cuda_library;

#ifdef __cplusplus
extern "C"
#endif
const pg_cuda_library *pg_cuda_library_open(void);
typedef const pg_cuda_library *(*pg_cuda_library_opener)(void);

#endif
