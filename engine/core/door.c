#include "door.h"

#include "../autograd/tape.h"
#include "live.h"

int pg_door_enter(pg_door *d, const char *name) {
    d->before = pg_error_op();
    if (!d->before) {
        pg_error_set_op(name);
        pg_memory_here.asks = !pg_memory_here.collected;
        pg_memory_here.collected = false;
    }
    d->device = NULL;
    d->device_argument = NULL;
    return PG_OK;
}

int pg_door_tensor(pg_door *d, const pg_tensor *t, const char *argument, int flags) {
    if (!t) return pg_fail("argument '%s': expected a tensor, got nil", argument);
    if (t->magic != PG_HANDLE_MAGIC) return pg_fail("argument '%s': expected a tensor, got something else", argument);
    if (!t->impl) return pg_fail("argument '%s': the tensor has been freed", argument);
    if (!t->impl->storage) return pg_fail("argument '%s': the tensor was freed by the end of a scope", argument);
    const pg_device *device = pg_device_of(t);
    if (flags & PG_ARG_ANY_DEVICE || device == d->device) return PG_OK;
    if (flags & PG_ARG_CPU_SCALAR && device->host && t->impl->ndim == 0) return PG_OK;
    if (!d->device) {
        d->device = device;
        d->device_argument = argument;
        return PG_OK;
    }
    return pg_fail("expected all tensors on one device, but '%s' is on %s and '%s' on %s", d->device_argument,
                   d->device->name, argument, device->name);
}

int pg_door_tensors(pg_door *d, const pg_tensor *const *t, int n, const char *argument, int flags) {
    if (n < 0 || (n > 0 && !t)) return pg_fail("argument '%s': expected a list of tensors", argument);
    for (int i = 0; i < n; i++) {
        int status = pg_door_tensor(d, t[i], argument, flags);
        if (status < 0) return status;
    }
    return PG_OK;
}

int pg_door_out(pg_door *d, const pg_tensor *out, bool may_be_filled) {
    (void)d;
    if (!out || out->magic != PG_HANDLE_MAGIC) return pg_fail("out: expected a handle");
    if (out->impl && !may_be_filled) return pg_fail("out: expected an empty handle");
    if (out->impl && !out->impl->storage) return pg_fail("out: the tensor was freed by the end of a scope");
    return PG_OK;
}

int pg_door_leave(pg_door *d, int status) {
    if (d->before) return status;
    pg_error_set_op(NULL);
    pg_memory_here.asks = false;
    return status == PG_OK && pg_debt_due() ? PG_COLLECT : status;
}

/* ---- writing a result into a tensor that exists ---- */

static int category(int dtype) { return dtype == PG_BOOL ? 0 : pg_is_integer(dtype) ? 1 : 2; }

static int check_castable(const pg_tensor *self, const pg_tensor *result) {
    if (category(result->impl->dtype) > category(self->impl->dtype))
        return pg_fail("result type %s can't be cast to the desired output type %s", pg_dtype_name(result->impl->dtype),
                       pg_dtype_name(self->impl->dtype));
    return PG_OK;
}

/* x covers its storage alone: nobody else can tell one block of memory from another. */
static bool owns_all(const pg_impl *x) {
    const pg_storage *s = x->storage;
    return atomic_load_explicit(&s->refs, memory_order_acquire) == 1 && !s->exposed && !s->release && !s->uses &&
           x->contiguous && x->offset == 0;
}

/* Elements of result become self's: by exchanging memory where no one can see it, else by copying. */
static int take_elements(const pg_tensor *self, pg_tensor *result) {
    pg_impl *x = self->impl, *y = result->impl;
    /* of one pool: memory of a captured graph stays the graph's, and that of a stream its stream's */
    if (x->storage != y->storage && x->storage->from == y->storage->from && owns_all(x) && owns_all(y) && x->dtype == y->dtype && x->numel == y->numel) {
        pg_storage *s = x->storage, *r = y->storage;
        void *data = s->data;
        size_t bytes = s->bytes, got = s->got;
        s->data = r->data; s->bytes = r->bytes; s->got = r->got;
        r->data = data; r->bytes = bytes; r->got = got;
        return PG_OK;
    }
    return pg_copy_into(self, result);
}

