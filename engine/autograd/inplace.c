/* inplace.c: histories of tensors that share memory.
 *
 * Writing result into a view v of base changes base: base_new = base_old with the region of v replaced by result (the copy-slices
 * node). Then v and every other view of base read base_new: each gets, when next asked, a history that takes its region out of it.
 */
#include <stdlib.h>
#include <string.h>

#include "node.h"

/* A region of base: a view's geometry, with base's own. Offsets count from base's first element. */
typedef struct region {
    int ndim, base_ndim;
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX], base_shape[PG_DIMS_MAX], base_stride[PG_DIMS_MAX];
    int64_t offset;
} region;

static void region_of(region *r, const pg_impl *view, const pg_impl *base) {
    memset(r, 0, sizeof *r);
    r->ndim = view->ndim;
    r->base_ndim = base->ndim;
    memcpy(r->shape, view->shape, sizeof *r->shape * view->ndim);
    memcpy(r->stride, view->stride, sizeof *r->stride * view->ndim);
    memcpy(r->base_shape, base->shape, sizeof *r->shape * base->ndim);
    memcpy(r->base_stride, base->stride, sizeof *r->stride * base->ndim);
    r->offset = view->offset - base->offset;
}

static int64_t span(int ndim, const int64_t *shape, const int64_t *stride) {
    int64_t n = 1;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] == 0) return 0;
        n += (shape[i] - 1) * stride[i];
    }
    return n;
}

/* out: a new tensor laid out as base, holding x (base's shape), or zeros where x is NULL. */
static int as_base(pg_tensor *out, const region *r, const pg_tensor *x, const pg_device *device, int dtype) {
    int64_t n = span(r->base_ndim, r->base_shape, r->base_stride);
    pg_tensor flat = PG_HANDLE;
    int status = pg_new(&flat, device, dtype, 1, &n);
    if (status >= 0) status = pg_fill_value(&flat, (pg_value){0, 0});
    if (status >= 0) status = pg_alias(out, &flat, r->base_ndim, r->base_shape, r->base_stride, 0);
    if (status >= 0 && x) status = pg_copy_into(out, x);
    pg_tensor_release(&flat);
    return status;
}

static int region_alias(pg_tensor *out, const region *r, const pg_tensor *base_like) {
    return pg_alias(out, base_like, r->ndim, r->shape, r->stride, base_like->impl->offset + r->offset);
}

static bool overlaps(const region *r) {
    /* dimensions by stride: each must step over the whole extent of the smaller ones */
    int order[PG_DIMS_MAX], n = 0;
    for (int i = 0; i < r->ndim; i++)
        if (r->shape[i] > 1) order[n++] = i;
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && r->stride[order[j]] < r->stride[order[j - 1]]; j--) {
            int t = order[j];
            order[j] = order[j - 1];
            order[j - 1] = t;
        }
    int64_t extent = 0;
    for (int i = 0; i < n; i++) {
        if (r->stride[order[i]] <= extent) return true;
        extent += (r->shape[order[i]] - 1) * r->stride[order[i]];
    }
    return false;
}

/* ---- two linear ops, each the other's gradient: take a region out; put one into zeros ---- */

static int region_take(pg_tensor *out, const pg_tensor *x, const region *r);
static int region_put(pg_tensor *out, const pg_tensor *g, const region *r);

static int take_backward(pg_backward *b) {
    pg_tensor *t = pg_pool_new(b->pool);
    pg_pool_note(b->pool, region_put(t, b->grad[0], b->args));
    b->input[0] = t;
    return b->pool->status;
}
static const pg_rule take_rule = {.name = "as_strided", .backward = take_backward};

static int put_backward(pg_backward *b) {
    pg_tensor *t = pg_pool_new(b->pool);
    pg_pool_note(b->pool, region_take(t, b->grad[0], b->args));
    b->input[0] = t;
    return b->pool->status;
}
static const pg_rule put_rule = {.name = "as_strided_scatter", .backward = put_backward};

