/* mode.c: gradient mode, and what users set on single tensors. */
#include <stdlib.h>

#include "node.h"

static PG_THREAD signed char disabled;   /* zero, the default, is enabled */
static PG_THREAD int depth;

bool pg_grad_enabled(void) { return !disabled; }

bool pg_grad_set(bool on) {
    bool before = !disabled;
    disabled = !on;
    return before;
}

int pg_is_grad_enabled(void) { return !disabled; }

int pg_set_grad_enabled(int enabled) {
    disabled = !enabled;
    return PG_OK;
}

/* A token carries the depth it was given at and the mode to go back to. */
int pg_grad_mode_enter(int *token, int enabled) {
    *token = depth++ * 2 + !disabled;
    disabled = !enabled;
    return PG_OK;
}

int pg_grad_mode_leave(int token) {
    int at = token / 2;
    if (at >= depth || at < 0) return pg_fail("a gradient region was left that is not open");
    bool in_order = at == depth - 1;
    depth = at;
    disabled = !(token & 1);
    if (!in_order)
        return pg_fail("gradient regions were not left in reverse order: a coroutine must not yield inside no_grad or enable_grad");
    return PG_OK;
}

static int check(const pg_tensor *t, const char *what) {
    if (!t || t->magic != PG_HANDLE_MAGIC || !t->impl || !t->impl->storage)
        return pg_fail("%s: expected a tensor, got a freed one or none", what);
    return PG_OK;
}

int pg_requires_grad_(const pg_tensor *t, int requires_grad) {
    int status = check(t, "requires_grad_");
    if (status < 0) return status;
    pg_impl *x = t->impl;
    if (x->grad_fn && !requires_grad)
        return pg_fail("requires_grad_: only leaf tensors' requires_grad can be changed: use detach() for a tensor without it");
    if (requires_grad && !pg_is_float(x->dtype))
        return pg_fail("requires_grad_: only floating-point tensors can require gradients, got %s", pg_dtype_name(x->dtype));
    if (!x->grad_fn) x->requires_grad = requires_grad;
    return PG_OK;
}

int pg_retain_grad(const pg_tensor *t) {
    int status = check(t, "retain_grad");
    if (status < 0) return status;
    if (!pg_requires(t)) return pg_fail("retain_grad: the tensor does not require gradients");
    if ((status = pg_refresh_view(t->impl)) < 0 || !t->impl->grad_fn) return status;
    pg_watch *w;
    if ((status = pg_node_watch(&w, t->impl->grad_fn, t->impl->output_nr)) < 0) return status;
    w->retained = t->impl;
    t->impl->retains_grad = true;
    return PG_OK;
}

int pg_get_grad(pg_tensor *out, const pg_tensor *t) {
    int status = check(t, "grad");
    if (status < 0) return status;
    if (!out || out->magic != PG_HANDLE_MAGIC || out->impl) return pg_fail("grad: expected an empty handle");
    if (t->impl->grad) out->impl = pg_impl_retain(t->impl->grad);
    return PG_OK;
}

int pg_set_grad(const pg_tensor *t, const pg_tensor *grad) {
    int status = check(t, "grad");
    if (status < 0) return status;
    pg_impl *x = t->impl;
    if (grad) {
        if ((status = check(grad, "grad")) < 0) return status;
        if (!pg_same_shape(t, grad))
            return pg_fail("grad: assigned a gradient of shape %s to a tensor of shape %s", pg_text(grad), pg_text(t));
        if (grad->impl->dtype != x->dtype || pg_device_of(grad) != pg_device_of(t))
            return pg_fail("grad: assigned a gradient of %s on %s to a tensor of %s on %s", pg_dtype_name(grad->impl->dtype),
                           pg_device_of(grad)->name, pg_dtype_name(x->dtype), pg_device_of(t)->name);
        if (grad->impl == x) return pg_fail("grad: a tensor cannot be its own gradient");
    }
    pg_impl *before = x->grad;
    x->grad = grad ? pg_impl_hold(grad->impl) : NULL;
    pg_impl_unhold(before);
    return PG_OK;
}

int pg_detach_(const pg_tensor *t) {
    int status = check(t, "detach_");
    if (status < 0) return status;
    pg_impl *x = t->impl;
    if (x->base && pg_requires(t))
        return pg_fail("detach_: a view cannot be detached in place: use detach()");
    pg_node *history = x->grad_fn;
    if (x->retains_grad && history) pg_node_forget_retained(history, x);
    x->retains_grad = false;
    x->grad_fn = NULL;
    x->requires_grad = false;
    x->generation++;
    pg_node_release(history);
    return PG_OK;
}

/* ---- hooks: Lua keeps them under an id ---- */

static _Atomic int64_t next_hook = 1;

int pg_hook_id(double *id, const pg_tensor *t) {
    int status = check(t, "register_hook");
    if (status < 0) return status;
    if (!pg_requires(t)) return pg_fail("register_hook: cannot register a hook on a tensor that doesn't require gradient");
    if ((status = pg_refresh_view(t->impl)) < 0) return status;
    double *place = &t->impl->hook_id;
    if (t->impl->grad_fn) {
        pg_watch *w;
        if ((status = pg_node_watch(&w, t->impl->grad_fn, t->impl->output_nr)) < 0) return status;
        place = &w->hook_id;
    }
    if (*place == 0) *place = (double)atomic_fetch_add_explicit(&next_hook, 1, memory_order_relaxed);
    *id = *place;
    return PG_OK;
}

/* Ids that no node or tensor has any more, until Lua drains them. */
static struct { atomic_flag lock; double *ids; int n, room; } dead = {ATOMIC_FLAG_INIT, NULL, 0, 0};

void pg_dead_id(double id) {
    while (atomic_flag_test_and_set_explicit(&dead.lock, memory_order_acquire)) {}
    if (dead.n == dead.room) {
        int room = dead.room ? dead.room * 2 : 64;
        double *more = pg_realloc(dead.ids, (size_t)room * sizeof *more);
        if (more) dead.ids = more, dead.room = room;
    }
    if (dead.n < dead.room) dead.ids[dead.n++] = id;
    atomic_flag_clear_explicit(&dead.lock, memory_order_release);
}

int pg_dead_ids(double *ids, int n) {
    while (atomic_flag_test_and_set_explicit(&dead.lock, memory_order_acquire)) {}
    int k = 0;
    while (k < n && dead.n > 0) ids[k++] = dead.ids[--dead.n];
    atomic_flag_clear_explicit(&dead.lock, memory_order_release);
    return k;
}
