#include "tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../autograd/tape.h"
#include "../device/stream.h"
#include "deferred.h"
#include "live.h"

/* ---- freed structs are kept by the thread that freed them, linked through their first word ---- */

#ifdef __SANITIZE_ADDRESS__
enum { KEEP_MAX = 0 };      /* the sanitizer should see each one go */
#else
enum { KEEP_MAX = 1 << 16 };
#endif
typedef struct keeper { void *first; int n; } keeper;
static PG_THREAD keeper impl_keeper, storage_keeper;

static void *keeper_take(keeper *k, size_t size) {
    void *item = k->first;
    if (!item) return pg_malloc(size);
    k->first = *(void **)item;
    k->n--;
    return item;
}

static void keeper_give(keeper *k, void *item) {
    if (k->n >= KEEP_MAX) {
        free(item);
        return;
    }
    *(void **)item = k->first;
    k->first = item;
    k->n++;
}

atomic_long pg_live_tensors, pg_live_storages;

/* ---- storage ---- */

static pg_storage *storage_new(void) {
    pg_storage *s = keeper_take(&storage_keeper, sizeof *s);
    if (!s) return NULL;
    atomic_init(&s->refs, 1);
    atomic_init(&s->version, 0);
    s->exposed = false;
    s->from = NULL;
    s->release = NULL;
    s->owner = NULL;
    s->uses = NULL;
    atomic_init(&s->watched, 0);
    s->deferred = NULL;
    atomic_fetch_add_explicit(&pg_live_storages, 1, memory_order_relaxed);
    return s;
}

static void storage_forget(pg_storage *s) {
    atomic_fetch_sub_explicit(&pg_live_storages, 1, memory_order_relaxed);
    keeper_give(&storage_keeper, s);
}

static int storage_allocate(pg_storage **out, const pg_device *device, pg_allocator *from, size_t bytes) {
    pg_storage *s = storage_new();
    if (!s) return pg_out_of_memory(sizeof *s);
    s->device = device;
    s->bytes = bytes;
    s->from = from;
    int status = pg_allocate(from, bytes, &s->data, &s->got);
    if (status < 0) {
        storage_forget(s);
        return status;
    }
    *out = s;
    return PG_OK;
}

void pg_storage_release(pg_storage *s) {
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    if (s->deferred) pg_deferred_forget(s);
    if (s->release) s->release(s);
    else if (s->uses) pg_stream_release(s->from, s->data, s->got, s->uses);
    else pg_release_memory(s->from, s->data, s->got);
    storage_forget(s);
}

/* ---- impl ---- */

static _Atomic uint64_t next_id = 1;

int pg_impl_room(pg_impl *x, int ndim) {
    if (ndim > PG_FEW_DIMS && x->shape == x->few) {
        int64_t *block = pg_malloc(2 * PG_DIMS_MAX * sizeof *block);
        if (!block) return pg_out_of_memory(2 * PG_DIMS_MAX * sizeof *block);
        x->shape = block;
        x->stride = block + PG_DIMS_MAX;
    }
    x->ndim = (uint8_t)ndim;
    return PG_OK;
}

static int impl_new(pg_impl **out, int ndim) {
    if (ndim > PG_DIMS_MAX) return pg_fail("at most %d dimensions are supported, got %d", PG_DIMS_MAX, ndim);
    pg_impl *x = keeper_take(&impl_keeper, sizeof *x);
    if (!x) return pg_out_of_memory(sizeof *x);
    memset(x, 0, offsetof(pg_impl, few));
    x->shape = x->few;
    x->stride = x->few + PG_FEW_DIMS;
    x->scope = NULL;
    atomic_init(&x->held, 0);
    atomic_init(&x->refs, 1);
    x->id = atomic_fetch_add_explicit(&next_id, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&pg_live_tensors, 1, memory_order_relaxed);
    *out = x;
    return pg_impl_room(x, ndim);
}

pg_impl *pg_impl_retain(pg_impl *x) {
    atomic_fetch_add_explicit(&x->refs, 1, memory_order_relaxed);
    return x;
}