/* out (region's shape, dense) = the region of x, which has base's shape and any strides. */
static int region_take(pg_tensor *out, const pg_tensor *x, const region *r) {
    pg_tensor base = PG_HANDLE, part = PG_HANDLE;
    int status = as_base(&base, r, x, pg_device_of(x), x->impl->dtype);
    if (status >= 0) status = region_alias(&part, r, &base);
    if (status >= 0) status = pg_new_like(out, &part, x->impl->dtype);
    if (status >= 0) status = pg_copy_into(out, &part);
    if (status >= 0) status = pg_record1(&take_rule, out, r, sizeof *r, x);
    pg_tensor_release(&part);
    pg_tensor_release(&base);
    return status;
}

/* Adds g (region's shape) into the region of base_like, elements that coincide included. */
static int add_overlapping(const pg_tensor *base_like, const pg_tensor *g, const region *r) {
    int64_t n = span(r->base_ndim, r->base_shape, r->base_stride), count = g->impl->numel, one = 1;
    const pg_device *d = pg_device_of(g);
    pg_tensor places = PG_HANDLE, index_view = PG_HANDLE, index = PG_HANDLE, dense = PG_HANDLE, flat = PG_HANDLE;
    int status = pg_new(&places, d, PG_INT64, 1, &n);
    if (status >= 0) status = PG_RUN(d, arange, PG_INT64, n, ((pg_value){0, 0}), ((pg_value){1, 0}), pg_data(&places));
    if (status >= 0) status = pg_alias(&index_view, &places, r->ndim, r->shape, r->stride, r->offset);
    if (status >= 0) status = pg_dense(&index, &index_view);
    if (status >= 0) status = pg_dense(&dense, g);
    if (status >= 0) status = pg_alias(&flat, base_like, 1, &n, &one, base_like->impl->offset);
    if (status >= 0) {
        pg_rows rows = {.outer = 1, .size = n, .n_index = count, .inner = 1, .index = pg_data(&index)};
        status = PG_RUN(d, index_add, g->impl->dtype, &rows, pg_data(&dense), 1.0, pg_data(&flat));
    }
    pg_tensor_release(&places);
    pg_tensor_release(&index_view);
    pg_tensor_release(&index);
    pg_tensor_release(&dense);
    pg_tensor_release(&flat);
    return status;
}

static int region_put(pg_tensor *out, const pg_tensor *g, const region *r) {
    pg_tensor part = PG_HANDLE;
    int status = as_base(out, r, NULL, pg_device_of(g), g->impl->dtype);
    if (status >= 0 && overlaps(r)) status = add_overlapping(out, g, r);
    else if (status >= 0 && (status = region_alias(&part, r, out)) >= 0) status = pg_copy_into(&part, g);
    if (status >= 0) status = pg_record1(&put_rule, out, r, sizeof *r, g);
    pg_tensor_release(&part);
    return status;
}

int pg_region_view(pg_tensor *out, const pg_tensor *x, int ndim, const int64_t *shape, const int64_t *stride, int64_t offset) {
    pg_tensor geometry = PG_HANDLE;
    int status = pg_alias(&geometry, x, ndim, shape, stride, offset);
    if (status < 0) return status;
    region r;
    region_of(&r, geometry.impl, x->impl);
    pg_tensor_release(&geometry);
    if (r.offset < 0 || r.offset + span(ndim, shape, stride) > span(r.base_ndim, r.base_shape, r.base_stride)) {
        if (pg_will_record(1, &x))
            return pg_fail("a view that reaches outside its input %s has no gradient: use no_grad", pg_text(x));
        return pg_view_of(out, x, ndim, shape, stride, offset, PG_VIEW_PLAIN, NULL, NULL, 0);
    }
    return pg_view_of(out, x, ndim, shape, stride, offset, PG_VIEW_PLAIN, &take_rule, &r, sizeof r);
}

/* ---- copy slices ---- */

/* grad with its region zeroed: self-adjoint. */
static int region_clear(pg_tensor *out, const pg_tensor *g, const region *r);

