/* rearrange.c: elements joined, repeated and reordered. */
#include "ops.h"

#include <stdlib.h>
#include <string.h>

#define text_of(shape, n) pg_shape_text((char[PG_TEXT]){0}, shape, n)

/* ---- cat, stack ---- */

typedef struct join { int dim; } join;

/* What old code calls an empty tensor: it joins with anything. */
static bool skipped(const pg_impl *x) { return x->ndim == 1 && x->shape[0] == 0; }

static int cat_backward(pg_backward *b)
{
    const join *j = b->args;
    int64_t start = 0;
    for (int i = 0; i < b->n_inputs && b->pool->status >= 0; i++) {
        pg_meta m = pg_input_meta(b, i);
        if (m.ndim == 1 && m.shape[0] == 0) continue;
        int64_t length = m.shape[j->dim];
        if (b->needs[i]) b->input[i] = x_narrow(b->pool, b->grad[0], j->dim, start, length);
        start += length;
    }
    return b->pool->status;
}
static const pg_rule cat_rule = {.name = "cat", .backward = cat_backward};

static int cat_shape(int64_t *shape, int *first, int *dim, int *dtype, const pg_tensor *const *t, int n,
                     int64_t at)
{
    pg_result_type r = PG_RESULT;
    *first = -1;
    for (int i = 0; i < n; i++) {
        const pg_impl *x = t[i]->impl;
        pg_result_add(&r, t[i]);
        if (x->ndim == 0) return pg_fail("tensor %d has no dimensions and cannot be concatenated", i);
        if (*first < 0 && !skipped(x)) *first = i;
    }
    *dtype = pg_result(&r);
    const pg_impl *like = t[*first < 0 ? 0 : *first]->impl;
    int status = pg_wrap_dim(dim, at, like->ndim);
    if (status < 0) return status;
    memcpy(shape, like->shape, sizeof *shape * like->ndim);
    shape[*dim] = 0;
    for (int i = 0; i < n; i++) {
        const pg_impl *x = t[i]->impl;
        if (skipped(x)) continue;
        if (x->ndim != like->ndim)
            return pg_fail("tensors must have the same number of dimensions: %s at entry %d and %s at entry "
                           "%d", pg_text(t[*first]), *first, pg_text(t[i]), i);
        for (int k = 0; k < x->ndim; k++)
            if (k != *dim && x->shape[k] != like->shape[k])
                return pg_fail("sizes must match except in dimension %d: expected size %lld but got %lld in "
                               "dimension %d of tensor %d: %s and %s", *dim, (long long)like->shape[k],
                               (long long)x->shape[k], k, i, pg_text(t[*first]), pg_text(t[i]));
        if (__builtin_add_overflow(shape[*dim], x->shape[*dim], &shape[*dim]))
            return pg_fail("the sizes add up to more than can be counted");
    }
    return PG_OK;
}

int op_cat(pg_tensor *out, const pg_tensor *const *tensors, int tensors_n, int64_t dim)
{
    int64_t shape[PG_DIMS_MAX], start = 0;
    int first, dtype;
    join j = {0};
    if (tensors_n == 0) return pg_fail("expected a non-empty list of tensors");
    int status = cat_shape(shape, &first, &j.dim, &dtype, tensors, tensors_n, dim);
    if (status >= 0)
        status = pg_new(out, pg_device_of(tensors[0]), dtype, tensors[first < 0 ? 0 : first]->impl->ndim,
                        shape);
    if (status < 0) return status;
    for (int i = 0; i < tensors_n && status >= 0; i++) {
        const pg_impl *x = tensors[i]->impl;
        if (skipped(x)) continue;
        pg_tensor place = PG_HANDLE;
        status = pg_alias(&place, out, x->ndim, x->shape, out->impl->stride,
                          start * out->impl->stride[j.dim]);
        if (status >= 0) status = pg_copy_into(&place, tensors[i]);
        pg_tensor_release(&place);
        start += x->shape[j.dim];
    }
    if (status < 0) {
        pg_tensor_release(out);
        return status;
    }
    return pg_record(&cat_rule, 1, &out, tensors_n, tensors, &j, sizeof j);
}

