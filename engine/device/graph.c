/* graph.c: what a function launches, captured once and run again as a whole.
 *
 * Captured kernels keep the addresses they were given. So everything that is made meanwhile comes from a
 * pool of the graph's own, which hands its blocks to nobody else; small values of the host lie in slabs of
 * the graph's own memory, uploaded once; and what is drawn at random takes its state from slots that are
 * brought up to date before each run: the run's offset is the generator's as it then stands plus what was
 * drawn before in the captured call, so that runs draw the numbers that calls would have. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "../core/random.h"
#include "cuda.h"

enum { SLAB = 64 << 10 };

typedef struct slab {
    struct slab *next;
    char *device;
    size_t used, size, got;
    char host[];                /* the same bytes, kept up to date here */
} slab;

struct pg_graph {
    pg_cuda *cuda;
    pg_stream *before;          /* the stream that was current when capturing began */
    pg_allocator *pool;
    bool lasting;               /* what is made now is not of the pool */
    void *ready;                /* to launch; NULL while capturing */
    slab *constants;
    slab *random;               /* each an array of pg_philox whose offsets count from the run's start */
    pg_philox start;            /* the generator's state when capturing began */
    uint64_t draws;             /* how far a run moves the offset */
    pg_stream *last;            /* on which it ran last */
    void *ran;                  /* event behind that run */
    pg_graph *next;             /* of the dead */
};

pg_allocator *pg_graph_pool(const pg_graph *g) { return g->lasting ? g->cuda->recorder->pool : g->pool; }

bool pg_graph_lasting(bool on)
{
    bool before = false;
    for (int k = 0; pg_cuda_known(k); k++) {
        pg_graph *g = pg_stream_here(pg_cuda_known(k))->graph;
        if (!g) continue;
        before = g->lasting;
        g->lasting = on;
    }
    return before;
}

static slab *room_in(pg_graph *g, slab **list, size_t bytes)
{
    slab *s = *list;
    if (s && s->size - s->used >= bytes) return s;
    size_t size = bytes > SLAB ? bytes : SLAB;
    if (!(s = malloc(sizeof *s + size))) {
        pg_out_of_memory(size);
        return NULL;
    }
    void *memory;
    /* not from the graph's pool: there it could be what a captured kernel wrote and gave back */
    if (pg_allocate(g->cuda->recorder->pool, size, &memory, &s->got) < 0) {
        free(s);
        return NULL;
    }
    s->device = memory;
    s->used = 0;
    s->size = size;
    s->next = *list;
    *list = s;
    return s;
}

const void *pg_graph_constant(pg_graph *g, const void *host, size_t bytes)
{
    size_t rounded = (bytes + 63) / 64 * 64;
    slab *s = room_in(g, &g->constants, rounded);
    if (!s) return NULL;
    char *at = s->device + s->used;
    memcpy(s->host + s->used, host, bytes);
    s->used += rounded;
    return at;
}

const pg_philox *pg_graph_random_state(pg_graph *g, const pg_philox *host)
{
    /* a state that was drawn before capturing began stays as it is */
    uint64_t drawn = pg_random_draw(&g->cuda->device, 0).offset - g->start.offset;
    uint64_t delta = host->offset - g->start.offset;
    if (host->seed != g->start.seed || delta >= drawn) return pg_graph_constant(g, host, sizeof *host);
    slab *s = room_in(g, &g->random, sizeof *host);
    if (!s) return NULL;
    const pg_philox relative = {0, delta};
    char *at = s->device + s->used;
    memcpy(s->host + s->used, &relative, sizeof relative);
    s->used += sizeof relative;
    return (const pg_philox *)at;
}

static void free_slabs(pg_graph *g, slab *s)
{
    while (s) {
        slab *next = s->next;
        pg_release_memory(g->cuda->recorder->pool, s->device, s->got);
        free(s);
        s = next;
    }
}

static void destroy(pg_graph *g)
{
    if (g->ready) {
        pg_cuda_api->synchronize(g->cuda->ordinal);
        pg_cuda_api->graph_free(g->ready);
    }
    if (g->ran) pg_cuda_api->event_free(g->ran);
    free_slabs(g, g->constants);
    free_slabs(g, g->random);
    if (g->pool) pg_allocator_retire(g->pool);
    free(g);
}

void pg_graph_free(pg_graph *g)
{
    if (!g) return;
    pg_cuda *c = g->cuda;
    pthread_mutex_lock(&c->mutex);
    bool later = atomic_load(&c->capturing) != 0;
    if (later) {
        g->next = c->dead;
        c->dead = g;
    }
    pthread_mutex_unlock(&c->mutex);
    if (!later) destroy(g);
}