static int clear_backward(pg_backward *b) {
    pg_tensor *t = pg_pool_new(b->pool);
    pg_pool_note(b->pool, region_clear(t, b->grad[0], b->args));
    b->input[0] = t;
    return b->pool->status;
}
static const pg_rule clear_rule = {.name = "zero_region", .backward = clear_backward};

static int region_clear(pg_tensor *out, const pg_tensor *g, const region *r) {
    pg_tensor part = PG_HANDLE;
    int status = as_base(out, r, g, pg_device_of(g), g->impl->dtype);
    if (status >= 0) status = region_alias(&part, r, out);
    if (status >= 0) status = pg_fill_value(&part, (pg_value){0, 0});
    if (status >= 0) status = pg_record1(&clear_rule, out, r, sizeof *r, g);
    pg_tensor_release(&part);
    return status;
}

static int copy_slices_backward(pg_backward *b) {
    if (b->needs[0]) {
        pg_tensor *t = pg_pool_new(b->pool);
        pg_pool_note(b->pool, region_clear(t, b->grad[0], b->args));
        b->input[0] = t;
    }
    if (b->needs[1]) {
        pg_tensor *t = pg_pool_new(b->pool);
        pg_pool_note(b->pool, region_take(t, b->grad[0], b->args));
        b->input[1] = t;
    }
    return b->pool->status;
}
static const pg_rule copy_slices_rule = {.name = "copy_slices", .backward = copy_slices_backward};

static void take_history(pg_impl *x, pg_impl *from) {
    pg_node *before = x->grad_fn;
    x->grad_fn = from->grad_fn;
    x->output_nr = from->output_nr;
    from->grad_fn = NULL;
    pg_node_release(before);
}

int pg_check_view_writable(const pg_tensor *self, const pg_tensor *result) {
    const pg_impl *x = self->impl;
    if (!pg_grad_enabled() || !x->base || !(pg_requires(result) || x->base->grad_fn)) return PG_OK;
    if (x->view_kind == PG_VIEW_MULTI)
        return pg_fail("the tensor is one of several views that one op returned (split, chunk, unbind): such a view cannot be "
                       "changed in place while gradients are recorded: clone it first");
    if (x->view_kind == PG_VIEW_NO_GRAD)
        return pg_fail("the tensor is a view that was made under no_grad: it cannot be changed in place while gradients are recorded");
    return PG_OK;
}

int pg_rebase_history(const pg_tensor *self, const pg_tensor *result) {
    pg_impl *x = self->impl;
    if (!pg_grad_enabled() || !result->impl->grad_fn) return PG_OK;
    if (!x->base) {
        if (x->retains_grad && x->grad_fn) pg_node_forget_retained(x->grad_fn, x);
        x->retains_grad = false;
        take_history(x, result->impl);
        x->generation++;
        return PG_OK;
    }
    pg_impl *base = x->base;
    region r;
    region_of(&r, x, base);
    pg_tensor base_handle = pg_borrow(base), twin = PG_HANDLE;
    int status = pg_alias_same(&twin, &base_handle);
    if (status >= 0) status = pg_record1(&copy_slices_rule, &twin, &r, sizeof r, &base_handle, result);
    if (status >= 0) {
        take_history(base, twin.impl);
        base->generation++;
    }
    pg_tensor_release(&twin);
    return status;
}

int pg_refresh_view(pg_impl *x) {
    if (!x->base || x->view_generation == x->base->generation) return PG_OK;
    pg_impl *base = x->base;
    x->view_generation = base->generation;
    if (x->view_kind == PG_VIEW_NO_GRAD) return PG_OK;
    region r;
    region_of(&r, x, base);
    pg_tensor base_handle = pg_borrow(base), view = pg_borrow(x), twin = PG_HANDLE;
    bool before = pg_grad_set(true);
    int status = pg_alias_same(&twin, &view);
    if (status >= 0) status = pg_record1(&take_rule, &twin, &r, sizeof r, &base_handle);
    pg_grad_set(before);
    if (status >= 0) take_history(x, twin.impl);
    pg_tensor_release(&twin);
    return status;
}