/* Applies view k of each tensor, then joins them along dim. */
typedef const pg_tensor *(*each_fn)(pg_pool *pool, const pg_tensor *t, int64_t dim);

static int joined(pg_tensor *out, const pg_tensor *const *tensors, int n, each_fn each, int64_t each_dim,
                  int64_t dim)
{
    const pg_tensor **views = pg_malloc((size_t)(n > 0 ? n : 1) * sizeof *views);
    if (!views) return pg_out_of_memory((size_t)n * sizeof *views);
    pg_pool pool;
    pg_pool_begin(&pool);
    for (int i = 0; i < n && pool.status >= 0; i++) views[i] = each(&pool, tensors[i], each_dim);
    if (pool.status >= 0) pg_pool_note(&pool, op_cat(out, views, n, dim));
    free(views);
    return pg_pool_end(&pool);
}

static const pg_tensor *with_new_dim(pg_pool *pool, const pg_tensor *t, int64_t dim)
{
    return x_unsqueeze(pool, t, dim);
}

int op_stack(pg_tensor *out, const pg_tensor *const *tensors, int tensors_n, int64_t dim)
{
    if (tensors_n == 0) return pg_fail("expected a non-empty list of tensors");
    int d, status = pg_wrap_dim(&d, dim, tensors[0]->impl->ndim + 1);
    if (status < 0) return status;
    for (int i = 1; i < tensors_n; i++)
        if (!pg_same_shape(tensors[0], tensors[i]))
            return pg_fail("expected tensors of one shape, but got %s at entry 0 and %s at entry %d",
                           pg_text(tensors[0]), pg_text(tensors[i]), i);
    return joined(out, tensors, tensors_n, with_new_dim, d, d);
}

/* At least `dims` dimensions, as PyTorch's atleast_1d and atleast_2d. */
static const pg_tensor *at_least(pg_pool *pool, const pg_tensor *t, int64_t dims)
{
    int64_t shape[2] = {1, t->impl->ndim ? t->impl->shape[0] : 1};
    if (t->impl->ndim >= dims) return t;
    return x_reshape(pool, t, dims == 1 ? &shape[1] : shape, (int)dims);
}

int op_hstack(pg_tensor *out, const pg_tensor *const *tensors, int tensors_n)
{
    if (tensors_n == 0) return pg_fail("expected a non-empty list of tensors");
    return joined(out, tensors, tensors_n, at_least, 1, tensors[0]->impl->ndim > 1 ? 1 : 0);
}

int op_vstack(pg_tensor *out, const pg_tensor *const *tensors, int tensors_n)
{
    if (tensors_n == 0) return pg_fail("expected a non-empty list of tensors");
    return joined(out, tensors, tensors_n, at_least, 2, 0);
}

/* ---- triangles ---- */

typedef struct triangle { int64_t diagonal; bool upper; } triangle;

static int triangle_backward(pg_backward *b)
{
    const triangle *t = b->args;
    b->input[0] = t->upper ? x_triu(b->pool, b->grad[0], t->diagonal)
        : x_tril(b->pool, b->grad[0], t->diagonal);
    return b->pool->status;
}
static const pg_rule tril_rule = {.name = "tril", .backward = triangle_backward};
static const pg_rule triu_rule = {.name = "triu", .backward = triangle_backward};

