/* cuda.c: NVIDIA GPUs as devices. The library that speaks to them is opened when a GPU is first asked for;
 * without it, or without a GPU, there is a reason to tell, and everything else works. */
#include "cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../core/random.h"

const pg_cuda_library *pg_cuda_api;

static pg_cuda *found[PG_CUDA_DEVICES];
static atomic_int found_n;
static char why_not[512];

/* What a thread has on its mind. Contexts nest: each frees the scratch above its mark. */
enum { SCRATCH_MAX = 64, DEPTH_MAX = 8 };
typedef struct scratches {
    int n, depth;
    struct { pg_stream *stream; int mark; } open[DEPTH_MAX];
    struct { pg_allocator *from; void *memory; size_t got; } item[SCRATCH_MAX];
} scratches;
static PG_THREAD struct {
    scratches *scratch;
    pg_stream *stream[PG_CUDA_DEVICES];    /* NULL: the default one */
    int device;
    bool broken;                           /* raw_allocate's last failure was not for want of memory */
} here;
static pthread_key_t scratch_key;

int pg_cuda_check(const pg_device *d, int status)
{
    if (status == PG_CUDA_OK) return PG_OK;
    return pg_fail("%s: %s", d->name, pg_cuda_api->error());
}

/* ---- current device and stream ---- */

static int start(const pg_device *d);

int pg_cuda_current_device(void) { return here.device; }

/* Without starting it. */
static int find_known(pg_cuda **out, const char *name)
{
    const pg_device *d;
    int status = pg_device_find_known(&d, name ? name : "cuda");
    if (status < 0) return status;
    if (d->host) return pg_fail("expected a CUDA device, got '%s'", d->name);
    *out = pg_cuda_of(d);
    return PG_OK;
}

int pg_cuda_set_device(const char *name)
{
    pg_cuda *c;
    int status = find_known(&c, name);
    if (status >= 0) here.device = c->device.index;
    return status;
}

int pg_cuda_find(pg_cuda **out, const char *name)
{
    int status = find_known(out, name);
    return status < 0 ? status : start(&(*out)->device);
}

pg_stream *pg_stream_here(const pg_device *d)
{
    pg_stream *s = here.stream[d->index];
    return s ? s : &pg_cuda_of(d)->main;
}

void pg_stream_make_current(pg_stream *s) { here.stream[s->cuda->device.index] = s; }

/* ---- memory ---- */

static void *raw_allocate(const pg_device *d, size_t bytes)
{
    void *memory;
    int status = pg_cuda_api->allocate(pg_cuda_ordinal(d), bytes, &memory);
    here.broken = status == PG_CUDA_FAILED;
    return status == PG_CUDA_OK ? memory : NULL;
}

/* A device that is lost cannot take it back: nothing is left to do then. */
static void raw_free(const pg_device *d, void *memory, size_t bytes)
{
    (void)bytes;
    pg_cuda_api->release(pg_cuda_ordinal(d), memory);
}

static size_t available(const pg_device *d)
{
    size_t free_bytes = 0, total = 0;
    return pg_cuda_api->memory(pg_cuda_ordinal(d), &free_bytes, &total) == PG_CUDA_OK ? free_bytes : 0;
}

static const char *why(const pg_device *d)
{
    (void)d;
    bool broken = here.broken;
    here.broken = false;
    return broken ? pg_cuda_api->error() : NULL;
}

static pg_allocator *pool(const pg_device *d) { return pg_stream_pool(pg_stream_here(d)); }

static bool quiet(const pg_device *d) { return atomic_load(&pg_cuda_of(d)->capturing) == 0; }

/* ---- what kernels report ---- */

int pg_cuda_complaint(pg_cuda *c)
{
    int64_t kind = __atomic_load_n(&c->complaint[0], __ATOMIC_ACQUIRE);
    if (__builtin_expect(kind == 0, 1)) return PG_OK;
    /* another stream's kernel may be at it: what it says is complete when it has run */
    int status = pg_cuda_check(&c->device, pg_cuda_api->synchronize(c->ordinal));
    if (status < 0) return status;
    int64_t said[4];
    memcpy(said, c->complaint, sizeof said);
    __atomic_store_n(&c->complaint[0], 0, __ATOMIC_RELEASE);
    const char *before = pg_error_set_op((const char *)(intptr_t)said[3]);
    status = pg_kernel_complaint(kind, said);
    pg_error_set_op(before);
    return status;
}

