/* index.c: elements chosen by tensors of positions.
 *
 * Gradients: taking elements and adding into them are each other's. What goes into the tape are the integer
 * positions as the kernels read them (masks expanded, converted to int64).
 */
#include "inplace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/live.h"
#include "pointwise.h"

#define text_of(shape, n) pg_shape_text((char[PG_TEXT]){0}, shape, n)

static const pg_number zero = {PG_NUMBER_INT, 0, 0};

static bool is_index_dtype(int dtype)
{
    return dtype == PG_INT64 || dtype == PG_INT32 || dtype == PG_INT16 || dtype == PG_INT8;
}

/* ---- nonzero ---- */

/* The row-major positions of the true elements of mask: int64 (n). */
static int true_positions(pg_tensor *out, const pg_tensor *mask)
{
    pg_tensor dense = PG_HANDLE;
    const pg_device *d = pg_device_of(mask);
    int64_t count = 0;
    int status = pg_dense_as(&dense, mask, PG_BOOL);
    if (status >= 0) status = PG_RUN(d, nonzero, dense.impl->numel, pg_data(&dense), &count, NULL);
    if (status >= 0) status = pg_new(out, d, PG_INT64, 1, &count);
    if (status >= 0 && count > 0)
        status = PG_RUN(d, nonzero, dense.impl->numel, pg_data(&dense), &count, pg_data(out));
    pg_tensor_release(&dense);
    if (status < 0) pg_tensor_release(out);
    return status;
}

/* out = positions / inner % size: the coordinate along a dimension of `size` with `inner` elements behind
 * each step. */
static int coordinate(pg_tensor *out, const pg_tensor *positions, int64_t inner, int64_t size)
{
    pg_tensor whole = PG_HANDLE;
    const pg_number by = {PG_NUMBER_INT, inner, 0}, modulo = {PG_NUMBER_INT, size, 0};
    pg_operand divide[] = {{positions, NULL}, {NULL, &by}}, rest[] = {{&whole, NULL}, {NULL, &modulo}};
    int status = pg_pointwise(&whole, PG_K_FLOOR_DIVIDE, PG_INT64, PG_INT64, 2, divide, -1, NULL);
    if (status >= 0) status = pg_pointwise(out, PG_K_REMAINDER, PG_INT64, PG_INT64, 2, rest, -1, NULL);
    pg_tensor_release(&whole);
    return status;
}

int op_nonzero(pg_tensor *out, const pg_tensor *input)
{
    const pg_impl *x = input->impl;
    pg_tensor positions = PG_HANDLE;
    int status = true_positions(&positions, input);
    int64_t shape[2] = {0, x->ndim}, inner = 1;
    if (status >= 0) {
        shape[0] = positions.impl->numel;
        status = pg_new(out, pg_device_of(input), PG_INT64, 2, shape);
    }
    for (int i = x->ndim - 1; i >= 0 && status >= 0 && shape[0] > 0; i--) {
        pg_tensor column = PG_HANDLE, place = PG_HANDLE;
        status = coordinate(&column, &positions, inner, x->shape[i]);
        if (status >= 0) status = pg_alias(&place, out, 1, shape, &(int64_t){x->ndim}, i);
        if (status >= 0) status = pg_copy_into(&place, &column);
        pg_tensor_release(&column);
        pg_tensor_release(&place);
        inner *= x->shape[i];
    }
    pg_tensor_release(&positions);
    if (status < 0) pg_tensor_release(out);
    return status;
}

/* ---- advanced indexing ---- */

/* The positions as kernels and tape take them: int64 tensors, one for each dimension in dims (ascending). */
typedef struct positions {
    int n;
    int64_t dims[PG_DIMS_MAX];
    pg_tensor index[PG_DIMS_MAX];     /* owned */
} positions;

typedef struct index_args { int n; bool accumulate; int64_t dims[PG_DIMS_MAX]; } index_args;

static void positions_end(positions *p)
{
    while (p->n > 0) pg_tensor_release(&p->index[--p->n]);
}

/* A mask over the dimensions from d on becomes a position tensor for each of them. */
static int add_mask(positions *p, const pg_tensor *x, const pg_tensor *mask, int d)
{
    const pg_impl *m = mask->impl;
    for (int i = 0; i < m->ndim; i++)
        if (m->shape[i] != x->impl->shape[d + i])
            return pg_fail_status(PG_ERROR_INDEX, "the shape of the mask %s at dimension %d does not match "
                                                  "the shape of the indexed tensor %s at dimension %d",
                                                  pg_text(mask), i, pg_text(x), d + i);
    pg_tensor linear = PG_HANDLE;
    int status = true_positions(&linear, mask);
    int64_t inner = 1;
    int first = p->n;
    for (int i = 0; i < m->ndim; i++) p->index[p->n++] = PG_HANDLE;
    for (int i = m->ndim - 1; i >= 0 && status >= 0; i--) {
        p->dims[first + i] = d + i;
        /* sizes of 0 leave nothing to divide */
        if (m->ndim == 1 || linear.impl->numel == 0) pg_share(&p->index[first + i], &linear);
        else status = coordinate(&p->index[first + i], &linear, inner, m->shape[i]);
        inner *= m->shape[i];
    }
    pg_tensor_release(&linear);
    return status;
}

