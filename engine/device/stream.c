/* stream.c: streams and events as scripts see them, pinned tensors, copies that run later. */
#include <stdlib.h>
#include <string.h>

#include "../core/tensor.h"
#include "cuda.h"

static int no_stream(void) { return pg_fail("expected a stream, got NULL"); }
static int no_event(void) { return pg_fail("expected an event, got NULL"); }

static int not_while_capturing(const pg_stream *s, const char *what)
{
    return pg_fail("%s cannot be %s while a graph is captured", s->cuda->device.name, what);
}

/* ---- streams ---- */

int pg_stream_new(pg_stream **out, const char *device, bool urgent)
{
    pg_cuda *c;
    int status = pg_cuda_find(&c, device);
    return status < 0 ? status : pg_stream_open(out, c, urgent);
}

int pg_stream_default(pg_stream **out, const char *device)
{
    pg_cuda *c;
    int status = pg_cuda_find(&c, device);
    if (status >= 0) *out = &c->main;
    return status;
}

int pg_stream_current(pg_stream **out, const char *device)
{
    pg_cuda *c;
    int status = pg_cuda_find(&c, device);
    if (status >= 0) *out = pg_stream_here(&c->device);
    return status;
}

int pg_stream_set(pg_stream *s)
{
    if (!s) return no_stream();
    if (pg_stream_here(&s->cuda->device)->graph && !s->graph)
        return not_while_capturing(s, "given another stream");
    pg_stream_make_current(s);
    return PG_OK;
}

int pg_stream_number(const pg_stream *s) { return s ? s->number : -1; }
const char *pg_stream_device(const pg_stream *s) { return s ? s->cuda->device.name : NULL; }

int pg_stream_synchronize(pg_stream *s)
{
    if (!s) return no_stream();
    if (s->graph) return not_while_capturing(s, "waited for");
    int status = pg_cuda_check(&s->cuda->device, pg_cuda_api->stream_synchronize(s->handle));
    return status < 0 ? status : pg_cuda_complaint(s->cuda);
}

int pg_stream_query(bool *done, pg_stream *s)
{
    if (!s) return no_stream();
    int status = pg_cuda_api->stream_query(s->handle);
    *done = status == PG_CUDA_OK;
    return status == PG_CUDA_BUSY ? PG_OK : pg_cuda_check(&s->cuda->device, status);
}

/* ---- events ---- */

struct pg_event {
    pg_cuda *cuda;
    void *handle;
    bool timed, recorded;
};

int pg_event_new(pg_event **out, const char *device, bool timed)
{
    pg_cuda *c;
    int status = pg_cuda_find(&c, device);
    if (status < 0) return status;
    pg_event *e = pg_calloc(1, sizeof *e);
    if (!e) return pg_out_of_memory(sizeof *e);
    e->cuda = c;
    e->timed = timed;
    status = pg_cuda_check(&c->device, pg_cuda_api->event_new(c->ordinal, timed, &e->handle));
    if (status < 0) free(e);
    else *out = e;
    return status;
}

void pg_event_free(pg_event *e)
{
    if (!e) return;
    pg_cuda_api->event_free(e->handle);
    free(e);
}

int pg_event_record(pg_event *e, pg_stream *s)
{
    if (!e) return no_event();
    if (!s) return no_stream();
    if (s->cuda != e->cuda)
        return pg_fail("the event is of %s, the stream of %s", e->cuda->device.name, s->cuda->device.name);
    int status = pg_cuda_check(&e->cuda->device, pg_cuda_api->event_record(e->handle, s->handle));
    if (status >= 0) e->recorded = true;
    return status;
}

int pg_event_wait(pg_event *e, pg_stream *s)
{
    if (!e) return no_event();
    if (!s) return no_stream();
    if (!e->recorded) return PG_OK;
    return pg_cuda_check(&s->cuda->device, pg_cuda_api->stream_wait(s->handle, e->handle));
}

int pg_event_query(bool *done, pg_event *e)
{
    if (!e) return no_event();
    *done = true;
    if (!e->recorded) return PG_OK;
    int status = pg_cuda_api->event_query(e->handle);
    *done = status == PG_CUDA_OK;
    return status == PG_CUDA_BUSY ? PG_OK : pg_cuda_check(&e->cuda->device, status);
}

int pg_event_synchronize(pg_event *e)
{
    if (!e) return no_event();
    if (!e->recorded) return PG_OK;
    int status = pg_cuda_check(&e->cuda->device, pg_cuda_api->event_synchronize(e->handle));
    return status < 0 ? status : pg_cuda_complaint(e->cuda);
}

int pg_event_elapsed(double *milliseconds, pg_event *from, pg_event *to)
{
    if (!from || !to) return no_event();
    if (!from->timed || !to->timed) return pg_fail("both events must be made with enable_timing = true");
    if (!from->recorded || !to->recorded)
        return pg_fail("both events must be recorded before the time between them is asked for");
    int status = pg_cuda_api->event_elapsed(milliseconds, from->handle, to->handle);
    if (status == PG_CUDA_BUSY)
        return pg_fail("both events must have completed before the time between them is asked for");
    return pg_cuda_check(&from->cuda->device, status);
}