static void bury(pg_cuda *c)
{
    pthread_mutex_lock(&c->mutex);
    pg_graph *g = c->dead;
    c->dead = NULL;
    pthread_mutex_unlock(&c->mutex);
    while (g) {
        pg_graph *next = g->next;
        destroy(g);
        g = next;
    }
}

int pg_graph_begin(pg_graph **out, const char *device)
{
    pg_cuda *c;
    int status = pg_cuda_find(&c, device), none = 0;
    if (status < 0) return status;
    const pg_device *d = &c->device;
    pg_graph *g = pg_calloc(1, sizeof *g);
    if (!g) return pg_out_of_memory(sizeof *g);
    if (!atomic_compare_exchange_strong(&c->capturing, &none, 1)) {
        free(g);
        return pg_fail("a graph is being captured on %s already", d->name);
    }
    g->cuda = c;
    g->before = pg_stream_here(d);
    if (!c->recorder) status = pg_stream_own(&c->recorder, c);
    if (status >= 0 && !(g->pool = pg_allocator_new(d, d->allocator))) status = pg_out_of_memory(0);
    if (status >= 0) pg_allocator_replayed(g->pool);
    if (status >= 0) status = pg_cuda_check(d, pg_cuda_api->event_new(pg_cuda_ordinal(d), false, &g->ran));
    if (status >= 0) status = pg_cuda_check(d, pg_cuda_api->capture_begin(c->recorder->handle));
    if (status < 0) {
        atomic_store(&c->capturing, 0);
        destroy(g);
        return status;
    }
    g->start = pg_random_draw(d, 0);
    c->recorder->graph = g;
    pg_stream_make_current(c->recorder);
    *out = g;
    return PG_OK;
}

static int upload(pg_stream *s, const slab *k)
{
    int status = PG_OK;
    for (; k && status >= 0; k = k->next) status = pg_stage(s, k->device, k->host, k->used);
    return status;
}

int pg_graph_end(pg_graph *g, bool keep)
{
    if (!g || g->ready) return pg_fail("expected a graph that is being captured");
    pg_cuda *c = g->cuda;
    const pg_device *d = &c->device;
    if (c->recorder->graph != g || pg_stream_here(d) != c->recorder)
        return pg_fail("a graph's capture ends in the thread that began it");
    int status = pg_cuda_check(d, pg_cuda_api->capture_end(c->recorder->handle, keep ? &g->ready : NULL));
    c->recorder->graph = NULL;
    pg_stream_make_current(g->before);
    g->draws = pg_random_draw(d, 0).offset - g->start.offset;
    pg_random_set(d, g->start);       /* nothing has run yet */
    atomic_store(&c->capturing, 0);
    bury(c);
    if (keep && status >= 0) status = upload(g->before, g->constants);
    if (keep && status >= 0) status = pg_cuda_check(d, pg_cuda_api->event_record(g->ran, g->before->handle));
    g->last = g->before;
    return status;
}

int pg_graph_replay(pg_graph *g)
{
    if (!g || !g->ready) return pg_fail("expected a captured graph");
    const pg_device *d = &g->cuda->device;
    pg_stream *s = pg_stream_here(d);
    if (s->graph) return pg_fail("a graph cannot run while another is captured");
    int status = PG_OK;
    if (g->last != s) status = pg_cuda_check(d, pg_cuda_api->stream_wait(s->handle, g->ran));
    pg_philox state = pg_random_draw(d, g->draws);
    for (slab *k = g->random; k && status >= 0; k = k->next) {
        pg_philox slots[SLAB / sizeof(pg_philox)];
        size_t n = k->used / sizeof *slots;
        memcpy(slots, k->host, k->used);
        for (size_t i = 0; i < n; i++) slots[i] = (pg_philox){state.seed, state.offset + slots[i].offset};
        status = pg_stage(s, k->device, slots, k->used);
    }
    if (status >= 0) status = pg_cuda_check(d, pg_cuda_api->graph_launch(g->ready, s->handle));
    if (status >= 0) status = pg_cuda_check(d, pg_cuda_api->event_record(g->ran, s->handle));
    g->last = s;
    return status;
}

bool pg_graph_capturing(void)
{
    for (int k = 0; pg_cuda_known(k); k++)
        if (pg_stream_here(pg_cuda_known(k))->graph) return true;
    return false;
}