/* Impls whose last reference went while another was being taken apart wait here, linked through `base`. */
static PG_THREAD pg_impl *waiting;
static PG_THREAD bool releasing;

static void impl_dispose(pg_impl *x) {
    pg_impl *base = x->base;
    if (x->scoped) pg_scope_forget(x);
    if (x->hook_id != 0) pg_dead_id(x->hook_id);
    if (x->retains_grad && x->grad_fn) pg_node_forget_retained(x->grad_fn, x);
    if (x->storage) pg_storage_release(x->storage);
    if (x->grad_fn) pg_node_release(x->grad_fn);
    pg_impl_unhold(x->grad);
    pg_impl_unhold(base);
    if (x->shape != x->few) free(x->shape);
    atomic_fetch_sub_explicit(&pg_live_tensors, 1, memory_order_relaxed);
    keeper_give(&impl_keeper, x);
}

void pg_impl_release(pg_impl *x) {
    if (!x || atomic_fetch_sub_explicit(&x->refs, 1, memory_order_acq_rel) != 1) return;
    if (releasing) {
        /* base is still needed: it is released right here, before its field becomes the link */
        pg_impl *base = x->base;
        x->base = waiting;
        waiting = x;
        pg_impl_unhold(base);
        return;
    }
    releasing = true;
    impl_dispose(x);
    while (waiting) {
        x = waiting;
        waiting = x->base;
        x->base = NULL;
        impl_dispose(x);
    }
    releasing = false;
}

void pg_tensor_release(pg_tensor *t) {
    if (!t || t->magic != PG_HANDLE_MAGIC || !t->impl) return;
    pg_impl *x = t->impl;
    t->impl = NULL;
    pg_impl_release(x);
}

void pg_tensor_list_release(pg_tensor_list *list) {
    if (!list || list->magic != PG_LIST_MAGIC) return;
    for (int i = 0; i < list->n; i++) pg_tensor_release(&list->items[i]);
    free(list->items);
    list->items = NULL;
    list->n = 0;
}

int pg_list_make(pg_tensor_list *list, int n) {
    list->items = pg_malloc((size_t)(n > 0 ? n : 1) * sizeof *list->items);
    if (!list->items) return pg_out_of_memory((size_t)n * sizeof *list->items);
    for (int i = 0; i < n; i++) list->items[i] = PG_HANDLE;
    list->n = n;
    return PG_OK;
}

int pg_tensor_list_take(pg_tensor *out, pg_tensor_list *list, int k) {
    if (!out || out->magic != PG_HANDLE_MAGIC || out->impl) return pg_fail("tensor_list_take: expected an empty handle");
    if (!list || list->magic != PG_LIST_MAGIC || k < 0 || k >= list->n)
        return pg_fail_status(PG_ERROR_INDEX, "tensor_list_take: no item %d", k);
    pg_move(out, &list->items[k]);
    return PG_OK;
}

/* ---- geometry ---- */

int64_t pg_product(const int64_t *shape, int ndim) {
    int64_t n = 1;
    bool zero = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0) return -1;
        if (shape[i] == 0) zero = true;
        else if (__builtin_mul_overflow(n, shape[i], &n)) return -1;
    }
    return zero ? 0 : n;
}

void pg_dense_strides(int64_t *stride, const int64_t *shape, int ndim) {
    int64_t s = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        stride[i] = s;
        if (shape[i] > 1) s *= shape[i];
    }
}

void pg_impl_geometry(pg_impl *x) {
    int64_t n = 1, dense = 1;
    bool contiguous = true;
    for (int i = x->ndim - 1; i >= 0; i--) {
        if (x->shape[i] != 1 && x->stride[i] != dense) contiguous = false;
        if (x->shape[i] > 1) dense *= x->shape[i];
        n *= x->shape[i];
    }
    x->numel = n;
    x->contiguous = contiguous || n == 0;
}