static int positions_of(positions *p, const pg_tensor *x, const pg_tensor *const *indices, int n,
                        const int64_t *dims, int dims_n)
{
    p->n = 0;
    if (n != dims_n) return pg_fail("%d index tensors, but %d dims", n, dims_n);
    if (n == 0) return pg_fail("expected at least one index tensor");
    int ndim = x->impl->ndim, next = 0;
    for (int k = 0; k < n; k++) {
        int dtype = pg_dtype_of(indices[k]), takes = dtype == PG_BOOL ? pg_ndim(indices[k]) : 1;
        if (!is_index_dtype(dtype) && dtype != PG_BOOL)
            return pg_fail_status(PG_ERROR_INDEX, "tensors used as indices must be int64, int32, int16, int8 "
                                                  "or bool, got %s", pg_dtype_name(dtype));
        if (dims[k] < next || dims[k] + takes > ndim)
            return pg_fail_status(PG_ERROR_INDEX, "too many indices for a tensor of shape %s: %d of them "
                                                  "from dimension %lld on", pg_text(x), takes,
                                                  (long long)dims[k]);
        int status;
        if (dtype == PG_BOOL) {
            status = add_mask(p, x, indices[k], (int)dims[k]);
        } else {
            p->index[p->n] = PG_HANDLE;
            p->dims[p->n] = dims[k];
            status = pg_converted(&p->index[p->n++], indices[k], PG_INT64);
        }
        if (status < 0) return status;
        next = (int)dims[k] + takes;
    }
    return PG_OK;
}

/* The iteration space of an access: the result's shape, the indexed side's strides, the indices' strides.
 * data[0] is left open. */
static int plan_access(pg_advanced *a, const pg_tensor *x, const positions *p)
{
    const pg_impl *t = x->impl;
    int64_t shape[PG_DIMS_MAX];
    int ndim = 0, status = PG_OK;
    for (int k = 0; k < p->n && status >= 0; k++)
        status = pg_broadcast(shape, &ndim, p->index[k].impl->shape, p->index[k].impl->ndim);
    if (status < 0) {
        char list[PG_TEXT * 2];
        size_t used = 0;
        list[0] = 0;
        for (int k = 0; k < p->n && used < sizeof list; k++)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", k ? ", " : "",
                                     pg_text(&p->index[k]));
        return pg_fail_status(PG_ERROR_INDEX, "shape mismatch: indexing tensors could not be broadcast "
                                              "together with shapes %s", list);
    }
    if (ndim + t->ndim - p->n > PG_DIMS_MAX)
        return pg_fail("the result would have %d dimensions, at most %d are supported", ndim + t->ndim - p->n,
                       PG_DIMS_MAX);
    bool neighbours = true;
    for (int k = 1; k < p->n; k++) neighbours = neighbours && p->dims[k] == p->dims[k - 1] + 1;
    int first = neighbours && p->n > 0 ? (int)p->dims[0] : 0;    /* where the indices' dimensions go */
    pg_strided *s = &a->s;
    s->n = 2;
    s->ndim = 0;
    a->n = p->n;
    bool indexed[PG_DIMS_MAX] = {false};
    for (int k = 0; k < p->n; k++) {
        indexed[p->dims[k]] = true;
        a->index_data[k] = pg_data(&p->index[k]);
        a->size[k] = t->shape[p->dims[k]];
        a->dim_stride[k] = t->stride[p->dims[k]];
    }
    for (int d = 0, kept = 0; d <= t->ndim; d++) {
        if (kept == first && s->ndim == kept) {
            for (int i = 0; i < ndim; i++) {
                int at = s->ndim++;
                s->shape[at] = shape[i];
                s->stride[1][at] = 0;
                for (int k = 0; k < p->n; k++) {
                    const pg_impl *index = p->index[k].impl;
                    int j = i - (ndim - index->ndim);
                    a->index_stride[k][at] = j < 0 || index->shape[j] == 1 ? 0 : index->stride[j];
                }
            }
            kept = PG_DIMS_MAX + 1;   /* placed */
        }
        if (d == t->ndim) break;
        if (indexed[d]) continue;
        int at = s->ndim++;
        s->shape[at] = t->shape[d];
        s->stride[1][at] = t->stride[d];
        for (int k = 0; k < p->n; k++) a->index_stride[k][at] = 0;
        if (kept <= PG_DIMS_MAX) kept++;
    }
    s->data[1] = pg_data(x);
    int64_t count = pg_product(s->shape, s->ndim);
    if (count < 0)
        return pg_fail("shape %s has more elements than can be counted", text_of(s->shape, s->ndim));
    for (int k = 0; k < p->n && count > 0; k++)
        if (a->size[k] == 0)
            return pg_fail_status(PG_ERROR_INDEX, "an index is out of bounds for dimension %lld with size 0",
                                  (long long)p->dims[k]);
    return PG_OK;
}