/* ---- copies ---- */

static const size_t BLOCK = (size_t)1 << 20;

static int staging_open(pg_staging *g, const pg_cuda *c)
{
    void *memory;
    int status = pg_cuda_check(&c->device, pg_cuda_api->allocate_pinned(PG_STAGING_BLOCKS * BLOCK, &memory));
    for (int k = 0; k < PG_STAGING_BLOCKS && status >= 0; k++)
        if (!g->event[k])
            status = pg_cuda_check(&c->device, pg_cuda_api->event_new(c->ordinal, false, &g->event[k]));
    if (status >= 0) g->memory = memory;
    else if (memory) pg_cuda_api->release_pinned(memory);
    return status;
}

static int next_block(pg_stream *s)
{
    pg_staging *g = &s->staging;
    const pg_device *d = &s->cuda->device;
    int status = pg_cuda_check(d, pg_cuda_api->event_record(g->event[g->block], s->handle));
    if (status < 0) return status;
    g->waits[g->block] = true;
    int next = (g->block + 1) % PG_STAGING_BLOCKS;
    if (g->waits[next]) status = pg_cuda_check(d, pg_cuda_api->event_synchronize(g->event[next]));
    if (status < 0) return status;
    g->waits[next] = false;
    g->block = next;
    g->used = 0;
    return PG_OK;
}

int pg_stage(pg_stream *s, void *memory, const void *host, size_t bytes)
{
    pg_staging *g = &s->staging;
    int status = PG_OK;
    pthread_mutex_lock(&g->mutex);
    if (!g->memory) status = staging_open(g, s->cuda);
    for (size_t done = 0; done < bytes && status >= 0;) {
        size_t left = bytes - done;
        if (g->used == BLOCK || (left < BLOCK && left > BLOCK - g->used)) {
            if ((status = next_block(s)) < 0) break;
        }
        size_t n = left < BLOCK - g->used ? left : BLOCK - g->used;
        char *place = g->memory + (size_t)g->block * BLOCK + g->used;
        memcpy(place, (const char *)host + done, n);
        int copied = pg_cuda_api->copy(s->handle, (char *)memory + done, place, n, PG_CUDA_TO_DEVICE);
        status = pg_cuda_check(&s->cuda->device, copied);
        g->used += (n + 63) / 64 * 64;
        done += n;
    }
    pthread_mutex_unlock(&g->mutex);
    return status;
}

static int to_host(const pg_device *d, void *host, const void *memory, size_t bytes)
{
    pg_stream *s = pg_stream_here(d);
    if (s->graph) return pg_fail("values cannot be read from %s while a graph is captured", d->name);
    int status = pg_cuda_check(d, pg_cuda_api->copy(s->handle, host, memory, bytes, PG_CUDA_TO_HOST));
    if (status >= 0) status = pg_cuda_check(d, pg_cuda_api->stream_synchronize(s->handle));
    return status < 0 ? status : pg_cuda_complaint(pg_cuda_of(d));
}

static int from_host(const pg_device *d, void *memory, const void *host, size_t bytes)
{
    pg_stream *s = pg_stream_here(d);
    if (s->graph)
        return pg_fail("the host's values cannot be copied to %s while a graph is captured: give them to the "
                       "captured function as arguments", d->name);
    return pg_stage(s, memory, host, bytes);
}

static int synchronize(const pg_device *d)
{
    if (!quiet(d)) return pg_fail("%s cannot be waited for while a graph is captured", d->name);
    int status = pg_cuda_check(d, pg_cuda_api->synchronize(pg_cuda_ordinal(d)));
    return status < 0 ? status : pg_cuda_complaint(pg_cuda_of(d));
}

/* ---- contexts ---- */