bool pg_same_shape(const pg_tensor *a, const pg_tensor *b) {
    const pg_impl *x = a->impl, *y = b->impl;
    if (x->ndim != y->ndim) return false;
    for (int i = 0; i < x->ndim; i++)
        if (x->shape[i] != y->shape[i]) return false;
    return true;
}

int pg_wrap_dim(int *out, int64_t dim, int ndim) {
    int n = ndim > 0 ? ndim : 1;
    if (dim < -n || dim >= n)
        return pg_fail_status(PG_ERROR_INDEX, "dimension out of range (expected to be in range of [%d, %d], but got %lld)", -n,
                              n - 1, (long long)dim);
    *out = (int)(dim < 0 ? dim + n : dim);
    return PG_OK;
}

int pg_dim_mask(uint32_t *mask, const int64_t *dims, int n, int ndim, bool all_when_empty) {
    *mask = 0;
    if (!dims || (n == 0 && all_when_empty)) {
        *mask = ndim == 0 ? 1 : (UINT32_C(1) << ndim) - 1;
        return PG_OK;
    }
    for (int i = 0; i < n; i++) {
        int d, status = pg_wrap_dim(&d, dims[i], ndim);
        if (status < 0) return status;
        if (*mask & (UINT32_C(1) << d)) return pg_fail("dim %d appears multiple times in the list of dims", d);
        *mask |= UINT32_C(1) << d;
    }
    return PG_OK;
}

int pg_broadcast(int64_t *shape, int *ndim, const int64_t *b, int b_ndim) {
    int64_t joined[PG_DIMS_MAX];
    int a_ndim = *ndim, n = a_ndim > b_ndim ? a_ndim : b_ndim;
    for (int i = 1; i <= n; i++) {
        int64_t p = i <= a_ndim ? shape[a_ndim - i] : 1, q = i <= b_ndim ? b[b_ndim - i] : 1;
        if (p != q && p != 1 && q != 1)
            return pg_fail("shapes do not broadcast: %s and %s: sizes %lld and %lld at dimension %d",
                           pg_shape_text((char[PG_TEXT]){0}, shape, a_ndim), pg_shape_text((char[PG_TEXT]){0}, b, b_ndim),
                           (long long)p, (long long)q, n - i);
        joined[n - i] = p == 1 ? q : p;
    }
    memcpy(shape, joined, (size_t)n * sizeof *shape);
    *ndim = n;
    return PG_OK;
}

const char *pg_shape_text(char *buffer, const int64_t *shape, int ndim) {
    int n = snprintf(buffer, PG_TEXT, "[");
    for (int i = 0; i < ndim && n < PG_TEXT - 24; i++)
        n += snprintf(buffer + n, (size_t)(PG_TEXT - n), i ? ", %lld" : "%lld", (long long)shape[i]);
    snprintf(buffer + n, (size_t)(PG_TEXT - n), "]");
    return buffer;
}

/* ---- making ---- */

int pg_new(pg_tensor *out, const pg_device *device, int dtype, int ndim, const int64_t *shape) {
    return pg_new_from(out, device, pg_pool_of(device), dtype, ndim, shape);
}

int pg_new_from(pg_tensor *out, const pg_device *device, pg_allocator *from, int dtype, int ndim, const int64_t *shape) {
    int64_t n = ndim > PG_DIMS_MAX ? 0 : pg_product(shape, ndim);
    size_t bytes;
    if (n < 0 || __builtin_mul_overflow((size_t)n, (size_t)pg_size_of(dtype), &bytes) || bytes > PTRDIFF_MAX) {
        for (int i = 0; i < ndim; i++)
            if (shape[i] < 0)
                return pg_fail("negative size %lld in shape %s", (long long)shape[i],
                               pg_shape_text((char[PG_TEXT]){0}, shape, ndim));
        return pg_fail_status(PG_ERROR_MEMORY, "shape %s of %s is more than memory can address",
                              pg_shape_text((char[PG_TEXT]){0}, shape, ndim), pg_dtype_name(dtype));
    }
    pg_impl *x = NULL;
    int status = impl_new(&x, ndim);
    if (status >= 0) status = storage_allocate(&x->storage, device, from, bytes);
    if (status < 0) {
        pg_impl_release(x);
        return status;
    }
    x->dtype = (uint8_t)dtype;
    x->numel = n;
    x->contiguous = true;
    int64_t s = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        x->shape[i] = shape[i];
        x->stride[i] = s;
        if (shape[i] > 1) s *= shape[i];
    }
    pg_scope_note(x);
    out->impl = x;
    return PG_OK;
}