/* One dense index tensor on a dense input: whole rows. */
static bool as_rows(pg_rows *r, const pg_tensor *x, const positions *p)
{
    if (p->n != 1 || !x->impl->contiguous || !p->index[0].impl->contiguous) return false;
    int d = (int)p->dims[0];
    r->outer = pg_product(x->impl->shape, d);
    r->size = x->impl->shape[d];
    r->n_index = p->index[0].impl->numel;
    r->inner = pg_product(x->impl->shape + d + 1, x->impl->ndim - d - 1);
    r->index = pg_data(&p->index[0]);
    r->from_end = true;
    return true;
}

static int record_inputs(const pg_tensor **inputs, const positions *p, int before)
{
    if (before + p->n > PG_INPUTS_MAX)
        return pg_fail("at most %d index tensors have a gradient, got %d", PG_INPUTS_MAX - before, p->n);
    for (int k = 0; k < p->n; k++) inputs[before + k] = &p->index[k];
    return PG_OK;
}

/* Saved positions of a node whose first `before` inputs are others. */
static int saved_indices(pg_backward *b, const pg_tensor **indices, int before)
{
    const index_args *args = b->args;
    for (int k = 0; k < args->n; k++) indices[k] = pg_saved(b, PG_IN(before + k));
    return b->pool->status;
}

static const pg_tensor *zeros_of(pg_pool *pool, pg_meta m)
{
    pg_tensor *t = pg_pool_new(pool);
    if (pool->status >= 0) pg_pool_note(pool, pg_new(t, m.device, m.dtype, m.ndim, m.shape));
    if (pool->status >= 0) pg_pool_note(pool, pg_fill_value(t, (pg_value){0, 0}));
    return t;
}

static int index_backward(pg_backward *b)
{
    const index_args *args = b->args;
    const pg_tensor *indices[PG_DIMS_MAX];
    if (saved_indices(b, indices, 1) < 0) return b->pool->status;
    const pg_tensor *into = zeros_of(b->pool, pg_input_meta(b, 0));
    b->input[0] = x_index_put(b->pool, into, indices, args->n, args->dims, args->n, b->grad[0], true);
    return b->pool->status;
}
#define INDEX_USES (PG_USE(1) | PG_USE(2) | PG_USE(3) | PG_USE(4) | PG_USE(5) | PG_USE(6) | PG_USE(7))
static const pg_rule index_rule = {.name = "index", .backward = index_backward, .uses = {INDEX_USES}};

static void keep_args(index_args *args, const positions *p, bool accumulate)
{
    args->n = p->n;
    args->accumulate = accumulate;
    memcpy(args->dims, p->dims, sizeof *args->dims * (size_t)p->n);
}

static int take(pg_tensor *out, const pg_tensor *x, const positions *p)
{
    pg_advanced a;
    pg_rows r;
    const pg_device *d = pg_device_of(x);
    int item = pg_size_of(pg_dtype_of(x));
    int status = plan_access(&a, x, p);
    if (status >= 0) status = pg_new(out, d, pg_dtype_of(x), a.s.ndim, a.s.shape);
    if (status < 0 || out->impl->numel == 0) return status;
    if (as_rows(&r, x, p)) return PG_RUN(d, index_select, item, &r, pg_data(x), pg_data(out));
    a.s.data[0] = pg_data(out);
    memcpy(a.s.stride[0], out->impl->stride, sizeof *a.s.stride[0] * (size_t)a.s.ndim);
    return PG_RUN(d, index_get, item, &a);
}

int op_index(pg_tensor *out, const pg_tensor *input, const pg_tensor *const *indices, int indices_n,
             const int64_t *dims, int dims_n)
{
    positions p;
    int status = positions_of(&p, input, indices, indices_n, dims, dims_n);
    if (status >= 0) status = take(out, input, &p);
    if (status >= 0 && pg_will_record(1, &input)) {
        const pg_tensor *inputs[PG_INPUTS_MAX] = {input};
        index_args args;
        keep_args(&args, &p, false);
        status = record_inputs(inputs, &p, 1);
        if (status >= 0) status = pg_record(&index_rule, 1, &out, 1 + p.n, inputs, &args, sizeof args);
    }
    positions_end(&p);
    if (status < 0) pg_tensor_release(out);
    return status;
}

/* ---- writing ---- */

