/* cuda.h: what the files of the CUDA device share. */
#ifndef PG_DEVICE_CUDA_H
#define PG_DEVICE_CUDA_H

#include <pthread.h>
#include <stdatomic.h>

#include "../../kernels/cuda/library.h"
#include "stream.h"

/* ---- for the registry ---- */

/* The k-th CUDA device that is known, or NULL. */
const pg_device *pg_cuda_known(int k);

/* ---- among the device's own files ---- */

/* The library; set once, before the first device is known. */
extern const pg_cuda_library *pg_cuda_api;

typedef struct pg_cuda pg_cuda;
typedef struct pg_graph pg_graph;

/* Blocks of pinned memory through which the host's values travel: written, copied from on the stream, and
 * written again once that has run. */
enum { PG_STAGING_BLOCKS = 4 };
typedef struct pg_staging {
    pthread_mutex_t mutex;
    char *memory;                              /* NULL until first needed */
    void *event[PG_STAGING_BLOCKS];
    bool waits[PG_STAGING_BLOCKS];             /* the event says when the block is free */
    int block;
    size_t used;
} pg_staging;

struct pg_stream {
    pg_cuda *cuda;
    void *handle;
    int number;                                /* among those of its device: 0 is the default */
    pg_allocator *pool;
    pg_graph *graph;                           /* that is being captured from it, or NULL */
    pg_staging staging;
};

enum { PG_STREAMS = 32 };                      /* for users, of each priority; handed out in turn */
struct pg_cuda {
    pg_device device;
    int ordinal;                               /* the runtime's number: it counts old devices too */
    atomic_bool started;                       /* main and complaint are there: it was asked for by name */
    char name[16];
    pg_cuda_properties properties;
    int64_t *complaint;                        /* pinned: what kernels report (pg_context.bad_index) */
    pthread_mutex_t mutex;                     /* over what follows */
    pg_stream *streams[2][PG_STREAMS];
    unsigned turn[2];
    pg_stream *recorder;                       /* graphs are captured from it */
    atomic_int capturing;
    pg_graph *dead;                            /* freed while another was captured */
    pg_stream main;
};

static inline pg_cuda *pg_cuda_of(const pg_device *d) { return (pg_cuda *)(uintptr_t)d; }
static inline int pg_cuda_ordinal(const pg_device *d) { return pg_cuda_of(d)->ordinal; }
/* The status of a call of the library; sets the message. */
int pg_cuda_check(const pg_device *d, int status);
/* The calling thread's current stream. */
pg_stream *pg_stream_here(const pg_device *d);
void pg_stream_make_current(pg_stream *s);
int pg_stream_open(pg_stream **out, pg_cuda *c, bool urgent);      /* one of those for users */
int pg_stream_own(pg_stream **out, pg_cuda *c);                   /* one of its own */
static inline pg_allocator *pg_stream_pool(const pg_stream *s);   /* where its new memory comes from */
/* The error of what kernels have reported since the last call, if anything. The caller has waited for
 * them. */
int pg_cuda_complaint(pg_cuda *c);
/* Copies from the host's memory, which is done with on return; does not wait but for staging memory. */
int pg_stage(pg_stream *s, void *memory, const void *host, size_t bytes);
/* "cuda", "cuda:1", NULL: the current one. */
int pg_cuda_find(pg_cuda **out, const char *name);

/* graph.c: where what is being captured finds its constants; NULL where memory ran out. */
const void *pg_graph_constant(pg_graph *g, const void *host, size_t bytes);
const pg_philox *pg_graph_random_state(pg_graph *g, const pg_philox *host);
pg_allocator *pg_graph_pool(const pg_graph *g);

static inline pg_allocator *pg_stream_pool(const pg_stream *s)
{
    return s->graph ? pg_graph_pool(s->graph) : s->pool;
}

#endif