static void *take_scratch(pg_stream *s, size_t bytes)
{
    scratches *h = here.scratch;
    if (h->n == SCRATCH_MAX) {
        pg_fail("a kernel asked for more than %d pieces of scratch", SCRATCH_MAX);
        return NULL;
    }
    pg_allocator *from = pg_stream_pool(s);
    void *memory;
    if (pg_allocate(from, bytes, &memory, &h->item[h->n].got) < 0) return NULL;
    h->item[h->n].from = from;
    h->item[h->n++].memory = memory;
    return memory;
}

static pg_stream *innermost(void)
{
    scratches *h = here.scratch;
    if (!h || h->depth < 1 || h->depth > DEPTH_MAX) {
        pg_out_of_memory(sizeof *h);
        return NULL;
    }
    return h->open[h->depth - 1].stream;
}

static void *scratch(const pg_context *context, size_t bytes)
{
    (void)context;
    pg_stream *s = innermost();
    return s ? take_scratch(s, bytes) : NULL;
}

static const void *constant(const pg_context *context, const void *host, size_t bytes)
{
    (void)context;
    pg_stream *s = innermost();
    if (!s) return NULL;
    if (s->graph) return pg_graph_constant(s->graph, host, bytes);
    void *memory = take_scratch(s, bytes);
    return memory && pg_stage(s, memory, host, bytes) >= 0 ? memory : NULL;
}

static const pg_philox *random_state(const pg_context *context, const pg_philox *host)
{
    pg_stream *s = innermost();
    if (s && s->graph) return pg_graph_random_state(s->graph, host);
    return constant(context, host, sizeof *host);
}

static void serial(const pg_context *context, int64_t n, int64_t grain, pg_body body, void *arg)
{
    (void)context;
    (void)grain;
    body(arg, 0, n, 0);
}

static void begin(const pg_device *d, pg_context *context)
{
    pg_stream *s = pg_stream_here(d);
    scratches *h = here.scratch;
    if (__builtin_expect(!h, 0)) {
        h = here.scratch = calloc(1, sizeof *h);
        if (h) pthread_setspecific(scratch_key, h);
    }
    if (h && h->depth++ < DEPTH_MAX) {
        h->open[h->depth - 1].stream = s;
        h->open[h->depth - 1].mark = h->n;
    }
    pg_cuda_api->use(pg_cuda_ordinal(d));     /* where it fails, so does the launch */
    *context = (pg_context){
        .stream = s->handle, .threads = 1, .grain_limit = INT64_MAX, .op = pg_error_op(),
        .bad_index = pg_cuda_of(d)->complaint, .parallel = serial, .scratch = scratch, .constant = constant,
        .random_state = random_state, .interrupt = &pg_interrupted,
    };
}

static void end(const pg_device *d, pg_context *context)
{
    (void)d;
    (void)context;
    scratches *h = here.scratch;
    if (!h || h->depth-- > DEPTH_MAX) return;
    /* what comes later on the stream may have it: it is behind this kernel */
    for (int mark = h->open[h->depth].mark; h->n > mark;) {
        h->n--;
        pg_release_memory(h->item[h->n].from, h->item[h->n].memory, h->item[h->n].got);
    }
}

static int after(const pg_device *d)
{
    pg_stream *s = pg_stream_here(d);
    if (s->graph) return PG_OK;
    int status = pg_cuda_check(d, pg_cuda_api->stream_synchronize(s->handle));
    return status < 0 ? status : pg_cuda_complaint(pg_cuda_of(d));
}

static const char *failure(const pg_device *d)
{
    (void)d;
    return pg_cuda_api->failure();
}

/* ---- finding the devices ---- */

/* A file beside libperigee.so. */
static void *open_beside(const char *file)
{
    Dl_info own;
    char path[4096];
    if (!dladdr((void *)(uintptr_t)&pg_cuda_known, &own) || !own.dli_fname) {
        snprintf(why_not, sizeof why_not, "the engine's own place cannot be found");
        return NULL;
    }
    const char *slash = strrchr(own.dli_fname, '/');
    int folder = slash ? (int)(slash - own.dli_fname) : 1;
    snprintf(path, sizeof path, "%.*s/%s", folder, slash ? own.dli_fname : ".", file);
    if (access(path, F_OK) != 0) {
        snprintf(why_not, sizeof why_not, "%s is not beside the engine: this is a build without CUDA", file);
        return NULL;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) snprintf(why_not, sizeof why_not, "%s does not load: %s", file, dlerror());
    return library;
}