static int index_put_backward(pg_backward *b)
{
    const index_args *args = b->args;
    const pg_tensor *indices[PG_DIMS_MAX];
    if (saved_indices(b, indices, 2) < 0) return b->pool->status;
    if (b->needs[0] && args->accumulate) {
        b->input[0] = b->grad[0];
    } else if (b->needs[0]) {
        pg_meta m = pg_output_meta(b, 0);
        m.ndim = 0;
        b->input[0] = x_index_put(b->pool, b->grad[0], indices, args->n, args->dims, args->n,
                                  zeros_of(b->pool, m), false);
    }
    if (b->needs[1]) b->input[1] = x_index(b->pool, b->grad[0], indices, args->n, args->dims, args->n);
    return b->pool->status;
}
#define PUT_USES (INDEX_USES & ~PG_USE(1))
static const pg_rule index_put_rule = {.name = "index_put", .backward = index_put_backward,
    .uses = {PUT_USES, PUT_USES}};

/* Writes values at positions p of x. */
static int put(const pg_tensor *x, const positions *p, const pg_tensor *values, bool accumulate)
{
    pg_advanced a;
    const pg_device *d = pg_device_of(x);
    int status = plan_access(&a, x, p);
    if (status < 0) return status;
    const pg_impl *v = values->impl;
    /* leading dimensions of size 1 that the place lacks are dropped */
    int extra = v->ndim - a.s.ndim;
    bool fits = true;
    for (int i = 0; i < extra; i++) fits = fits && v->shape[i] == 1;
    for (int i = 0; i < a.s.ndim; i++) {
        int j = i + extra;
        int64_t have = j < 0 ? 1 : v->shape[j];
        fits = fits && (have == 1 || have == a.s.shape[i]);
    }
    if (!fits)
        return pg_fail("shape mismatch: values of shape %s cannot be broadcast to the indexed shape %s",
                       pg_text(values), text_of(a.s.shape, a.s.ndim));
    if (pg_product(a.s.shape, a.s.ndim) == 0) return PG_OK;
    pg_tensor use = PG_HANDLE;
    status = pg_converted(&use, values, pg_dtype_of(x));
    if (status >= 0 && use.impl->storage == x->impl->storage) {
        pg_tensor apart = PG_HANDLE;
        status = pg_new_like(&apart, &use, pg_dtype_of(x));
        if (status >= 0) status = pg_copy_into(&apart, &use);
        pg_tensor_release(&use);
        pg_move(&use, &apart);
    }
    if (status >= 0) {
        for (int i = 0; i < a.s.ndim; i++) {
            int j = i + extra;
            a.s.stride[0][i] = j < 0 || use.impl->shape[j] == 1 ? 0 : use.impl->stride[j];
        }
        a.s.data[0] = pg_data(&use);
        pg_rows r;
        bool whole = accumulate && use.impl->contiguous && use.impl->numel == pg_product(a.s.shape, a.s.ndim);
        if (whole && pg_dtype_of(x) != PG_BOOL && as_rows(&r, x, p))
            status = PG_RUN(d, index_add, pg_dtype_of(x), &r, pg_data(&use), 1.0, pg_data(x));
        else
            status = PG_RUN(d, index_put, pg_dtype_of(x), &a, accumulate);
    }
    pg_tensor_release(&use);
    return status;
}

static int check_values(const pg_tensor *x, const pg_tensor *values)
{
    int have = pg_dtype_of(values), want = pg_dtype_of(x);
    if (have == want || values->impl->ndim == 0) return PG_OK;
    return pg_fail("the values' dtype (%s) must be that of the tensor (%s)", pg_dtype_name(have),
                   pg_dtype_name(want));
}

int op_index_put_(pg_tensor *input, const pg_tensor *const *indices, int indices_n, const int64_t *dims,
                  int dims_n, const pg_tensor *values, bool accumulate)
{
    positions p;
    pg_tensor twin = PG_HANDLE;
    int status = check_values(input, values);
    if (status < 0) return status;
    status = positions_of(&p, input, indices, indices_n, dims, dims_n);
    if (status >= 0) {
        const pg_tensor *inputs[PG_INPUTS_MAX] = {input, values};
        index_args args;
        keep_args(&args, &p, accumulate);
        int n = 2;
        if (pg_will_record(2, inputs)) {
            status = record_inputs(inputs, &p, 2);
            n += p.n;
        }
        if (status >= 0)
            status = pg_inplace_open(&twin, input, &index_put_rule, &args, sizeof args, n, inputs);
        if (status >= 0) status = pg_inplace_close(&twin, input, put(input, &p, values, accumulate));
    }
    positions_end(&p);
    return status;
}

int op_index_put(pg_tensor *out, const pg_tensor *input, const pg_tensor *const *indices, int indices_n,
                 const int64_t *dims, int dims_n, const pg_tensor *values, bool accumulate)
{
    positions p;
    int status = check_values(input, values);
    if (status < 0) return status;
    status = positions_of(&p, input, indices, indices_n, dims, dims_n);
    if (status >= 0) status = pg_new_like(out, input, pg_dtype_of(input));
    if (status >= 0) status = pg_copy_into(out, input);
    if (status >= 0) status = put(out, &p, values, accumulate);
    const pg_tensor *inputs[PG_INPUTS_MAX] = {input, values};
    if (status >= 0 && pg_will_record(2, inputs)) {
        index_args args;
        keep_args(&args, &p, accumulate);
        status = record_inputs(inputs, &p, 2);
        if (status >= 0) status = pg_record(&index_put_rule, 1, &out, 2 + p.n, inputs, &args, sizeof args);
    }
    positions_end(&p);
    if (status < 0) pg_tensor_release(out);
    return status;
}