static int triangle_of(pg_tensor *out, const pg_tensor *input, int64_t diagonal, bool upper)
{
    const pg_impl *x = input->impl;
    const pg_device *d = pg_device_of(input);
    if (x->ndim < 2)
        return pg_fail("expected a tensor with at least 2 dimensions, got shape %s", pg_text(input));
    pg_tensor dense = PG_HANDLE;
    int64_t rows = x->shape[x->ndim - 2], columns = x->shape[x->ndim - 1];
    /* beyond the corners nothing changes any more */
    if (diagonal > columns) diagonal = columns;
    if (diagonal < -rows) diagonal = -rows;
    int status = pg_dense(&dense, input);
    if (status >= 0) status = pg_new_like(out, input, x->dtype);
    if (status >= 0 && x->numel > 0)
        status = PG_RUN(d, triangle, pg_size_of(x->dtype), x->numel / (rows * columns), rows, columns,
                        diagonal, upper, pg_data(&dense), pg_data(out));
    pg_tensor_release(&dense);
    if (status < 0) {
        pg_tensor_release(out);
        return status;
    }
    triangle t = {diagonal, upper};
    return pg_record1(upper ? &triu_rule : &tril_rule, out, &t, sizeof t, input);
}

int op_tril(pg_tensor *out, const pg_tensor *input, int64_t diagonal)
{
    return triangle_of(out, input, diagonal, false);
}
int op_triu(pg_tensor *out, const pg_tensor *input, int64_t diagonal)
{
    return triangle_of(out, input, diagonal, true);
}

/* ---- repetition: views of more dimensions, flattened ---- */

/* (s0, s1, ...) as (1, s0, 1, s1, ...), expanded to (r0, s0, r1, s1, ...), flattened in pairs. Pairs that
 * nothing is repeated in stay one dimension. */
static int repeated(pg_tensor *out, const pg_tensor *input, const int64_t *repeats, int n)
{
    const pg_impl *x = input->impl;
    int extra = n - x->ndim, k = 0;
    int64_t apart[2 * PG_DIMS_MAX], wide[2 * PG_DIMS_MAX], flat[PG_DIMS_MAX];
    if (n > PG_DIMS_MAX) return pg_fail("at most %d dimensions are supported, got %d", PG_DIMS_MAX, n);
    for (int i = 0; i < n; i++) {
        int64_t size = i < extra ? 1 : x->shape[i - extra];
        if (repeats[i] < 0) return pg_fail("repeats must not be negative, got %s", text_of(repeats, n));
        if (__builtin_mul_overflow(size, repeats[i], &flat[i]))
            return pg_fail("repeats %s are too many", text_of(repeats, n));
        if (repeats[i] != 1 && size != 1) apart[k] = 1, wide[k++] = repeats[i];
        apart[k] = size;
        wide[k++] = size == 1 ? repeats[i] : size;
    }
    if (k > PG_DIMS_MAX)
        return pg_fail("repeats %s of shape %s need more than %d dimensions", text_of(repeats, n),
                       pg_text(input), PG_DIMS_MAX);
    pg_pool pool;
    pg_pool_begin(&pool);
    const pg_tensor *t = x_reshape(&pool, input, apart, k);
    if (pool.status >= 0) t = x_expand(&pool, t, wide, k);
    if (pool.status >= 0) t = x_reshape(&pool, t, flat, n);
    if (pool.status >= 0 && t->impl->storage == input->impl->storage) t = x_clone(&pool, t);
    return pg_pool_return(&pool, out, t);
}

int op_repeat(pg_tensor *out, const pg_tensor *input, const int64_t *repeats, int repeats_n)
{
    if (repeats_n < input->impl->ndim)
        return pg_fail("the number of repeats (%d) cannot be smaller than the number of dimensions of the "
                       "tensor (%d)", repeats_n, input->impl->ndim);
    return repeated(out, input, repeats, repeats_n);
}

int op_tile(pg_tensor *out, const pg_tensor *input, const int64_t *dims, int dims_n)
{
    int64_t repeats[PG_DIMS_MAX];
    int ndim = input->impl->ndim, n = dims_n > ndim ? dims_n : ndim;
    if (n > PG_DIMS_MAX) return pg_fail("at most %d dimensions are supported, got %d", PG_DIMS_MAX, n);
    for (int i = 0; i < n; i++) repeats[i] = i < n - dims_n ? 1 : dims[i - (n - dims_n)];
    return repeated(out, input, repeats, n);
}