static const pg_cuda_library *open_library(void)
{
    const char *asked = getenv("PERIGEE_CUDA");
    bool emulated = asked && strcmp(asked, "emulated") == 0;
    if (asked && strcmp(asked, "off") == 0) {
        snprintf(why_not, sizeof why_not, "PERIGEE_CUDA=off hides it");
        return NULL;
    }
    if (asked && *asked && !emulated) {
        snprintf(why_not, sizeof why_not, "PERIGEE_CUDA: expected off or emulated, got '%.60s'", asked);
        return NULL;
    }
    const char *file = emulated ? "libperigee_cuda_emulated.so" : "libperigee_cuda.so";
    void *library = open_beside(file);
    if (!library) return NULL;
    pg_cuda_library_opener opener;
    *(void **)&opener = dlsym(library, "pg_cuda_library_open");
    const pg_cuda_library *api = opener ? opener() : NULL;
    if (!api || api->hash != PG_CUDA_LIBRARY_HASH || api->kernels->hash != PG_KERNELS_HASH) {
        snprintf(why_not, sizeof why_not, "%s was built from other sources than the engine: build both again",
                 file);
        return NULL;
    }
    return api;
}

static pg_allocator *pool_new(pg_cuda *c)
{
    pg_allocator *a = pg_allocator_new(&c->device, c->device.allocator);
    const char *cache = getenv("PERIGEE_CUDA_CACHE");
    if (a && cache && strcmp(cache, "0") == 0) pg_allocator_exact(a);
    return a;
}

static int stream_init(pg_stream *s, pg_cuda *c, bool urgent, int number)
{
    s->cuda = c;
    s->number = number;
    pthread_mutex_init(&s->staging.mutex, NULL);
    int status = pg_cuda_check(&c->device, pg_cuda_api->stream_new(c->ordinal, urgent, &s->handle));
    if (status >= 0 && !s->pool && !(s->pool = pool_new(c))) status = pg_out_of_memory(0);
    return status;
}

int pg_stream_own(pg_stream **out, pg_cuda *c)
{
    pg_stream *s = calloc(1, sizeof *s);
    int status = s ? stream_init(s, c, false, 1 + 2 * PG_STREAMS) : pg_out_of_memory(sizeof *s);
    if (status >= 0) *out = s;
    else free(s);
    return status;
}

int pg_stream_open(pg_stream **out, pg_cuda *c, bool urgent)
{
    int status = PG_OK;
    pthread_mutex_lock(&c->mutex);
    unsigned turn = c->turn[urgent]++ % PG_STREAMS;
    pg_stream *s = c->streams[urgent][turn];
    if (!s) {
        s = calloc(1, sizeof *s);
        status = s ? stream_init(s, c, urgent, 1 + 2 * (int)turn + urgent) : pg_out_of_memory(sizeof *s);
        if (status >= 0) c->streams[urgent][turn] = s;
        else free(s);
    }
    pthread_mutex_unlock(&c->mutex);
    *out = s;
    return status;
}

/* What costs a context on the device is done when the device is first asked for, not for all that there
 * are. */
static int start(const pg_device *d)
{
    pg_cuda *c = pg_cuda_of(d);
    if (atomic_load_explicit(&c->started, memory_order_acquire)) return PG_OK;
    int status = PG_OK;
    pthread_mutex_lock(&c->mutex);
    if (!atomic_load(&c->started)) {
        void *complaint = NULL;
        if (!c->complaint)
            status = pg_cuda_check(d, pg_cuda_api->allocate_pinned(4 * sizeof(int64_t), &complaint));
        if (complaint) c->complaint = memset(complaint, 0, 4 * sizeof(int64_t));
        if (status >= 0) status = stream_init(&c->main, c, false, 0);
        if (status >= 0) atomic_store_explicit(&c->started, true, memory_order_release);
    }
    pthread_mutex_unlock(&c->mutex);
    return status;
}