/* ---- gather, scatter ---- */

typedef struct along { int64_t dim; } along;

static int check_index(pg_tensor *out, const pg_tensor *index)
{
    int dtype = pg_dtype_of(index);
    if (dtype != PG_INT64 && dtype != PG_INT32)
        return pg_fail("index: expected int64, got %s", pg_dtype_name(dtype));
    return pg_converted(out, index, PG_INT64);
}

static int no_larger(const pg_tensor *index, const pg_tensor *than, int except, const char *what)
{
    for (int i = 0; i < index->impl->ndim; i++)
        if (i != except && index->impl->shape[i] > than->impl->shape[i])
            return pg_fail("index of shape %s must be no larger than %s of shape %s%s", pg_text(index), what,
                           pg_text(than), except >= 0 ? " apart from dim" : "");
    return PG_OK;
}

static int same_ndim(const pg_tensor *a, const pg_tensor *b, const char *what)
{
    /* a tensor of no dimensions counts as one element in one dimension */
    int m = a->impl->ndim ? a->impl->ndim : 1, n = b->impl->ndim ? b->impl->ndim : 1;
    if (m == n) return PG_OK;
    return pg_fail("index must have as many dimensions as %s, got %s and %s", what, pg_text(a), pg_text(b));
}

/* The walk over index's shape: dense is the result or the source, indexed the side that is reached through
 * index. */
static void gathering(pg_gathering *g, const pg_tensor *index, const pg_tensor *dense,
                      const pg_tensor *indexed, int dim)
{
    const pg_impl *i = index->impl;
    const pg_tensor *operands[] = {index, dense, indexed};
    pg_strided *s = &g->s;
    s->n = 3;
    s->ndim = i->ndim;
    for (int d = 0; d < i->ndim; d++) s->shape[d] = i->shape[d];
    for (int k = 0; k < 3; k++) {
        const pg_impl *t = operands[k]->impl;
        s->data[k] = pg_data(operands[k]);
        for (int d = 0; d < i->ndim; d++) s->stride[k][d] = t->ndim == i->ndim ? t->stride[d] : 0;
    }
    g->dim = dim;
    g->size = indexed->impl->ndim ? indexed->impl->shape[dim] : 1;
    g->dim_stride = indexed->impl->ndim ? indexed->impl->stride[dim] : 1;
    if (i->ndim) s->stride[2][dim] = 0;
}

/* gather's, scatter's and scatter_add's gradients. Inputs: 0 self, 1 index, 2 the source. */
static int gather_backward(pg_backward *b)
{
    const along *a = b->args;
    const pg_tensor *index = pg_saved(b, PG_IN(1));
    if (b->pool->status < 0) return b->pool->status;
    const pg_tensor *into = zeros_of(b->pool, pg_input_meta(b, 0));
    b->input[0] = x_scatter_add(b->pool, into, a->dim, index, b->grad[0]);
    return b->pool->status;
}
static const pg_rule gather_rule = {.name = "gather", .backward = gather_backward,
    .uses = {PG_USE(PG_IN(1))}};

int op_gather(pg_tensor *out, const pg_tensor *input, int64_t dim, const pg_tensor *index)
{
    along a;
    int d;
    pg_tensor at = PG_HANDLE;
    pg_gathering g;
    int status = pg_wrap_dim(&d, dim, input->impl->ndim);
    if (status >= 0) status = check_index(&at, index);
    if (status >= 0) status = same_ndim(&at, input, "input");
    if (status >= 0 && at.impl->ndim && input->impl->ndim) status = no_larger(&at, input, d, "input");
    if (status >= 0)
        status = pg_new(out, pg_device_of(input), pg_dtype_of(input), at.impl->ndim, at.impl->shape);
    if (status >= 0 && at.impl->numel > 0) {
        gathering(&g, &at, out, input, d);
        status = PG_RUN(pg_device_of(input), gather, pg_size_of(pg_dtype_of(input)), &g);
    }
    a.dim = d;
    if (status < 0) pg_tensor_release(out);
    else status = pg_record1(&gather_rule, out, &a, sizeof a, input, &at);
    pg_tensor_release(&at);
    return status;
}