int op_repeat_interleave(pg_tensor *out, const pg_tensor *input, int64_t repeats, const int64_t *dim)
{
    if (repeats < 0) return pg_fail("repeats must not be negative, got %lld", (long long)repeats);
    const pg_impl *x = input->impl;
    int64_t shape[PG_DIMS_MAX];
    int d = 0, ndim = x->ndim, status = dim ? pg_wrap_dim(&d, *dim, ndim) : PG_OK;
    if (status < 0) return status;
    if (!dim || ndim == 0) {
        ndim = 1;
        shape[0] = x->numel;
    } else {
        memcpy(shape, x->shape, sizeof *shape * (size_t)ndim);
    }
    /* (places, 1, inner) expanded to (places, repeats, inner) */
    int64_t places = pg_product(shape, d + 1), inner = pg_product(shape + d + 1, ndim - d - 1), all;
    if (__builtin_mul_overflow(shape[d], repeats, &shape[d]) ||
        __builtin_mul_overflow(x->numel, repeats, &all))
        return pg_fail("%lld repeats of shape %s are too many", (long long)repeats, pg_text(input));
    pg_pool pool;
    pg_pool_begin(&pool);
    const pg_tensor *t = x_reshape(&pool, input, (int64_t[]){places, 1, inner}, 3);
    if (pool.status >= 0) t = x_expand(&pool, t, (int64_t[]){places, repeats, inner}, 3);
    if (pool.status >= 0) t = x_reshape(&pool, t, shape, ndim);
    if (pool.status >= 0 && t->impl->storage == x->storage) t = x_clone(&pool, t);
    return pg_pool_return(&pool, out, t);
}

/* ---- flip, roll ---- */

typedef struct flipped { int64_t dims[PG_DIMS_MAX]; int n; } flipped;

static int flip_backward(pg_backward *b)
{
    const flipped *f = b->args;
    b->input[0] = x_flip(b->pool, b->grad[0], f->dims, f->n);
    return b->pool->status;
}
static const pg_rule flip_rule = {.name = "flip", .backward = flip_backward};

int op_flip(pg_tensor *out, const pg_tensor *input, const int64_t *dims, int dims_n)
{
    const pg_impl *x = input->impl;
    uint32_t mask;
    int status = pg_dim_mask(&mask, dims, dims_n, x->ndim, false);
    if (status < 0) return status;
    flipped f = {{0}, 0};
    int64_t stride[PG_DIMS_MAX], offset = x->offset;
    for (int i = 0; i < x->ndim; i++) {
        stride[i] = x->stride[i];
        if (!(mask >> i & 1)) continue;
        f.dims[f.n++] = i;
        if (x->shape[i] > 0) offset += (x->shape[i] - 1) * stride[i];
        stride[i] = -stride[i];
    }
    pg_tensor backwards = PG_HANDLE;
    status = pg_new_like(out, input, x->dtype);
    if (status >= 0 && x->numel > 0) {
        status = pg_alias(&backwards, input, x->ndim, x->shape, stride, offset);
        if (status >= 0) status = pg_copy_into(out, &backwards);
    }
    pg_tensor_release(&backwards);
    if (status < 0) {
        pg_tensor_release(out);
        return status;
    }
    return pg_record1(&flip_rule, out, &f, sizeof f, input);
}

/* Along one dimension: the last `shift` positions come first. */
static const pg_tensor *rolled(pg_pool *pool, const pg_tensor *t, int d, int64_t shift)
{
    int64_t size = t->impl->shape[d];
    if (size == 0) return t;
    shift %= size;
    if (shift < 0) shift += size;
    if (shift == 0) return t;
    const pg_tensor *parts[2] = {x_narrow(pool, t, d, size - shift, shift),
        x_narrow(pool, t, d, 0, size - shift)};
    return pool->status < 0 ? t : x_cat(pool, parts, 2, d);
}