static bool passed(void *guard, bool wait);

/* NULL where the device cannot be used; the reason is in why_not. */
static pg_cuda *device_open(int ordinal)
{
    pg_cuda_properties p;
    if (pg_cuda_api->properties(ordinal, &p) != PG_CUDA_OK) {
        snprintf(why_not, sizeof why_not, "%s", pg_cuda_api->error());
        return NULL;
    }
    if (p.major < 8) {
        snprintf(why_not, sizeof why_not,
                 "the GPU (%s, compute capability %d.%d) is older than what this build runs on (8.0)", p.name,
                 p.major, p.minor);
        return NULL;
    }
    pg_cuda *c = calloc(1, sizeof *c);
    if (!c) {
        snprintf(why_not, sizeof why_not, "out of memory");
        return NULL;
    }
    int at = atomic_load(&found_n);
    c->ordinal = ordinal;
    snprintf(c->name, sizeof c->name, "cuda:%d", at);
    c->properties = p;
    c->device = (pg_device){
        .type = "cuda", .index = at, .number = 1 + at, .name = c->name, .host = false,
        .in_process = pg_cuda_api->emulated && !getenv("PERIGEE_CUDA_LATE"),
        .kernels = pg_cuda_api->kernels, .raw_allocate = raw_allocate, .raw_free = raw_free,
        .available = available, .to_host = to_host, .from_host = from_host, .context = begin,
        .context_end = end, .synchronize = synchronize,
        .start = start, .pool = pool, .quiet = quiet, .passed = passed, .why = why, .failure = failure,
    };
    const char *blocking = getenv("PERIGEE_CUDA_BLOCKING");
    if (blocking && strcmp(blocking, "1") == 0) c->device.after = after;
    pthread_mutex_init(&c->mutex, NULL);
    c->device.allocator = c->main.pool = pool_new(c);
    if (!c->main.pool) {
        snprintf(why_not, sizeof why_not, "out of memory");
        free(c);
        return NULL;
    }
    return c;
}

static void look(void)
{
    int n = 0;
    if (pthread_key_create(&scratch_key, free) != 0) {
        snprintf(why_not, sizeof why_not, "the process has no thread-specific key left");
        return;
    }
    if (!(pg_cuda_api = open_library())) return;
    if (pg_cuda_api->devices(&n) != PG_CUDA_OK) {
        snprintf(why_not, sizeof why_not, "%s", pg_cuda_api->error());
        return;
    }
    for (int k = 0; k < n && k < PG_CUDA_DEVICES; k++) {
        pg_cuda *c = device_open(k);
        if (!c) continue;
        found[atomic_load(&found_n)] = c;
        atomic_fetch_add(&found_n, 1);
    }
}

const char *pg_cuda_why_not(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, look);
    return atomic_load(&found_n) > 0 ? NULL : why_not;
}

const pg_device *pg_cuda_known(int k)
{
    return k < atomic_load_explicit(&found_n, memory_order_acquire) ? &found[k]->device : NULL;
}

int pg_cuda_is_emulated(void) { return !pg_cuda_why_not() && pg_cuda_api->emulated; }

int pg_cuda_device_properties(pg_cuda_device_info *out, const char *name)
{
    pg_cuda *c;
    int status = find_known(&c, name);
    if (status < 0) return status;
    const pg_cuda_properties *p = &c->properties;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", p->name);
    out->major = p->major;
    out->minor = p->minor;
    out->multi_processor_count = p->multi_processors;
    out->warp_size = p->warp_size;
    out->max_threads_per_block = p->threads_per_block;
    out->max_threads_per_multi_processor = p->threads_per_multi_processor;
    out->total_memory = (double)p->total_memory;
    out->shared_memory_per_block = (double)p->shared_per_block;
    out->shared_memory_per_multiprocessor = (double)p->shared_per_multi_processor;
    out->l2_cache_size = (double)p->l2_cache;
    return PG_OK;
}