static int scatter_backward(pg_backward *b)
{
    const along *a = b->args;
    const pg_tensor *index = pg_saved(b, PG_IN(1));
    if (b->pool->status < 0) return b->pool->status;
    if (b->needs[0]) b->input[0] = x_scatter(b->pool, b->grad[0], a->dim, index, NULL, &zero);
    if (b->n_inputs > 2 && b->needs[2]) b->input[2] = x_gather(b->pool, b->grad[0], a->dim, index);
    return b->pool->status;
}
static int scatter_add_backward(pg_backward *b)
{
    const along *a = b->args;
    b->input[0] = b->grad[0];
    if (b->needs[2]) b->input[2] = x_gather(b->pool, b->grad[0], a->dim, pg_saved(b, PG_IN(1)));
    return b->pool->status;
}
static const pg_rule scatter_rule = {.name = "scatter", .backward = scatter_backward,
                                     .uses = {PG_USE(PG_IN(1)), 0, PG_USE(PG_IN(1))}};
static const pg_rule scatter_add_rule = {.name = "scatter_add", .backward = scatter_add_backward,
                                         .uses = {0, 0, PG_USE(PG_IN(1))}};

/* src cut to index's shape by views, so that its gradient finds the way back. */
static const pg_tensor *fitted(pg_pool *pool, const pg_tensor *src, const pg_tensor *index)
{
    for (int i = 0; i < index->impl->ndim && src->impl->ndim && pool->status >= 0; i++)
        if (src->impl->shape[i] > index->impl->shape[i])
            src = x_narrow(pool, src, i, 0, index->impl->shape[i]);
    return src;
}

static int scatter_into(pg_tensor *out, const pg_tensor *input, int64_t dim, const pg_tensor *index,
                        const pg_tensor *src, const pg_number *number, bool add)
{
    along a;
    int d, dtype = pg_dtype_of(input);
    pg_tensor at = PG_HANDLE, scalar = PG_HANDLE, value = PG_HANDLE;
    pg_pool pool;
    pg_gathering g;
    pg_pool_begin(&pool);
    int status = pg_wrap_dim(&d, dim, input->impl->ndim);
    if (status >= 0) status = check_index(&at, index);
    if (status >= 0) status = same_ndim(&at, input, "input");
    if (status >= 0 && src) status = same_ndim(&at, src, "src");
    if (status >= 0 && at.impl->ndim && input->impl->ndim) status = no_larger(&at, input, d, "input");
    if (status >= 0 && src && at.impl->ndim && src->impl->ndim) status = no_larger(&at, src, -1, "src");
    if (status >= 0 && src && pg_dtype_of(src) != dtype)
        status = pg_fail("src is %s, input %s: expected one dtype", pg_dtype_name(pg_dtype_of(src)),
                         pg_dtype_name(dtype));
    if (status >= 0 && src) {
        src = fitted(&pool, src, &at);
        status = pool.status;
    }
    if (status >= 0 && !src) {
        status = pg_new(&scalar, pg_device_of(input), dtype, 0, NULL);
        if (status >= 0) status = pg_fill_value(&scalar, pg_value_of(number, dtype));
        if (status >= 0)
            status = pg_alias(&value, &scalar, at.impl->ndim, at.impl->shape, (int64_t[PG_DIMS_MAX]){0},
                              scalar.impl->offset);
    }
    if (status >= 0) status = pg_new_like(out, input, dtype);
    if (status >= 0) status = pg_copy_into(out, input);
    if (status >= 0 && at.impl->numel > 0) {
        gathering(&g, &at, src ? src : &value, out, d);
        const pg_device *device = pg_device_of(input);
        status = add ? PG_RUN(device, scatter_add, dtype, &g)
            : PG_RUN(device, scatter, pg_size_of(dtype), &g);
    }
    a.dim = d;
    const pg_tensor *inputs[] = {input, &at, src};
    if (status < 0) pg_tensor_release(out);
    else status = pg_record(add ? &scatter_add_rule : &scatter_rule, 1, &out, src ? 3 : 2, inputs, &a,
                            sizeof a);
    pg_tensor_release(&value);
    pg_tensor_release(&scalar);
    pg_tensor_release(&at);
    int ended = pg_pool_end(&pool);
    return status < 0 ? status : ended;
}

int op_scatter(pg_tensor *out, const pg_tensor *input, int64_t dim, const pg_tensor *index,
               const pg_tensor *src, const pg_number *src_number)
{
    return scatter_into(out, input, dim, index, src, src_number, false);
}

int op_scatter_add(pg_tensor *out, const pg_tensor *input, int64_t dim, const pg_tensor *index,
                   const pg_tensor *src)
{
    return scatter_into(out, input, dim, index, src, NULL, true);
}

/* ---- index_select, index_add ---- */

typedef struct rows_args { int64_t dim; pg_number alpha; } rows_args;

static int rows_of(pg_rows *r, const pg_tensor *x, int d, const pg_tensor *index)
{
    const pg_impl *t = x->impl;
    r->outer = pg_product(t->shape, d);
    r->size = t->ndim ? t->shape[d] : 1;
    r->n_index = index->impl->numel;
    r->inner = t->ndim ? pg_product(t->shape + d + 1, t->ndim - d - 1) : 1;
    r->index = pg_data(index);
    r->from_end = false;
    if (r->size == 0 && r->n_index > 0)
        return pg_fail_status(PG_ERROR_INDEX, "an index is out of bounds for dimension %d with size 0", d);
    return PG_OK;
}

