/* view.c: tensors that share memory with their input.
 *
 * Views whose elements are all of the input's (reshape, permute ...) have gradients that are views again.
 * Those that leave elements out (slice, select, diagonal) have a gradient that puts a part into zeros of the
 * input's shape, whose own gradient takes the part out again.
 */
#include "inplace.h"

#include <stdlib.h>
#include <string.h>

#include "core/live.h"
#include "device/stream.h"

#define text_of(shape, n) pg_shape_text((char[PG_TEXT]){0}, shape, n)

static int too_many(int n) { return pg_fail("at most %d dimensions are supported, got %d", PG_DIMS_MAX, n); }

/* ---- the same elements in another shape ---- */

/* Resolves one -1 in shape and checks the count. */
static int resolve_shape(int64_t *resolved, const pg_tensor *x, const int64_t *shape, int n)
{
    if (n > PG_DIMS_MAX) return too_many(n);
    int unknown = -1;
    for (int i = 0; i < n; i++) {
        resolved[i] = shape[i];
        if (shape[i] == -1 && unknown >= 0)
            return pg_fail("only one dimension can be inferred, got %s", text_of(shape, n));
        if (shape[i] == -1) unknown = i, resolved[i] = 1;
        else if (shape[i] < 0)
            return pg_fail("invalid size %lld in shape %s", (long long)shape[i], text_of(shape, n));
    }
    int64_t known = pg_product(resolved, n), numel = x->impl->numel;
    bool fits = unknown >= 0 ? known > 0 && numel % known == 0 : known == numel;
    if (!fits && unknown >= 0 && known == 0 && numel == 0)
        return pg_fail("the size -1 in shape %s is ambiguous: the tensor has no elements", text_of(shape, n));
    if (!fits)
        return pg_fail("shape %s is invalid for input of shape %s (%lld elements)", text_of(shape, n),
                       pg_text(x), (long long)numel);
    if (unknown >= 0) resolved[unknown] = numel / known;
    return PG_OK;
}