int pg_alias(pg_tensor *out, const pg_tensor *t, int ndim, const int64_t *shape, const int64_t *stride, int64_t offset) {
    const pg_impl *from = t->impl;
    pg_impl *x = NULL;
    int status = impl_new(&x, ndim);
    if (status < 0) {
        pg_impl_release(x);
        return status;
    }
    x->storage = from->storage;
    atomic_fetch_add_explicit(&x->storage->refs, 1, memory_order_relaxed);
    x->dtype = from->dtype;
    x->offset = offset;
    for (int i = 0; i < ndim; i++) {
        x->shape[i] = shape[i];
        x->stride[i] = stride[i];
    }
    pg_impl_geometry(x);
    pg_scope_note(x);
    out->impl = x;
    return PG_OK;
}

int pg_alias_same(pg_tensor *out, const pg_tensor *t) {
    const pg_impl *x = t->impl;
    return pg_alias(out, t, x->ndim, x->shape, x->stride, x->offset);
}

int pg_view_of(pg_tensor *out, const pg_tensor *t, int ndim, const int64_t *shape, const int64_t *stride, int64_t offset,
               int view_kind, const pg_rule *rule, const void *args, size_t args_size) {
    pg_tensor view = PG_HANDLE;
    int status = pg_alias(&view, t, ndim, shape, stride, offset);
    if (status < 0) return status;
    pg_impl *x = view.impl, *base = t->impl->base ? t->impl->base : t->impl;
    x->base = pg_impl_hold(base);
    x->view_kind = (uint8_t)(pg_grad_enabled() ? view_kind : PG_VIEW_NO_GRAD);
    if (x->view_kind == PG_VIEW_PLAIN && t->impl->view_kind > PG_VIEW_PLAIN) x->view_kind = t->impl->view_kind;
    status = pg_refresh_view(t->impl);
    x->view_generation = base->generation;
    /* where it fails, the view is gone */
    if (status >= 0 && rule) status = pg_record1(rule, &view, args, args_size, t);
    if (status < 0) {
        pg_tensor_release(&view);
        return status;
    }
    pg_move(out, &view);
    return PG_OK;
}

int pg_wrap(pg_tensor *out, const pg_device *device, int dtype, int ndim, const int64_t *shape, void *memory, size_t bytes,
            void (*release)(pg_storage *), void *owner) {
    pg_impl *x = NULL;
    pg_storage *s = NULL;
    int status = impl_new(&x, ndim);
    if (status >= 0 && !(s = storage_new())) status = pg_out_of_memory(sizeof *s);
    if (status < 0) {
        pg_impl_release(x);
        return status;
    }
    s->device = device;
    s->data = memory;
    s->bytes = s->got = bytes;
    s->release = release;
    s->owner = owner;
    s->exposed = true;
    x->storage = s;
    x->dtype = (uint8_t)dtype;
    memcpy(x->shape, shape, (size_t)ndim * sizeof *shape);
    pg_dense_strides(x->stride, shape, ndim);
    pg_impl_geometry(x);
    pg_scope_note(x);
    out->impl = x;
    return PG_OK;
}

int pg_new_scalar(pg_tensor *out, const pg_device *device, int dtype, double value) {
    int status = pg_new(out, device, dtype, 0, NULL);
    if (status < 0) return status;
    return pg_fill_value(out, pg_is_float(dtype) ? (pg_value){0, value} : (pg_value){(int64_t)value, 0});
}

/* ---- strided iteration ---- */