/* A vector of int64, dense. */
static int vector_index(pg_tensor *out, const pg_tensor *index)
{
    int dtype = pg_dtype_of(index);
    if (dtype != PG_INT64 && dtype != PG_INT32)
        return pg_fail("index: expected int64, got %s", pg_dtype_name(dtype));
    if (index->impl->ndim > 1) return pg_fail("index: expected a vector, got shape %s", pg_text(index));
    return pg_dense_as(out, index, PG_INT64);
}

static int index_select_backward(pg_backward *b)
{
    const rows_args *a = b->args;
    const pg_number one = {PG_NUMBER_INT, 1, 0};
    const pg_tensor *index = pg_saved(b, PG_IN(1));
    if (b->pool->status < 0) return b->pool->status;
    const pg_tensor *into = zeros_of(b->pool, pg_input_meta(b, 0));
    b->input[0] = x_index_add(b->pool, into, a->dim, index, b->grad[0], &one);
    return b->pool->status;
}
static const pg_rule index_select_rule = {.name = "index_select", .backward = index_select_backward,
                                          .uses = {PG_USE(PG_IN(1))}};

int op_index_select(pg_tensor *out, const pg_tensor *input, int64_t dim, const pg_tensor *index)
{
    rows_args args = {0};
    pg_tensor at = PG_HANDLE, dense = PG_HANDLE;
    pg_rows r;
    int64_t shape[PG_DIMS_MAX];
    int d, ndim = input->impl->ndim, dtype = pg_dtype_of(input);
    const pg_device *device = pg_device_of(input);
    int status = pg_wrap_dim(&d, dim, ndim);
    if (status >= 0) status = vector_index(&at, index);
    if (status >= 0) status = rows_of(&r, input, d, &at);
    if (status >= 0 && ndim == 0 && r.n_index != 1)
        status = pg_fail("index: expected one position for an input of no dimensions, got %lld",
                         (long long)r.n_index);
    if (status >= 0) {
        memcpy(shape, input->impl->shape, sizeof *shape * (size_t)ndim);
        if (ndim) shape[d] = r.n_index;
        status = pg_new(out, device, dtype, ndim, shape);
    }
    if (status >= 0 && out->impl->numel > 0) {
        status = pg_dense(&dense, input);
        if (status >= 0)
            status = PG_RUN(device, index_select, pg_size_of(dtype), &r, pg_data(&dense), pg_data(out));
    }
    args.dim = d;
    if (status < 0) pg_tensor_release(out);
    else status = pg_record1(&index_select_rule, out, &args, sizeof args, input, &at);
    pg_tensor_release(&dense);
    pg_tensor_release(&at);
    return status;
}

static int index_add_backward(pg_backward *b)
{
    const rows_args *a = b->args;
    b->input[0] = b->grad[0];
    if (!b->needs[2]) return PG_OK;
    const pg_tensor *g = x_index_select(b->pool, b->grad[0], a->dim, pg_saved(b, PG_IN(1)));
    if (b->pool->status < 0) return b->pool->status;
    bool one = a->alpha.kind == PG_NUMBER_FLOAT ? a->alpha.d == 1 : a->alpha.i == 1;
    if (!one) g = x_mul(b->pool, g, NULL, &a->alpha);
    pg_meta m = pg_input_meta(b, 2);
    /* a source of no dimensions stands for one position */
    if (b->pool->status >= 0 && m.ndim != g->impl->ndim) g = x_reshape(b->pool, g, m.shape, m.ndim);
    b->input[2] = g;
    return b->pool->status;
}
static const pg_rule index_add_rule = {.name = "index_add", .backward = index_add_backward,
    .uses = {0, 0, PG_USE(PG_IN(1))}};

static int check_source(const pg_tensor *input, const pg_tensor *source, int d, int64_t n)
{
    const pg_impl *x = input->impl, *s = source->impl;
    if (x->dtype != s->dtype)
        return pg_fail("source is %s, input %s: expected one dtype", pg_dtype_name(s->dtype),
                       pg_dtype_name(x->dtype));
    if (s->ndim == 0 && x->ndim <= 1 && n == 1) return PG_OK;
    bool fits = s->ndim == x->ndim;
    for (int i = 0; fits && i < x->ndim; i++) fits = s->shape[i] == (i == d ? n : x->shape[i]);
    if (fits) return PG_OK;
    return pg_fail("source of shape %s does not fit input of shape %s and %lld indices along dimension %d",
                   pg_text(source), pg_text(input), (long long)n, d);
}