/* Strides that give x the new shape without a copy; false where there are none. */
static bool view_strides(int64_t *stride, const pg_tensor *t, const int64_t *shape, int n)
{
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

static int reshape_backward(pg_backward *b)
{
    pg_meta m = pg_input_meta(b, 0);
    b->input[0] = x_reshape(b->pool, b->grad[0], m.shape, m.ndim);
    return b->pool->status;
}
static const pg_rule view_rule = {.name = "view", .backward = reshape_backward};
static const pg_rule reshape_rule = {.name = "reshape", .backward = reshape_backward};
static const pg_rule squeeze_rule = {.name = "squeeze", .backward = reshape_backward};
static const pg_rule unsqueeze_rule = {.name = "unsqueeze", .backward = reshape_backward};

static int as_view(pg_tensor *out, const pg_tensor *x, int n, const int64_t *shape, const int64_t *stride,
                   const pg_rule *rule)
{
    return pg_view_of(out, x, n, shape, stride, x->impl->offset, PG_VIEW_PLAIN, rule, NULL, 0);
}

int op_view(pg_tensor *out, const pg_tensor *input, const int64_t *shape, int shape_n)
{
    int64_t resolved[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    int status = resolve_shape(resolved, input, shape, shape_n);
    if (status < 0) return status;
    if (!view_strides(stride, input, resolved, shape_n))
        return pg_fail("the tensor's strides do not allow the view: input of shape %s has strides %s, wanted "
                       "shape %s; use reshape", pg_text(input),
                       text_of(input->impl->stride, input->impl->ndim), text_of(resolved, shape_n));
    return as_view(out, input, shape_n, resolved, stride, &view_rule);
}

int op_reshape(pg_tensor *out, const pg_tensor *input, const int64_t *shape, int shape_n)
{
    int64_t resolved[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    int status = resolve_shape(resolved, input, shape, shape_n);
    if (status < 0) return status;
    if (view_strides(stride, input, resolved, shape_n))
        return as_view(out, input, shape_n, resolved, stride, &view_rule);
    pg_tensor dense = PG_HANDLE;
    status = pg_dense(&dense, input);
    if (status >= 0) {
        pg_dense_strides(stride, resolved, shape_n);
        status = pg_alias(out, &dense, shape_n, resolved, stride, 0);
    }
    pg_tensor_release(&dense);
    return status < 0 ? status : pg_record1(&reshape_rule, out, NULL, 0, input);
}

int op_view_dtype(pg_tensor *out, const pg_tensor *input, int dtype)
{
    const pg_impl *x = input->impl;
    int64_t from = pg_size_of(x->dtype), to = pg_size_of(dtype), shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    memcpy(shape, x->shape, sizeof *shape * x->ndim);
    memcpy(stride, x->stride, sizeof *stride * x->ndim);
    int64_t offset = x->offset;
    int last = x->ndim - 1;
    if (pg_requires(input) && pg_grad_enabled())
        return pg_fail("the bits of a tensor that requires gradients cannot be viewed as %s: detach it first",
                       pg_dtype_name(dtype));
    if (from != to) {
        if (last < 0)
            return pg_fail("a tensor of no dimensions cannot be viewed as %s, whose size is another",
                           pg_dtype_name(dtype));
        bool dense = stride[last] == 1, fits = from > to || shape[last] * from % to == 0;
        for (int i = 0; i < last && from < to; i++) fits = fits && stride[i] * from % to == 0;
        if (!dense || !fits || (from < to && offset * from % to != 0))
            return pg_fail("input of shape %s with strides %s and offset %lld cannot be viewed as %s: the "
                           "last dimension must be dense and everything a multiple of %lld bytes",
                           pg_text(input), text_of(stride, x->ndim), (long long)offset,
                               pg_dtype_name(dtype), (long long)to);
        shape[last] = shape[last] * from / to;
        for (int i = 0; i < last; i++) stride[i] = stride[i] * from / to;
        offset = offset * from / to;
    }
    int status = pg_view_of(out, input, x->ndim, shape, stride, offset, PG_VIEW_PLAIN, NULL, NULL, 0);
    if (status >= 0) out->impl->dtype = (uint8_t)dtype;
    return status;
}

int op_alias_view(pg_tensor *out, const pg_tensor *input)
{
    return as_view(out, input, input->impl->ndim, input->impl->shape, input->impl->stride, &view_rule);
}

int op_flatten(pg_tensor *out, const pg_tensor *input, int64_t start_dim, int64_t end_dim)
{
    const pg_impl *x = input->impl;
    int first, last, n = 0;
    int64_t shape[PG_DIMS_MAX];
    int status = pg_wrap_dim(&first, start_dim, x->ndim);
    if (status >= 0) status = pg_wrap_dim(&last, end_dim, x->ndim);
    if (status < 0) return status;
    if (first > last)
        return pg_fail("start_dim %lld comes after end_dim %lld", (long long)start_dim, (long long)end_dim);
    for (int i = 0; i < first; i++) shape[n++] = x->shape[i];
    shape[n++] = pg_product(x->shape + first, x->ndim ? last - first + 1 : 0);
    for (int i = last + 1; i < x->ndim; i++) shape[n++] = x->shape[i];
    if (x->ndim == n) {
        pg_share(out, input);
        return PG_OK;
    }
    return op_reshape(out, input, shape, n);
}

int op_unflatten(pg_tensor *out, const pg_tensor *input, int64_t dim, const int64_t *sizes, int sizes_n)
{
    const pg_impl *x = input->impl;
    int d, status = pg_wrap_dim(&d, dim, x->ndim);
    if (status < 0) return status;
    if (x->ndim == 0) return pg_fail("expected a tensor with dimensions, got one of shape []");
    int n = x->ndim - 1 + sizes_n, unknown = -1;
    if (sizes_n < 1) return pg_fail("sizes must not be empty");
    if (n > PG_DIMS_MAX) return too_many(n);
    int64_t shape[PG_DIMS_MAX], resolved[PG_DIMS_MAX], known = 1;
    for (int i = 0; i < sizes_n; i++) {
        resolved[i] = sizes[i];
        if (sizes[i] == -1 && unknown < 0) unknown = i;
        else if (sizes[i] < 0 || __builtin_mul_overflow(known, sizes[i], &known))
            return pg_fail("invalid sizes %s", text_of(sizes, sizes_n));
    }
    bool fits = unknown < 0 ? known == x->shape[d] : known > 0 && x->shape[d] % known == 0;
    if (!fits)
        return pg_fail("sizes %s don't multiply up to the size of dim %d (%lld) of the input",
                       text_of(sizes, sizes_n), d, (long long)x->shape[d]);
    if (unknown >= 0) resolved[unknown] = x->shape[d] / known;
    int k = 0;
    for (int i = 0; i < d; i++) shape[k++] = x->shape[i];
    for (int i = 0; i < sizes_n; i++) shape[k++] = resolved[i];
    for (int i = d + 1; i < x->ndim; i++) shape[k++] = x->shape[i];
    return op_view(out, input, shape, n);
}

int op_squeeze(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n)
{
    const pg_impl *x = input->impl;
    uint32_t mask;
    int status = pg_dim_mask(&mask, dim, dim_n, x->ndim, false);
    if (status < 0) return status;
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    int n = 0;
    for (int i = 0; i < x->ndim; i++) {
        if (x->shape[i] == 1 && mask >> i & 1) continue;
        shape[n] = x->shape[i];
        stride[n++] = x->stride[i];
    }
    return as_view(out, input, n, shape, stride, &squeeze_rule);
}

int op_unsqueeze(pg_tensor *out, const pg_tensor *input, int64_t dim)
{
    const pg_impl *x = input->impl;
    if (x->ndim == PG_DIMS_MAX) return too_many(PG_DIMS_MAX + 1);
    int d, status = pg_wrap_dim(&d, dim, x->ndim + 1);
    if (status < 0) return status;
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    for (int i = 0; i < x->ndim; i++) {
        shape[i < d ? i : i + 1] = x->shape[i];
        stride[i < d ? i : i + 1] = x->stride[i];
    }
    shape[d] = 1;
    stride[d] = d < x->ndim ? x->shape[d] * x->stride[d] : 1;
    return as_view(out, input, x->ndim + 1, shape, stride, &unsqueeze_rule);
}

/* ---- the dimensions in another order ---- */

typedef struct order { int64_t dims[PG_DIMS_MAX]; } order;

static int permute_backward(pg_backward *b)
{
    const order *o = b->args;
    order inverse;
    int n = pg_input_meta(b, 0).ndim;
    for (int i = 0; i < n; i++) inverse.dims[o->dims[i]] = i;
    b->input[0] = x_permute(b->pool, b->grad[0], inverse.dims, n);
    return b->pool->status;
}
static const pg_rule permute_rule = {.name = "permute", .backward = permute_backward};
static const pg_rule transpose_rule = {.name = "transpose", .backward = permute_backward};

static int reordered(pg_tensor *out, const pg_tensor *input, const order *o, const pg_rule *rule)
{
    const pg_impl *x = input->impl;
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    for (int i = 0; i < x->ndim; i++) {
        shape[i] = x->shape[o->dims[i]];
        stride[i] = x->stride[o->dims[i]];
    }
    return pg_view_of(out, input, x->ndim, shape, stride, x->offset, PG_VIEW_PLAIN, rule, o, sizeof *o);
}

int op_permute(pg_tensor *out, const pg_tensor *input, const int64_t *dims, int dims_n)
{
    const pg_impl *x = input->impl;
    if (dims_n != x->ndim)
        return pg_fail("the number of dims (%d) must be the number of dimensions of the input (%d): dims %s, "
                       "input %s", dims_n, x->ndim, text_of(dims, dims_n < 8 ? dims_n : 8), pg_text(input));
    order o = {{0}};
    uint32_t seen = 0;
    for (int i = 0; i < dims_n; i++) {
        int d, status = pg_wrap_dim(&d, dims[i], x->ndim);
        if (status < 0) return status;
        if (seen >> d & 1)
            return pg_fail("dim %d appears more than once in dims %s", d, text_of(dims, dims_n));
        seen |= UINT32_C(1) << d;
        o.dims[i] = d;
    }
    return reordered(out, input, &o, &permute_rule);
}

int op_transpose(pg_tensor *out, const pg_tensor *input, int64_t dim0, int64_t dim1)
{
    int a, b, n = input->impl->ndim;
    int status = pg_wrap_dim(&a, dim0, n);
    if (status >= 0) status = pg_wrap_dim(&b, dim1, n);
    if (status < 0) return status;
    order o = {{0}};
    for (int i = 0; i < n; i++) o.dims[i] = i == a ? b : i == b ? a : i;
    return reordered(out, input, &o, &transpose_rule);
}

int op_t(pg_tensor *out, const pg_tensor *input)
{
    int n = input->impl->ndim;
    if (n > 2) return pg_fail("expected a tensor with at most 2 dimensions, got shape %s", pg_text(input));
    order o = {{n == 2 ? 1 : 0, 0}};
    return reordered(out, input, &o, &transpose_rule);
}

int op_movedim(pg_tensor *out, const pg_tensor *input, const int64_t *source, int source_n,
               const int64_t *destination, int destination_n)
{
    int n = input->impl->ndim;
    if (source_n != destination_n)
        return pg_fail("source and destination must be of one length, got %d and %d dims", source_n,
                       destination_n);
    order o;
    uint32_t taken = 0, placed = 0;
    for (int i = 0; i < n; i++) o.dims[i] = -1;
    for (int i = 0; i < source_n; i++) {
        int from, to, status = pg_wrap_dim(&from, source[i], n);
        if (status >= 0) status = pg_wrap_dim(&to, destination[i], n);
        if (status < 0) return status;
        if (taken >> from & 1 || placed >> to & 1)
            return pg_fail("dims appear more than once: source %s, destination %s", text_of(source, source_n),
                           text_of(destination, destination_n));
        taken |= UINT32_C(1) << from;
        placed |= UINT32_C(1) << to;
        if (n > 0) o.dims[to] = from;
    }
    for (int i = 0, from = 0; i < n; i++) {
        if (o.dims[i] >= 0) continue;
        while (taken >> from & 1) from++;
        o.dims[i] = from++;
    }
    return reordered(out, input, &o, &permute_rule);
}

/* ---- expand ---- */

/* The tape sums the gradient down to the input's shape. */
static int expand_backward(pg_backward *b)
{
    b->input[0] = b->grad[0];
    return PG_OK;
}
static const pg_rule expand_rule = {.name = "expand", .backward = expand_backward};

int op_expand(pg_tensor *out, const pg_tensor *input, const int64_t *sizes, int sizes_n)
{
    const pg_impl *x = input->impl;
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    int extra = sizes_n - x->ndim;
    if (sizes_n > PG_DIMS_MAX) return too_many(sizes_n);
    if (extra < 0)
        return pg_fail("the number of sizes provided (%d) must be at least the number of dimensions of the "
                       "tensor (%d)", sizes_n, x->ndim);
    for (int i = 0; i < sizes_n; i++) {
        int64_t have = i < extra ? 1 : x->shape[i - extra];
        if (sizes[i] < -1) return pg_fail("invalid size %lld at dimension %d", (long long)sizes[i], i);
        if (sizes[i] == -1 && i < extra)
            return pg_fail("the size -1 is not allowed in a leading, non-existing dimension %d", i);
        shape[i] = sizes[i] == -1 ? have : sizes[i];
        stride[i] = i < extra ? 0 : x->stride[i - extra];
        if (shape[i] == have) continue;
        if (have != 1)
            return pg_fail("the expanded size (%lld) must match the existing size (%lld) at dimension %d: %s "
                           "to %s", (long long)shape[i], (long long)have, i, pg_text(input),
                           text_of(sizes, sizes_n));
        stride[i] = 0;
    }
    if (pg_product(shape, sizes_n) < 0)
        return pg_fail("shape %s has more elements than can be counted", text_of(shape, sizes_n));
    return as_view(out, input, sizes_n, shape, stride, &expand_rule);
}

/* ---- a part of one dimension ---- */

typedef struct part { int dim; int64_t start, step; } part;

/* out = zeros of shape with g at positions start, start + step, ... of dim. */
static int part_put(pg_tensor *out, const pg_tensor *g, int ndim, const int64_t *shape, const part *p);

static int part_put_backward(pg_backward *b)
{
    const part *p = b->args;
    int64_t n = pg_input_meta(b, 0).shape[p->dim], stop = n > 0 ? p->start + (n - 1) * p->step + 1 : p->start;
    b->input[0] = x_slice(b->pool, b->grad[0], p->dim, &p->start, &stop, p->step);
    return b->pool->status;
}
static const pg_rule part_put_rule = {.name = "slice_scatter", .backward = part_put_backward};

static int part_put(pg_tensor *out, const pg_tensor *g, int ndim, const int64_t *shape, const part *p)
{
    int64_t stride[PG_DIMS_MAX];
    pg_tensor place = PG_HANDLE;
    int status = pg_new(out, pg_device_of(g), pg_dtype_of(g), ndim, shape);
    if (status >= 0) status = pg_fill_value(out, (pg_value){0, 0});
    if (status >= 0 && g->impl->numel > 0) {
        memcpy(stride, out->impl->stride, sizeof *stride * (size_t)ndim);
        int64_t offset = p->start * stride[p->dim];
        stride[p->dim] *= p->step;
        status = pg_alias(&place, out, ndim, g->impl->shape, stride, offset);
        if (status >= 0) status = pg_copy_into(&place, g);
    }
    pg_tensor_release(&place);
    if (status < 0) {
        pg_tensor_release(out);
        return status;
    }
    return pg_record1(&part_put_rule, out, p, sizeof *p, g);
}

static const pg_tensor *x_part_put(pg_backward *b, const pg_tensor *g)
{
    pg_meta m = pg_input_meta(b, 0);
    pg_tensor *out = pg_pool_new(b->pool);
    if (b->pool->status >= 0) pg_pool_note(b->pool, part_put(out, g, m.ndim, m.shape, b->args));
    return out;
}

static int slice_backward(pg_backward *b)
{
    b->input[0] = x_part_put(b, b->grad[0]);
    return b->pool->status;
}
static const pg_rule slice_rule = {.name = "slice", .backward = slice_backward};

static int select_backward(pg_backward *b)
{
    const part *p = b->args;
    const pg_tensor *g = x_unsqueeze(b->pool, b->grad[0], p->dim);
    if (b->pool->status >= 0) b->input[0] = x_part_put(b, g);
    return b->pool->status;
}
static const pg_rule select_rule = {.name = "select", .backward = select_backward};

static int part_of(pg_tensor *out, const pg_tensor *input, const part *p, int64_t n, int kind,
                   const pg_rule *rule)
{
    const pg_impl *x = input->impl;
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    memcpy(shape, x->shape, sizeof *shape * x->ndim);
    memcpy(stride, x->stride, sizeof *stride * x->ndim);
    int64_t offset = x->offset + (n > 0 ? p->start * stride[p->dim] : 0);
    shape[p->dim] = n;
    stride[p->dim] *= p->step;
    return pg_view_of(out, input, x->ndim, shape, stride, offset, kind, rule, p, rule ? sizeof *p : 0);
}

static int64_t clamp_bound(int64_t v, int64_t size)
{
    if (v < 0) v += size;
    return v < 0 ? 0 : v > size ? size : v;
}

int op_slice(pg_tensor *out, const pg_tensor *input, int64_t dim, const int64_t *start, const int64_t *stop,
             int64_t step)
{
    const pg_impl *x = input->impl;
    if (x->ndim == 0) return pg_fail_status(PG_ERROR_INDEX, "a tensor of no dimensions cannot be sliced");
    int d, status = pg_wrap_dim(&d, dim, x->ndim);
    if (status < 0) return status;
    if (step < 1) return pg_fail("the step of a slice must be positive, got %lld", (long long)step);
    int64_t size = x->shape[d], from = start ? clamp_bound(*start, size) : 0, to = stop
        ? clamp_bound(*stop, size) : size;
    int64_t n = to > from ? (to - from - 1) / step + 1 : 0;
    /* a stride that only one position has may be too large to count */
    int64_t stride;
    part p = {d, from, n > 1 || !__builtin_mul_overflow(step, x->stride[d] ? x->stride[d] : 1, &stride) ? step
        : 1};
    return part_of(out, input, &p, n, PG_VIEW_PLAIN, &slice_rule);
}

int op_narrow(pg_tensor *out, const pg_tensor *input, int64_t dim, int64_t start, int64_t length)
{
    const pg_impl *x = input->impl;
    if (x->ndim == 0) return pg_fail("a tensor of no dimensions cannot be narrowed");
    int d, status = pg_wrap_dim(&d, dim, x->ndim);
    if (status < 0) return status;
    int64_t size = x->shape[d];
    if (length < 0) return pg_fail("length must not be negative, got %lld", (long long)length);
    if (start < -size || start > size)
        return pg_fail_status(PG_ERROR_INDEX, "start out of range (expected to be in range of [%lld, %lld], "
                                              "but got %lld)", (long long)-size, (long long)size,
                                              (long long)start);
    if (start < 0) start += size;
    if (length > size - start)
        return pg_fail_status(PG_ERROR_INDEX, "start (%lld) + length (%lld) exceeds the size (%lld) of "
                                              "dimension %d", (long long)start, (long long)length,
                                              (long long)size, d);
    part p = {d, start, 1};
    return part_of(out, input, &p, length, PG_VIEW_PLAIN, &slice_rule);
}

/* The view that leaves dimension d out, at position i of it. */
static int selected(pg_tensor *out, const pg_tensor *input, int d, int64_t i, int kind, const pg_rule *rule)
{
    const pg_impl *x = input->impl;
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    for (int k = 0, n = 0; k < x->ndim; k++) {
        if (k == d) continue;
        shape[n] = x->shape[k];
        stride[n++] = x->stride[k];
    }
    part p = {d, i, 1};
    return pg_view_of(out, input, x->ndim - 1, shape, stride, x->offset + i * x->stride[d], kind, rule, &p,
                      rule ? sizeof p : 0);
}

int op_select(pg_tensor *out, const pg_tensor *input, int64_t dim, int64_t index)
{
    const pg_impl *x = input->impl;
    if (x->ndim == 0)
        return pg_fail_status(PG_ERROR_INDEX, "a tensor of no dimensions has nothing to select from");
    int d, status = pg_wrap_dim(&d, dim, x->ndim);
    if (status < 0) return status;
    int64_t size = x->shape[d];
    if (index < -size || index >= size)
        return pg_fail_status(PG_ERROR_INDEX, "index %lld is out of bounds for dimension %d with size %lld",
                              (long long)index, d, (long long)size);
    return selected(out, input, d, index < 0 ? index + size : index, PG_VIEW_PLAIN, &select_rule);
}

/* ---- several views of one tensor: one node, whose gradient joins those of the parts ---- */

typedef struct joint { int dim; bool stacked; } joint;

static int parts_backward(pg_backward *b)
{
    const joint *j = b->args;
    int n = b->n_outputs;
    const pg_tensor **grads = pg_malloc((size_t)n * sizeof *grads);
    if (!grads) return pg_out_of_memory((size_t)n * sizeof *grads);
    int status = PG_OK;
    for (int i = 0; i < n && status >= 0; i++) {
        grads[i] = b->grads[i];
        if (grads[i]) continue;
        pg_meta m = pg_output_meta(b, i);
        pg_tensor *zero = pg_pool_new(b->pool);
        grads[i] = zero;
        status = b->pool->status;
        if (status >= 0) status = pg_new(zero, m.device, m.dtype, m.ndim, m.shape);
        if (status >= 0) status = pg_fill_value(zero, (pg_value){0, 0});
    }
    if (status >= 0) b->input[0] = j->stacked ? x_stack(b->pool, grads, n, j->dim)
        : x_cat(b->pool, grads, n, j->dim);
    free(grads);
    return status < 0 ? status : b->pool->status;
}
static const pg_rule split_rule = {.name = "split", .backward = parts_backward, .undefined_grads = true};
static const pg_rule unbind_rule = {.name = "unbind", .backward = parts_backward, .undefined_grads = true};

/* Records the views in the list as the outputs of one op, or empties the list where that (or what came
 * before) failed. */
static int parts_done(pg_tensor_list *list, const pg_tensor *input, int status, const pg_rule *rule,
                      const joint *j)
{
    if (status >= 0 && list->n > 0 && pg_will_record(1, &input)) {
        pg_tensor **outputs = pg_malloc((size_t)list->n * sizeof *outputs);
        if (outputs) {
            for (int i = 0; i < list->n; i++) outputs[i] = &list->items[i];
            status = pg_record(rule, list->n, outputs, 1, &input, j, sizeof *j);
        } else {
            status = pg_out_of_memory((size_t)list->n * sizeof *outputs);
        }
        free(outputs);
    }
    if (status < 0) pg_tensor_list_release(list);
    return status;
}

/* n parts of dimension d: sizes[k], or `each` with what is left in the last. */
static int split_into(pg_tensor_list *list, const pg_tensor *input, int d, int64_t n, const int64_t *sizes,
                      int64_t each)
{
    if (n > INT32_MAX) return pg_fail("%lld parts are too many", (long long)n);
    int status = pg_list_make(list, (int)n);
    int64_t start = 0, size = input->impl->shape[d];
    for (int k = 0; k < n && status >= 0; k++) {
        int64_t length = sizes ? sizes[k] : each < size - start ? each : size - start;
        part p = {d, start, 1};
        status = part_of(&list->items[k], input, &p, length, PG_VIEW_MULTI, NULL);
        start += length;
    }
    return parts_done(list, input, status, &split_rule, &(joint){d, false});
}

int op_split(pg_tensor_list *out, const pg_tensor *input, int64_t split_size, int64_t dim)
{
    const pg_impl *x = input->impl;
    if (x->ndim == 0) return pg_fail("a tensor of no dimensions cannot be split");
    int d, status = pg_wrap_dim(&d, dim, x->ndim);
    if (status < 0) return status;
    int64_t size = x->shape[d];
    if (split_size < 0 || (split_size == 0 && size != 0))
        return pg_fail("split_size must be %s, got %lld",
                       split_size < 0 ? "non-negative" : "positive where there is anything to split",
                           (long long)split_size);
    return split_into(out, input, d, size == 0 ? 1 : (size - 1) / split_size + 1, NULL, split_size);
}

int op_split_sections(pg_tensor_list *out, const pg_tensor *input, const int64_t *sections, int sections_n,
                      int64_t dim)
{
    const pg_impl *x = input->impl;
    if (x->ndim == 0) return pg_fail("a tensor of no dimensions cannot be split");
    int d, status = pg_wrap_dim(&d, dim, x->ndim);
    if (status < 0) return status;
    int64_t size = x->shape[d], sum = 0;
    for (int i = 0; i < sections_n; i++)
        if (sections[i] < 0 || __builtin_add_overflow(sum, sections[i], &sum))
            return pg_fail("sections must be non-negative, got %lld at %d", (long long)sections[i], i);
    if (sum != size)
        return pg_fail("sections %s must sum to the size %lld of dimension %d, they sum to %lld",
                       text_of(sections, sections_n < 8 ? sections_n : 8), (long long)size, d,
                           (long long)sum);
    return split_into(out, input, d, sections_n, sections, 0);
}

int op_chunk(pg_tensor_list *out, const pg_tensor *input, int64_t chunks, int64_t dim)
{
    const pg_impl *x = input->impl;
    if (x->ndim == 0) return pg_fail("a tensor of no dimensions cannot be cut in chunks");
    int d, status = pg_wrap_dim(&d, dim, x->ndim);
    if (status < 0) return status;
    if (chunks < 1) return pg_fail("chunks must be positive, got %lld", (long long)chunks);
    int64_t size = x->shape[d], each = (size + chunks - 1) / chunks;
    return split_into(out, input, d, size == 0 ? chunks : (size - 1) / each + 1, NULL, each);
}

int op_unbind(pg_tensor_list *out, const pg_tensor *input, int64_t dim)
{
    const pg_impl *x = input->impl;
    if (x->ndim == 0) return pg_fail("a tensor of no dimensions cannot be unbound");
    int d, status = pg_wrap_dim(&d, dim, x->ndim);
    if (status < 0) return status;
    if (x->shape[d] > INT32_MAX) return pg_fail("%lld parts are too many", (long long)x->shape[d]);
    int n = (int)x->shape[d];
    status = pg_list_make(out, n);
    for (int i = 0; i < n && status >= 0; i++)
        status = selected(&out->items[i], input, d, i, PG_VIEW_MULTI, NULL);
    return parts_done(out, input, status, &unbind_rule, &(joint){d, true});
}

/* ---- diagonal ---- */

typedef struct diagonal { int dim1, dim2; int64_t offset; } diagonal;

/* Shape, strides and offset of the diagonal of a tensor with shape and stride. */
static int64_t diagonal_geometry(int64_t *to_shape, int64_t *to_stride, int ndim, const int64_t *shape,
                                 const int64_t *stride, const diagonal *g)
{
    int n = 0;
    for (int i = 0; i < ndim; i++) {
        if (i == g->dim1 || i == g->dim2) continue;
        to_shape[n] = shape[i];
        to_stride[n++] = stride[i];
    }
    int64_t rows = shape[g->dim1], columns = shape[g->dim2], length, start;
    if (g->offset >= 0) {
        length = columns > g->offset ? columns - g->offset : 0;
        if (length > rows) length = rows;
        start = g->offset * stride[g->dim2];
    } else {
        length = rows > -g->offset ? rows + g->offset : 0;
        if (length > columns) length = columns;
        start = -g->offset * stride[g->dim1];
    }
    to_shape[n] = length;
    to_stride[n] = stride[g->dim1] + stride[g->dim2];
    return length > 0 ? start : 0;
}

static int diagonal_put(pg_tensor *out, const pg_tensor *g, int ndim, const int64_t *shape,
                        const diagonal *d);

static int diagonal_put_backward(pg_backward *b)
{
    const diagonal *d = b->args;
    b->input[0] = x_diagonal(b->pool, b->grad[0], d->offset, d->dim1, d->dim2);
    return b->pool->status;
}
static const pg_rule diagonal_put_rule = {.name = "diagonal_scatter", .backward = diagonal_put_backward};

static int diagonal_put(pg_tensor *out, const pg_tensor *g, int ndim, const int64_t *shape, const diagonal *d)
{
    int64_t part_shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    pg_tensor place = PG_HANDLE;
    int status = pg_new(out, pg_device_of(g), pg_dtype_of(g), ndim, shape);
    if (status >= 0) status = pg_fill_value(out, (pg_value){0, 0});
    if (status >= 0) {
        int64_t offset = diagonal_geometry(part_shape, stride, ndim, shape, out->impl->stride, d);
        status = pg_alias(&place, out, ndim - 1, part_shape, stride, offset);
    }
    if (status >= 0) status = pg_copy_into(&place, g);
    pg_tensor_release(&place);
    if (status < 0) {
        pg_tensor_release(out);
        return status;
    }
    return pg_record1(&diagonal_put_rule, out, d, sizeof *d, g);
}

static int diagonal_backward(pg_backward *b)
{
    pg_meta m = pg_input_meta(b, 0);
    pg_tensor *out = pg_pool_new(b->pool);
    if (b->pool->status >= 0) pg_pool_note(b->pool, diagonal_put(out, b->grad[0], m.ndim, m.shape, b->args));
    b->input[0] = out;
    return b->pool->status;
}
static const pg_rule diagonal_rule = {.name = "diagonal", .backward = diagonal_backward};

int op_diagonal(pg_tensor *out, const pg_tensor *input, int64_t offset, int64_t dim1, int64_t dim2)
{
    const pg_impl *x = input->impl;
    diagonal d = {.offset = offset};
    int status = pg_wrap_dim(&d.dim1, dim1, x->ndim);
    if (status >= 0) status = pg_wrap_dim(&d.dim2, dim2, x->ndim);
    if (status < 0) return status;
    if (x->ndim < 2 || d.dim1 == d.dim2)
        return pg_fail("dim1 and dim2 must be two dimensions, got %lld and %lld of input %s", (long long)dim1,
                       (long long)dim2, pg_text(input));
    if (offset > INT64_MAX / 2 || offset < -(INT64_MAX / 2))
        return pg_fail("offset %lld is out of range", (long long)offset);
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    int64_t start = diagonal_geometry(shape, stride, x->ndim, x->shape, x->stride, &d);
    return pg_view_of(out, input, x->ndim - 1, shape, stride, x->offset + start, PG_VIEW_PLAIN,
                      &diagonal_rule, &d, sizeof d);
}

/* ---- as_strided ---- */

int op_as_strided(pg_tensor *out, const pg_tensor *input, const int64_t *size, int size_n,
                  const int64_t *stride, int stride_n, const int64_t *storage_offset)
{
    const pg_impl *x = input->impl;
    if (size_n != stride_n)
        return pg_fail("size and stride must be of one length, got %s and %s",
                       text_of(size, size_n < 8 ? size_n : 8), text_of(stride, stride_n < 8 ? stride_n : 8));
    if (size_n > PG_DIMS_MAX) return too_many(size_n);
    int64_t offset = storage_offset ? *storage_offset : x->offset, last = offset;
    int64_t room = (int64_t)(x->storage->bytes / (size_t)pg_size_of(x->dtype));
    if (offset < 0) return pg_fail("storage_offset must not be negative, got %lld", (long long)offset);
    if (pg_product(size, size_n) < 0) return pg_fail("invalid size %s", text_of(size, size_n));
    bool none = pg_product(size, size_n) == 0;
    for (int i = 0; i < size_n; i++) {
        int64_t step;
        if (stride[i] < 0)
            return pg_fail("negative strides are not supported, got %s", text_of(stride, stride_n));
        if (none) continue;
        if (__builtin_mul_overflow(size[i] - 1, stride[i], &step) ||
            __builtin_add_overflow(last, step, &last)) last = INT64_MAX;
    }
    if (none ? offset > room : last >= room)
        return pg_fail("size %s with stride %s and offset %lld reaches past the end of the storage of %lld "
                       "elements", text_of(size, size_n), text_of(stride, stride_n), (long long)offset,
                       (long long)room);
    if (pg_will_record(1, &input))
        for (int i = 0; i < x->ndim; i++)
            if (x->stride[i] == 0 && x->shape[i] > 1)
                return pg_fail("as_strided has no gradient for an expanded input of shape %s: clone it first",
                               pg_text(input));
    return pg_region_view(out, input, size_n, size, stride, offset);
}

/* ---- copies and conversions ---- */

static int pass_backward(pg_backward *b)
{
    b->input[0] = b->grad[0];
    return PG_OK;
}
static const pg_rule clone_rule = {.name = "clone", .backward = pass_backward};

int op_clone(pg_tensor *out, const pg_tensor *input)
{
    int status = pg_new_like(out, input, pg_dtype_of(input));
    if (status >= 0) status = pg_copy_into(out, input);
    if (status < 0) {
        pg_tensor_release(out);
        return status;
    }
    return pg_record1(&clone_rule, out, NULL, 0, input);
}

int op_contiguous(pg_tensor *out, const pg_tensor *input)
{
    if (!input->impl->contiguous) return op_clone(out, input);
    pg_share(out, input);
    return PG_OK;
}

static int to_backward(pg_backward *b)
{
    pg_meta m = pg_input_meta(b, 0);
    b->input[0] = x__to(b->pool, b->grad[0], m.dtype, m.device->name, false, false);
    return b->pool->status;
}
static const pg_rule to_rule = {.name = "to_copy", .backward = to_backward};

int op__to(pg_tensor *out, const pg_tensor *input, int dtype, const char *device, bool copy, bool non_blocking)
{
    const pg_device *d = pg_device_of(input);
    int status = device ? pg_device_find(&d, device) : PG_OK;
    if (status < 0) return status;
    if (dtype < 0) dtype = pg_dtype_of(input);
    if (!copy && d == pg_device_of(input) && dtype == pg_dtype_of(input)) {
        pg_share(out, input);
        return PG_OK;
    }
    pg_allocator *from = pg_pool_of(d);
    if (non_blocking && d->host && !pg_device_of(input)->host && !(from = pg_pinned_pool())) return PG_ERROR;
    status = pg_new_from(out, d, from, dtype, input->impl->ndim, input->impl->shape);
    if (status >= 0) status = non_blocking ? pg_copy_into_later(out, input) : pg_copy_into(out, input);
    if (status < 0) {
        pg_tensor_release(out);
        return status;
    }
    return pg_record1(&to_rule, out, NULL, 0, input);
}

/* ---- writing into a tensor ---- */

/* Nothing of what was there before matters: its gradient is zero (not absent, as in PyTorch). A source's
 * gradient is the tensor's, summed and converted by the tape. */
static int overwrite_backward(pg_backward *b)
{
    if (b->needs[0]) {
        pg_meta m = pg_input_meta(b, 0);
        pg_tensor *zero = pg_pool_new(b->pool);
        if (b->pool->status >= 0) pg_pool_note(b->pool, pg_new(zero, m.device, m.dtype, m.ndim, m.shape));
        if (b->pool->status >= 0) pg_pool_note(b->pool, pg_fill_value(zero, (pg_value){0, 0}));
        b->input[0] = zero;
    }
    if (b->n_inputs > 1 && b->needs[1]) {
        pg_meta m = pg_input_meta(b, 1);
        b->input[1] = x__to(b->pool, b->grad[0], -1, m.device->name, false, false);
    }
    return b->pool->status;
}
static const pg_rule copy_rule = {.name = "copy", .backward = overwrite_backward};
static const pg_rule fill_rule = {.name = "fill", .backward = overwrite_backward};
static const pg_rule zero_rule = {.name = "zero", .backward = overwrite_backward};

int op_copy_(pg_tensor *input, const pg_tensor *src, bool non_blocking)
{
    int64_t shape[PG_DIMS_MAX];
    int ndim = input->impl->ndim;
    memcpy(shape, input->impl->shape, sizeof *shape * (size_t)ndim);
    bool fits = src->impl->ndim <= ndim;
    for (int i = 1; fits && i <= src->impl->ndim; i++) {
        int64_t have = src->impl->shape[src->impl->ndim - i];
        fits = have == 1 || have == shape[ndim - i];
    }
    if (!fits)
        return pg_fail("a source of shape %s does not broadcast to shape %s", pg_text(src), pg_text(input));
    if (input->impl == src->impl) return PG_OK;
    pg_tensor twin = PG_HANDLE;
    int status = pg_inplace_open(&twin, input, &copy_rule, NULL, 0, 2, (const pg_tensor *[]){input, src});
    if (status < 0) return status;
    return pg_inplace_close(&twin, input, non_blocking ? pg_copy_into_later(input, src) : pg_copy_into(input, src));
}

/* A float for an integer tensor loses its fraction, as PyTorch's fill_ does; one that it cannot hold at all
 * is an error. */
static int check_fill(const pg_tensor *t, const pg_number *n)
{
    int dtype = pg_dtype_of(t);
    if (dtype == PG_BOOL || pg_is_float(dtype)) return PG_OK;
    static const double least[] = {0, 0, -0x1p7, -0x1p15, -0x1p31, -0x1p63}, most[] =
        {1, 0x1p8, 0x1p7, 0x1p15, 0x1p31, 0x1p63};
    double v = n->kind == PG_NUMBER_FLOAT ? n->d : (double)n->i;
    bool holds = n->kind != PG_NUMBER_FLOAT && dtype == PG_INT64;
    if (!holds && !(v > least[dtype] - 1 && v < most[dtype]))
        return pg_fail("the value %.17g cannot be held by %s", v, pg_dtype_name(dtype));
    return PG_OK;
}

int op_fill_(pg_tensor *input, const pg_tensor *value, const pg_number *value_number)
{
    if (value && value->impl->ndim != 0)
        return pg_fail("expected a number or a tensor of no dimensions, got one of shape %s", pg_text(value));
    int status = value ? PG_OK : check_fill(input, value_number);
    if (status < 0) return status;
    pg_tensor twin = PG_HANDLE;
    status = pg_inplace_open(&twin, input, &fill_rule, NULL, 0, value ? 2 : 1,
                             (const pg_tensor *[]){input, value});
    if (status < 0) return status;
    status = value ? pg_copy_into(input, value) : pg_fill_value(input,
                                                                pg_value_of(value_number,
                                                                            pg_dtype_of(input)));
    return pg_inplace_close(&twin, input, status);
}

int op_zero_(pg_tensor *input)
{
    pg_tensor twin = PG_HANDLE;
    int status = pg_inplace_open(&twin, input, &zero_rule, NULL, 0, 1, (const pg_tensor *[]){input});
    if (status < 0) return status;
    return pg_inplace_close(&twin, input, pg_fill_value(input, (pg_value){0, 0}));
}