int op_roll(pg_tensor *out, const pg_tensor *input, const int64_t *shifts, int shifts_n, const int64_t *dims,
            int dims_n)
{
    const pg_impl *x = input->impl;
    pg_pool pool;
    if (shifts_n == 0) return pg_fail("expected at least one shift");
    if (dims ? shifts_n != dims_n : shifts_n != 1)
        return pg_fail("shifts and dims must align: %d shifts, %d dims", shifts_n, dims ? dims_n : 0);
    pg_pool_begin(&pool);
    const pg_tensor *t = input;
    if (!dims) {
        t = x_reshape(&pool, t, &x->numel, 1);
        if (pool.status >= 0) t = rolled(&pool, t, 0, shifts[0]);
        if (pool.status >= 0) t = x_reshape(&pool, t, x->shape, x->ndim);
    }
    for (int i = 0; dims && i < dims_n && pool.status >= 0; i++) {
        int d, status = pg_wrap_dim(&d, dims[i], x->ndim);
        pg_pool_note(&pool, status);
        if (status >= 0 && x->ndim > 0) t = rolled(&pool, t, d, shifts[i]);
    }
    if (pool.status >= 0 && t->impl->storage == x->storage) t = x_clone(&pool, t);
    return pg_pool_return(&pool, out, t);
}

/* ---- one_hot ---- */

int op_one_hot(pg_tensor *out, const pg_tensor *input, int64_t num_classes)
{
    const pg_impl *x = input->impl;
    const pg_number one = {PG_NUMBER_INT, 1, 0};
    if (x->dtype != PG_INT64) return pg_fail("expected int64 class ids, got %s", pg_dtype_name(x->dtype));
    if (num_classes == 0 || num_classes < -1)
        return pg_fail("num_classes must be positive, or -1 for one more than the largest id, got %lld",
                       (long long)num_classes);
    if (x->ndim == PG_DIMS_MAX)
        return pg_fail("at most %d dimensions are supported, got %d", PG_DIMS_MAX, PG_DIMS_MAX + 1);
    if (x->numel == 0 && num_classes == -1)
        return pg_fail("the number of classes cannot be inferred from an empty tensor");
    const pg_device *d = pg_device_of(input);
    pg_tensor ids = PG_HANDLE, host = PG_HANDLE, zeros = PG_HANDLE, index = PG_HANDLE;
    int status = pg_dense(&ids, input);
    if (status >= 0) status = pg_new(&host, pg_device_cpu(), PG_INT64, 1, &x->numel);
    if (status >= 0)
        status = d->to_host(d, pg_data(&host), pg_data(&ids), (size_t)x->numel * sizeof(int64_t));
    const int64_t *id = status >= 0 ? pg_data(&host) : NULL;
    int64_t largest = -1;
    for (int64_t i = 0; i < x->numel && status >= 0; i++) {
        if (id[i] < 0)
            status = pg_fail_status(PG_ERROR_INDEX, "class ids must not be negative, got %lld",
                                    (long long)id[i]);
        if (id[i] > largest) largest = id[i];
    }
    if (status >= 0 && num_classes >= 0 && largest >= num_classes)
        status = pg_fail_status(PG_ERROR_INDEX, "class ids must be smaller than num_classes (%lld), got %lld",
                                (long long)num_classes, (long long)largest);
    int64_t shape[PG_DIMS_MAX];
    memcpy(shape, x->shape, sizeof *shape * x->ndim);
    shape[x->ndim] = num_classes >= 0 ? num_classes : largest + 1;
    if (status >= 0) status = pg_new(&zeros, d, PG_INT64, x->ndim + 1, shape);
    if (status >= 0) status = pg_fill_value(&zeros, (pg_value){0, 0});
    if (status >= 0) status = op_unsqueeze(&index, &ids, -1);
    if (status >= 0) status = op_scatter(out, &zeros, -1, &index, NULL, &one);
    pg_tensor_release(&index);
    pg_tensor_release(&zeros);
    pg_tensor_release(&host);
    pg_tensor_release(&ids);
    return status;
}