void pg_strided_begin(pg_strided *s, int ndim, const int64_t *shape) {
    s->ndim = ndim;
    s->n = 0;
    for (int i = 0; i < ndim; i++) s->shape[i] = shape[i];
}

void pg_strided_add(pg_strided *s, const pg_tensor *t) { pg_strided_add_at(s, t->impl, pg_data(t)); }

void pg_strided_add_dense(pg_strided *s, void *data) {
    int k = s->n++;
    s->data[k] = data;
    pg_dense_strides(s->stride[k], s->shape, s->ndim);
}

void pg_strided_add_at(pg_strided *s, const pg_impl *x, void *data) {
    int k = s->n++, missing = s->ndim - x->ndim;
    s->data[k] = data;
    for (int i = 0; i < missing; i++) s->stride[k][i] = 0;
    for (int i = 0; i < x->ndim; i++) s->stride[k][missing + i] = x->shape[i] == 1 ? 0 : x->stride[i];
}

void pg_strided_add_value(pg_strided *s, pg_value value) {
    int k = s->n++;
    s->data[k] = NULL;
    s->scalar[k] = value;
    for (int i = 0; i < s->ndim; i++) s->stride[k][i] = 0;
}

static int64_t magnitude(int64_t v) { return v < 0 ? -v : v; }

/* Whether dimension a should be outside dimension b: by the output's strides, then by the inputs'. */
static bool outside(const pg_strided *s, int a, int b) {
    for (int k = 0; k < s->n; k++) {
        int64_t p = magnitude(s->stride[k][a]), q = magnitude(s->stride[k][b]);
        if (p != q && p != 0 && q != 0) return p > q;
    }
    return true;
}

static void move_dim(pg_strided *s, int to, int from) {
    s->shape[to] = s->shape[from];
    for (int k = 0; k < s->n; k++) s->stride[k][to] = s->stride[k][from];
}

static void swap_dims(pg_strided *s, int a, int b) {
    int64_t t = s->shape[a];
    s->shape[a] = s->shape[b];
    s->shape[b] = t;
    for (int k = 0; k < s->n; k++) {
        t = s->stride[k][a];
        s->stride[k][a] = s->stride[k][b];
        s->stride[k][b] = t;
    }
}

void pg_strided_end(pg_strided *s) {
    int n = 0;
    for (int i = 0; i < s->ndim; i++)
        if (s->shape[i] != 1) {
            if (n != i) move_dim(s, n, i);
            n++;
        }
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && !outside(s, j - 1, j); j--) swap_dims(s, j - 1, j);
    int last = 0;
    for (int i = 1; i < n; i++) {
        bool merge = true;
        for (int k = 0; k < s->n && merge; k++) merge = s->stride[k][last] == s->stride[k][i] * s->shape[i];
        if (merge) {
            s->shape[last] *= s->shape[i];
            for (int k = 0; k < s->n; k++) s->stride[k][last] = s->stride[k][i];
        } else {
            move_dim(s, ++last, i);
        }
    }
    s->ndim = n ? last + 1 : 0;
}

/* ---- conversions ---- */

static int copy_same_device(const pg_tensor *to, const pg_tensor *from) {
    pg_strided s;
    pg_strided_begin(&s, to->impl->ndim, to->impl->shape);
    pg_strided_add(&s, to);
    pg_strided_add(&s, from);
    pg_strided_end(&s);
    return PG_RUN(pg_device_of(to), copy, to->impl->dtype, from->impl->dtype, &s);
}

/* Bytes between two devices. later: where one is the host and its memory is pinned the copy may run after the return, as it does
 * where neither is. */
static int move_bytes(const pg_tensor *to, const pg_tensor *from, size_t bytes, bool later) {
    const pg_device *d = pg_device_of(to), *e = pg_device_of(from);
    if (!d->host && !e->host) return pg_copy_between(d, pg_data(to), e, pg_data(from), bytes);
    if (e->host) {
        if (later && pg_is_pinned(from->impl->storage->from))
            return pg_copy_later_to(d, pg_data(to), from->impl->storage, pg_data(from), bytes);
        return d->from_host(d, pg_data(to), pg_data(from), bytes);
    }
    if (later && pg_is_pinned(to->impl->storage->from))
        return pg_copy_later_from(e, to->impl->storage, pg_data(to), pg_data(from), bytes);
    return e->to_host(e, pg_data(to), pg_data(from), bytes);
}