int op_index_add(pg_tensor *out, const pg_tensor *input, int64_t dim, const pg_tensor *index,
                 const pg_tensor *source, const pg_number *alpha)
{
    rows_args args = {0, *alpha};
    pg_tensor at = PG_HANDLE, dense = PG_HANDLE;
    pg_rows r;
    int d, dtype = pg_dtype_of(input);
    const pg_device *device = pg_device_of(input);
    int status = pg_wrap_dim(&d, dim, input->impl->ndim);
    if (status >= 0 && alpha->kind == PG_NUMBER_FLOAT && !pg_is_float(dtype) &&
        alpha->d != (double)(int64_t)alpha->d)
        status = pg_fail("alpha must be an integer for %s, got %g", pg_dtype_name(dtype), alpha->d);
    if (status >= 0) status = vector_index(&at, index);
    if (status >= 0) status = check_source(input, source, d, at.impl->numel);
    if (status >= 0) status = rows_of(&r, input, d, &at);
    if (status >= 0) status = pg_dense(&dense, source);
    if (status >= 0) status = pg_new_like(out, input, dtype);
    if (status >= 0) status = pg_copy_into(out, input);
    if (status >= 0 && dense.impl->numel > 0) {
        double scale = alpha->kind == PG_NUMBER_FLOAT ? alpha->d : (double)alpha->i;
        status = PG_RUN(device, index_add, dtype, &r, pg_data(&dense), scale, pg_data(out));
    }
    args.dim = d;
    if (status < 0) pg_tensor_release(out);
    else status = pg_record1(&index_add_rule, out, &args, sizeof args, input, &at, source);
    pg_tensor_release(&dense);
    pg_tensor_release(&at);
    return status;
}

/* ---- masks ---- */

static int check_mask(const pg_tensor *mask)
{
    if (pg_dtype_of(mask) == PG_BOOL) return PG_OK;
    return pg_fail("mask: expected bool, got %s", pg_dtype_name(pg_dtype_of(mask)));
}

/* Inputs: 0 input, 1 mask, 2 the value where it is a tensor. */
static int masked_fill_backward(pg_backward *b)
{
    const pg_tensor *mask = pg_saved(b, PG_IN(1));
    if (b->pool->status < 0) return b->pool->status;
    if (b->needs[0]) b->input[0] = x_masked_fill(b->pool, b->grad[0], mask, NULL, &zero);
    if (b->n_inputs > 2 && b->needs[2]) {
        /* grad less grad where nothing was filled */
        pg_tensor *other = pg_pool_new(b->pool);
        pg_operand operand = {mask, NULL};
        if (b->pool->status >= 0)
            pg_pool_note(b->pool, pg_pointwise(other, PG_K_LOGICAL_NOT, PG_BOOL, PG_BOOL, 1, &operand, -1,
                                               NULL));
        if (b->pool->status >= 0) b->input[2] = x_masked_fill(b->pool, b->grad[0], other, NULL, &zero);
    }
    return b->pool->status;
}
static const pg_rule masked_fill_rule = {.name = "masked_fill", .backward = masked_fill_backward,
                                         .uses = {PG_USE(PG_IN(1)), 0, PG_USE(PG_IN(1))}};

int op_masked_fill(pg_tensor *out, const pg_tensor *input, const pg_tensor *mask, const pg_tensor *value,
                   const pg_number *value_number)
{
    int dtype = pg_dtype_of(input), status = check_mask(mask);
    if (status < 0) return status;
    if (value && value->impl->ndim != 0)
        return pg_fail("value: expected a number or a tensor of no dimensions, got shape %s", pg_text(value));
    bool fractional = value ? pg_is_float(pg_dtype_of(value)) : value_number->kind == PG_NUMBER_FLOAT;
    if (fractional && !pg_is_float(dtype) && dtype != PG_BOOL)
        return pg_fail("value: %s cannot hold a float", pg_dtype_name(dtype));
    pg_operand operands[] = {{mask, NULL}, {value, value_number}, {input, NULL}};
    status = pg_pointwise(out, PG_K_WHERE, dtype, dtype, 3, operands, 0, NULL);
    if (status < 0) return status;
    const pg_tensor *inputs[] = {input, mask, value};
    return pg_record(&masked_fill_rule, 1, &out, value ? 3 : 2, inputs, NULL, 0);
}

int op_masked_select(pg_tensor *out, const pg_tensor *input, const pg_tensor *mask)
{
    int status = check_mask(mask);
    if (status < 0) return status;
    int64_t shape[PG_DIMS_MAX], first = 0;
    int ndim = input->impl->ndim;
    memcpy(shape, input->impl->shape, sizeof *shape * (size_t)ndim);
    if ((status = pg_broadcast(shape, &ndim, mask->impl->shape, mask->impl->ndim)) < 0) return status;
    if (ndim == 0) shape[ndim++] = 1;
    pg_pool pool;
    pg_pool_begin(&pool);
    const pg_tensor *x = x_expand(&pool, input, shape, ndim), *m = NULL;
    if (pool.status >= 0) m = x_expand(&pool, mask, shape, ndim);
    const pg_tensor *result = pool.status >= 0 ? x_index(&pool, x, &m, 1, &first, 1) : x;
    return pg_pool_return(&pool, out, result);
}