/* ---- tensors that several streams use ---- */

static pthread_mutex_t uses_mutex = PTHREAD_MUTEX_INITIALIZER;

static int note_use(pg_storage *x, pg_stream *s)
{
    if (x->from == s->pool) return PG_OK;
    pg_stream_use *fresh = malloc(sizeof *fresh);
    if (!fresh) return pg_out_of_memory(sizeof *fresh);
    *fresh = (pg_stream_use){s, NULL};
    pthread_mutex_lock(&uses_mutex);
    const pg_stream_use *u = x->uses;
    while (u && u->stream != s) u = u->next;
    if (!u) {
        fresh->next = x->uses;
        x->uses = fresh;
    }
    pthread_mutex_unlock(&uses_mutex);
    if (u) free(fresh);
    return PG_OK;
}

static int check_live(const pg_tensor *t, const char *what)
{
    if (!t || t->magic != PG_HANDLE_MAGIC || !t->impl || !t->impl->storage)
        return pg_fail("%s: expected a tensor, got a freed one or none", what);
    return PG_OK;
}

int pg_record_stream(const pg_tensor *t, pg_stream *s)
{
    int status = check_live(t, "record_stream");
    if (status < 0) return status;
    if (!s) return no_stream();
    if (pg_device_of(t) != &s->cuda->device)
        return pg_fail("record_stream: the tensor is on %s, the stream of %s", pg_device_of(t)->name,
                       s->cuda->device.name);
    return t->impl->storage->from ? note_use(t->impl->storage, s) : PG_OK;
}

/* ---- pinned memory ---- */

int pg_pin_memory(pg_tensor *out, const pg_tensor *t)
{
    int status = check_live(t, "pin_memory");
    if (status < 0) return status;
    if (!out || out->magic != PG_HANDLE_MAGIC || out->impl)
        return pg_fail("pin_memory: expected an empty handle");
    if (!pg_device_of(t)->host)
        return pg_fail("pin_memory: only tensors on the cpu can be pinned, this one is on %s",
                       pg_device_of(t)->name);
    if (pg_is_pinned(t->impl->storage->from)) {
        pg_share(out, t);
        return PG_OK;
    }
    pg_allocator *from = pg_pinned_pool();
    if (!from) return PG_ERROR;
    status = pg_new_from(out, pg_device_of(t), from, pg_dtype_of(t), pg_ndim(t), pg_shape(t));
    if (status >= 0 && (status = pg_copy_into(out, t)) < 0) pg_tensor_release(out);
    return status;
}

int pg_tensor_is_pinned(const pg_tensor *t)
{
    return check_live(t, "is_pinned") < 0 ? -1 : pg_is_pinned(t->impl->storage->from);
}

int pg_copy_later_to(const pg_device *d, void *memory, pg_storage *host, const void *from, size_t bytes)
{
    pg_stream *s = pg_stream_here(d);
    if (s->graph) return d->from_host(d, memory, from, bytes);      /* says why not */
    int status = note_use(host, s);
    if (status < 0) return status;
    return pg_cuda_check(d, pg_cuda_api->copy(s->handle, memory, from, bytes, PG_CUDA_TO_DEVICE));
}

int pg_copy_later_from(const pg_device *d, pg_storage *host, void *to, const void *memory, size_t bytes)
{
    pg_stream *s = pg_stream_here(d);
    if (s->graph) return d->to_host(d, to, memory, bytes);
    int status = note_use(host, s);
    if (status < 0) return status;
    return pg_cuda_check(d, pg_cuda_api->copy(s->handle, to, memory, bytes, PG_CUDA_TO_HOST));
}

/* What comes on `after` waits for what is on `before` now. */
static int order_streams(const pg_stream *before, const pg_stream *after)
{
    void *event;
    const pg_device *d = &before->cuda->device;
    int status = pg_cuda_check(d, pg_cuda_api->event_new(before->cuda->ordinal, false, &event));
    if (status < 0) return status;
    status = pg_cuda_check(d, pg_cuda_api->event_record(event, before->handle));
    if (status >= 0) status = pg_cuda_check(d, pg_cuda_api->stream_wait(after->handle, event));
    pg_cuda_api->event_free(event);
    return status;
}

int pg_copy_between(const pg_device *d, void *to, const pg_device *e, const void *from, size_t bytes)
{
    pg_stream *source = pg_stream_here(e), *target = pg_stream_here(d);
    if (source->graph || target->graph)
        return pg_fail("a copy from %s to %s cannot be captured in a graph", e->name, d->name);
    int status = order_streams(target, source);
    if (status >= 0)
        status = pg_cuda_check(e, pg_cuda_api->copy(source->handle, to, from, bytes, PG_CUDA_BETWEEN));
    return status < 0 ? status : order_streams(source, target);
}