static int copy_across(const pg_tensor *to, const pg_tensor *from, bool later) {
    const pg_device *d = pg_device_of(to);
    /* conversion and reordering happen on the source's device, placement on the target's */
    pg_tensor packed = PG_HANDLE, landed = PG_HANDLE;
    int status = pg_dense_as(&packed, from, to->impl->dtype);
    size_t bytes = status < 0 ? 0 : (size_t)packed.impl->numel * (size_t)pg_size_of(to->impl->dtype);
    if (status >= 0 && to->impl->contiguous && pg_same_shape(to, from)) {
        status = move_bytes(to, &packed, bytes, later);
    } else {
        if (status >= 0) status = pg_new(&landed, d, to->impl->dtype, from->impl->ndim, from->impl->shape);
        if (status >= 0) status = move_bytes(&landed, &packed, bytes, later && !d->host);
        if (status >= 0) status = copy_same_device(to, &landed);
    }
    pg_tensor_release(&packed);
    pg_tensor_release(&landed);
    return status;
}

static int copy_into(const pg_tensor *to, const pg_tensor *from, bool later) {
    if (to->impl->numel == 0) return PG_OK;
    if (pg_device_of(to) != pg_device_of(from)) return copy_across(to, from, later);
    if (to->impl->storage == from->impl->storage) {
        pg_tensor apart = PG_HANDLE;
        int status = pg_new_like(&apart, from, from->impl->dtype);
        if (status >= 0) status = copy_same_device(&apart, from);
        if (status >= 0) status = copy_same_device(to, &apart);
        pg_tensor_release(&apart);
        return status;
    }
    return copy_same_device(to, from);
}

int pg_copy_into(const pg_tensor *to, const pg_tensor *from) { return copy_into(to, from, false); }
int pg_copy_into_later(const pg_tensor *to, const pg_tensor *from) { return copy_into(to, from, true); }

int pg_dense_as(pg_tensor *out, const pg_tensor *x, int dtype) {
    if (x->impl->contiguous && x->impl->dtype == dtype) {
        pg_share(out, x);
        return PG_OK;
    }
    int status = pg_new_like(out, x, dtype);
    if (status >= 0 && (status = pg_copy_into(out, x)) < 0) pg_tensor_release(out);
    return status;
}

int pg_dense(pg_tensor *out, const pg_tensor *x) { return pg_dense_as(out, x, x->impl->dtype); }

int pg_converted(pg_tensor *out, const pg_tensor *x, int dtype) {
    if (x->impl->dtype != dtype) return pg_dense_as(out, x, dtype);
    pg_share(out, x);
    return PG_OK;
}

int pg_fill_value(const pg_tensor *t, pg_value v) {
    if (t->impl->numel == 0) return PG_OK;
    pg_strided s;
    pg_strided_begin(&s, t->impl->ndim, t->impl->shape);
    pg_strided_add(&s, t);
    pg_strided_end(&s);
    return PG_RUN(pg_device_of(t), fill, t->impl->dtype, &s, v);
}

pg_value pg_value_of(const pg_number *n, int dtype) {
    double d = n->kind == PG_NUMBER_FLOAT ? n->d : (double)n->i;
    if (pg_is_float(dtype)) return (pg_value){0, d};
    if (dtype == PG_BOOL) return (pg_value){d != 0, 0};
    if (n->kind != PG_NUMBER_FLOAT) return (pg_value){n->i, 0};
    return (pg_value){d >= 0x1p63 ? INT64_MAX : d > -0x1p63 ? (int64_t)d : INT64_MIN, 0};
}

void pg_bump_version(const pg_tensor *t) {
    atomic_fetch_add_explicit(&t->impl->storage->version, 1, memory_order_relaxed);
}