static int resize(pg_tensor *out, const pg_tensor *result) {
    pg_impl *x = out->impl;
    if (x->base) return pg_fail("out has shape %s, the result %s, and a view cannot be resized", pg_text(out), pg_text(result));
    pg_tensor fresh = PG_HANDLE;
    int status = pg_new(&fresh, pg_device_of(out), x->dtype, result->impl->ndim, result->impl->shape);
    if (status < 0) return status;
    if ((status = pg_impl_room(x, fresh.impl->ndim)) < 0) {
        pg_tensor_release(&fresh);
        return status;
    }
    pg_storage *old = x->storage;
    x->storage = fresh.impl->storage;
    fresh.impl->storage = old;
    x->offset = 0;
    for (int i = 0; i < x->ndim; i++) x->shape[i] = fresh.impl->shape[i], x->stride[i] = fresh.impl->stride[i];
    pg_impl_geometry(x);
    pg_tensor_release(&fresh);
    return PG_OK;
}

int pg_door_write_out(pg_door *d, pg_tensor *out, pg_tensor *result) {
    (void)d;
    int status = PG_OK;
    if (pg_grad_enabled() && (pg_requires(out) || pg_requires(result)))
        status = pg_fail("functions with out= don't support automatic differentiation, but one of the arguments requires grad");
    if (status >= 0) status = check_castable(out, result);
    if (status >= 0 && pg_device_of(out) != pg_device_of(result))
        status = pg_fail("out is on %s, the result on %s", pg_device_of(out)->name, pg_device_of(result)->name);
    if (status >= 0 && !pg_same_shape(out, result)) status = resize(out, result);
    if (status >= 0) status = take_elements(out, result);
    if (status >= 0) pg_bump_version(out);
    pg_tensor_release(result);
    return status;
}

int pg_door_inplace_begin(pg_door *d, const pg_tensor *self) {
    (void)d;
    pg_memory_here.asks = false;
    const pg_impl *x = self->impl;
    for (int i = 0; i < x->ndim; i++)
        if (x->stride[i] == 0 && x->shape[i] > 1)
            return pg_fail("more than one element of the written-to tensor refers to a single memory location: clone the "
                           "expanded tensor %s first", pg_text(self));
    if (!pg_grad_enabled()) return PG_OK;
    if (x->requires_grad && !x->grad_fn) return pg_fail("a leaf tensor that requires grad is being used in an in-place operation");
    if (x->base && x->base->requires_grad && !x->base->grad_fn)
        return pg_fail("a view of a leaf tensor that requires grad is being used in an in-place operation");
    return PG_OK;
}

int pg_door_inplace(pg_door *d, const pg_tensor *self, pg_tensor *result) {
    (void)d;
    int status = check_castable(self, result);
    if (status >= 0 && pg_device_of(self) != pg_device_of(result))
        status = pg_fail("expected all tensors on one device, but the one that is changed is on %s and another on %s",
                         pg_device_of(self)->name, pg_device_of(result)->name);
    if (status >= 0 && !pg_same_shape(self, result))
        status = pg_fail("output with shape %s doesn't match the broadcast shape %s", pg_text(self), pg_text(result));
    /* what the op saved of self for its gradient must not change with self */
    if (status >= 0) status = pg_node_isolate(result->impl->grad_fn, self->impl->storage);
    if (status >= 0) status = pg_check_view_writable(self, result);
    if (status >= 0) status = take_elements(self, result);
    if (status >= 0) {
        pg_bump_version(self);
        status = pg_rebase_history(self, result);
        /* self has changed: trying once more would change it twice */
        if (status == PG_ERROR_MEMORY) status = PG_ERROR;
    }
    pg_tensor_release(result);
    return status;
}
