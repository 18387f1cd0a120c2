/* view.c: tensors that share memory with their input. */
#include <string.h>

#include "ops.h"

/* ---- reshape ---- */

/* Resolves one -1 in shape and checks the count. */
static int resolve_shape(int64_t *resolved, const pg_tensor *x, const int64_t *shape, int n) {
    if (n > PG_DIMS_MAX) return pg_fail("at most %d dimensions are supported, got %d", PG_DIMS_MAX, n);
    int unknown = -1;
    for (int i = 0; i < n; i++) {
        resolved[i] = shape[i];
        if (shape[i] == -1 && unknown < 0) unknown = i, resolved[i] = 1;
        else if (shape[i] < 0) return pg_fail("invalid shape %s", pg_shape_text((char[PG_TEXT]){0}, shape, n));
    }
    int64_t known = pg_product(resolved, n), numel = x->impl->numel;
    if (unknown >= 0) {
        if (known <= 0 || numel % known != 0)
            return pg_fail("shape %s is invalid for input of shape %s (%lld elements)",
                           pg_shape_text((char[PG_TEXT]){0}, shape, n), pg_text(x), (long long)numel);
        resolved[unknown] = numel / known;
    } else if (known != numel) {
        return pg_fail("shape %s is invalid for input of shape %s (%lld elements)",
                       pg_shape_text((char[PG_TEXT]){0}, shape, n), pg_text(x), (long long)numel);
    }
    return PG_OK;
}

/* Strides that give x the new shape without a copy; false where there are none. */
static bool view_strides(int64_t *stride, const pg_tensor *t, const int64_t *shape, int n) {
    const pg_impl *x = t->impl;
    if (x->contiguous) {
        pg_dense_strides(stride, shape, n);
        return true;
    }
    int view = n - 1;
    int64_t block_stride = x->ndim ? x->stride[x->ndim - 1] : 1, block = 1, taken = 1;
    for (int i = x->ndim - 1; i >= 0; i--) {
        block *= x->shape[i];
        bool ends = i == 0 || (x->shape[i - 1] != 1 && x->stride[i - 1] != block * block_stride);
        if (!ends) continue;
        while (view >= 0 && (taken < block || shape[view] == 1)) {
            stride[view] = taken * block_stride;
            taken *= shape[view--];
        }
        if (taken != block) return false;
        if (i > 0) block_stride = x->stride[i - 1], block = taken = 1;
    }
    return view < 0;
}

static int reshape_backward(pg_backward *b) {
    pg_meta m = pg_input_meta(b, 0);
    b->input[0] = x_reshape(b->pool, b->grad[0], m.shape, m.ndim);
    return b->pool->status;
}
static const pg_rule reshape_rule = {.name = "view", .backward = reshape_backward};

int op_reshape(pg_tensor *out, const pg_tensor *input, const int64_t *shape, int shape_n) {
    int64_t resolved[PG_DIMS_MAX] = {0}, stride[PG_DIMS_MAX];
    int status = resolve_shape(resolved, input, shape, shape_n);
    if (status < 0) return status;
    if (view_strides(stride, input, resolved, shape_n))
        return pg_view_of(out, input, shape_n, resolved, stride, input->impl->offset, PG_VIEW_PLAIN, &reshape_rule, NULL, 0);
    pg_tensor dense = PG_HANDLE;
    status = pg_dense(&dense, input);
    if (status >= 0) {
        pg_dense_strides(stride, resolved, shape_n);
        status = pg_alias(out, &dense, shape_n, resolved, stride, 0);
    }
    pg_tensor_release(&dense);
    return status < 0 ? status : pg_record1(&reshape_rule, out, NULL, 0, input);
}

/* ---- expand ---- */

/* The tape sums the gradient down to the input's shape. */
static int expand_backward(pg_backward *b) {
    b->input[0] = b->grad[0];
    return PG_OK;
}
static const pg_rule expand_rule = {.name = "expand", .backward = expand_backward};

int op_expand(pg_tensor *out, const pg_tensor *input, const int64_t *sizes, int sizes_n) {
    const pg_impl *x = input->impl;
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    int extra = sizes_n - x->ndim;
    if (extra < 0 || sizes_n > PG_DIMS_MAX)
        return pg_fail("the number of sizes provided (%d) must be at least the number of dimensions of the tensor (%d)", sizes_n,
                       x->ndim);
    for (int i = 0; i < sizes_n; i++) {
        int64_t have = i < extra ? 1 : x->shape[i - extra];
        shape[i] = sizes[i] == -1 && i >= extra ? have : sizes[i];
        stride[i] = i < extra ? 0 : x->stride[i - extra];
        if (shape[i] < 0) return pg_fail("size %lld is not allowed in leading, non-existing dimension %d", (long long)sizes[i], i);
        if (shape[i] == have) continue;
        if (have != 1)
            return pg_fail("the expanded size (%lld) must match the existing size (%lld) at dimension %d: %s to %s",
                           (long long)shape[i], (long long)have, i, pg_text(input),
                           pg_shape_text((char[PG_TEXT]){0}, sizes, sizes_n));
        stride[i] = 0;
    }
    return pg_view_of(out, input, sizes_n, shape, stride, x->offset, PG_VIEW_PLAIN, &expand_rule, NULL, 0);
}