int pg_cuda_memory_info(double *free_bytes, double *total, const char *name)
{
    pg_cuda *c;
    int status = pg_cuda_find(&c, name);
    if (status < 0) return status;
    size_t left = 0, all = 0;
    status = pg_cuda_check(&c->device, pg_cuda_api->memory(c->ordinal, &left, &all));
    *free_bytes = (double)left;
    *total = (double)all;
    return status;
}

int pg_synchronize(const char *name)
{
    const pg_device *d;
    int status = pg_device_find(&d, name);
    return status < 0 ? status : d->synchronize(d);
}

/* ---- pinned memory: the host's, from a pool of its own ---- */

static void *pinned_allocate(const pg_device *d, size_t bytes)
{
    (void)d;
    void *memory;
    int status = pg_cuda_api->allocate_pinned(bytes, &memory);
    here.broken = status == PG_CUDA_FAILED;
    return status == PG_CUDA_OK ? memory : NULL;
}

static void pinned_free(const pg_device *d, void *memory, size_t bytes)
{
    (void)d;
    (void)bytes;
    pg_cuda_api->release_pinned(memory);
}

static bool all_quiet(const pg_device *d)
{
    (void)d;
    for (int k = 0; k < atomic_load(&found_n); k++)
        if (!quiet(&found[k]->device)) return false;
    return true;
}

static pg_device pinned = {
    .type = "cpu", .name = "cpu (pinned)", .host = true, .raw_allocate = pinned_allocate,
    .raw_free = pinned_free,
    .passed = passed, .quiet = all_quiet, .why = why,
};
static pthread_once_t pinned_once = PTHREAD_ONCE_INIT;
static _Atomic(pg_allocator *) pinned_pool;
static void pinned_make(void)
{
    pinned.allocator = pg_allocator_new(&pinned, NULL);
    atomic_store(&pinned_pool, pinned.allocator);
}

pg_allocator *pg_pinned_pool(void)
{
    const char *reason = pg_cuda_why_not();
    if (reason) {
        pg_fail("pinned memory needs a CUDA device: %s", reason);
        return NULL;
    }
    pthread_once(&pinned_once, pinned_make);
    if (!pinned.allocator) pg_out_of_memory(0);
    return pinned.allocator;
}

bool pg_is_pinned(const pg_allocator *from)
{
    return from && from == atomic_load_explicit(&pinned_pool, memory_order_relaxed);
}

/* ---- blocks that several streams use ---- */

typedef struct guard { int n; void *event[]; } guard;

static bool passed(void *waiting, bool wait)
{
    guard *g = waiting;
    while (g->n > 0) {
        /* a device that is lost has let go */
        void *last = g->event[g->n - 1];
        int status = wait ? pg_cuda_api->event_synchronize(last) : pg_cuda_api->event_query(last);
        if (status == PG_CUDA_BUSY) return false;
        pg_cuda_api->event_free(last);
        g->n--;
    }
    free(g);
    return true;
}

void pg_stream_release(pg_allocator *from, void *memory, size_t got, pg_stream_use *uses)
{
    int n = 0;
    for (const pg_stream_use *u = uses; u; u = u->next) n++;
    guard *g = malloc(sizeof *g + (size_t)n * sizeof *g->event);
    if (g) g->n = 0;
    while (uses) {
        pg_stream_use *u = uses;
        uses = u->next;
        pg_stream *s = u->stream;
        free(u);
        void *event = NULL;
        bool noted = g && pg_cuda_api->event_new(s->cuda->ordinal, false, &event) == PG_CUDA_OK &&
            pg_cuda_api->event_record(event, s->handle) == PG_CUDA_OK;
        if (noted) {
            g->event[g->n++] = event;
        } else {
            if (event) pg_cuda_api->event_free(event);
            pg_cuda_api->stream_synchronize(s->handle);
        }
    }
    if (g && g->n > 0) {
        pg_release_when(from, memory, got, g);
    } else {
        free(g);
        pg_release_memory(from, memory, got);
    }
}
