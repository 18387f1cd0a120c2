/* softmax.c: softmax and log_softmax over one dimension. */
#include "networks.h"

/* ---- rows: what networks' kernels work on ---- */

int pg_rows_of(pg_tensor *out, const pg_tensor *x, int dim, int dtype) {
    const pg_impl *t = x->impl;
    if (dim >= t->ndim - 1) return pg_dense_as(out, x, dtype);
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    int n = 0;
    for (int i = 0; i < t->ndim; i++) {
        if (i == dim) continue;
        shape[n] = t->shape[i];
        stride[n++] = t->stride[i];
    }
    shape[n] = t->shape[dim];
    stride[n++] = t->stride[dim];
    pg_tensor turned = PG_HANDLE;
    int status = pg_alias(&turned, x, n, shape, stride, t->offset);
    if (status >= 0) status = pg_dense_as(out, &turned, dtype);
    pg_tensor_release(&turned);
    return status;
}

int pg_rows_back(pg_tensor *out, const pg_tensor *rows, int ndim, int dim) {
    const pg_impl *t = rows->impl;
    if (dim >= ndim - 1) {
        pg_share(out, rows);
        return PG_OK;
    }
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    for (int i = 0, from = 0; i < ndim; i++) {
        const int k = i == dim ? ndim - 1 : from++;
        shape[i] = t->shape[k];
        stride[i] = t->stride[k];
    }
    pg_tensor turned = PG_HANDLE;
    int status = pg_alias(&turned, rows, ndim, shape, stride, t->offset);
    if (status >= 0) status = pg_dense(out, &turned);
    pg_tensor_release(&turned);
    return status;
}

/* ---- softmax, log_softmax ---- */

typedef struct softmax_args { int32_t dim, log; } softmax_args;

static int run(pg_tensor *out, const pg_tensor *x, int dim, bool log) {
    pg_tensor rows = PG_HANDLE, result = PG_HANDLE;
    const int ndim = x->impl->ndim, dtype = x->impl->dtype;
    int status = pg_rows_of(&rows, x, dim, dtype);
    if (status >= 0) status = pg_new_like(&result, &rows, dtype);
    if (status >= 0 && x->impl->numel > 0) {
        const int64_t n = ndim ? x->impl->shape[dim] : 1;
        status = PG_RUN(pg_device_of(x), softmax, dtype, x->impl->numel / n, n, pg_data(&rows), pg_data(&result), log);
    }
    if (status >= 0) status = pg_rows_back(out, &result, ndim, dim);
    pg_tensor_release(&rows);
    pg_tensor_release(&result);
    return status;
}

/* softmax: dx = y (g - sum(g y)); log_softmax: dx = g - exp(y) sum(g). */
static int softmax_backward(pg_backward *b) {
    const softmax_args *a = b->args;
    const pg_tensor *y = pg_saved(b, PG_OUT(0)), *g = b->grad[0];
    const int64_t dim = a->dim;
    pg_pool *p = b->pool;
    if (a->log)
        b->input[0] = x_minus(p, g, x_times(p, x_exp(p, y), x_sum(p, g, &dim, 1, true, -1)));
    else
        b->input[0] = x_times(p, y, x_minus(p, g, x_sum(p, x_times(p, g, y), &dim, 1, true, -1)));
    return p->status;
}
static int softmax_fused(pg_backward *b) {
    const softmax_args *a = b->args;
    pg_pool *p = b->pool;
    const pg_tensor *y = pg_saved(b, PG_OUT(0));
    if (p->status < 0) return p->status;
    const int ndim = y->impl->ndim, dtype = y->impl->dtype;
    pg_tensor *result = pg_pool_new(p), *dx = pg_pool_new(p), *grad_rows = pg_pool_new(p), *rows = pg_pool_new(p);
    if (p->status < 0) return p->status;
    int status = pg_rows_of(grad_rows, b->grad[0], a->dim, dtype);
    if (status >= 0) status = pg_rows_of(rows, y, a->dim, dtype);
    if (status >= 0) status = pg_new_like(dx, rows, dtype);
    if (status >= 0 && y->impl->numel > 0) {
        const int64_t n = ndim ? y->impl->shape[a->dim] : 1;
        status = PG_RUN(pg_device_of(y), softmax_backward, dtype, y->impl->numel / n, n, pg_data(grad_rows), pg_data(rows),
                        pg_data(dx), a->log != 0);
    }
    if (status >= 0) status = pg_rows_back(result, dx, ndim, a->dim);
    b->input[0] = result;
    return status;
}
static const pg_rule softmax_rule = {.name = "softmax", .backward = softmax_backward, .fused = softmax_fused,
                                     .uses = {PG_USE(PG_OUT(0))}};
static const pg_rule log_softmax_rule = {.name = "log_softmax", .backward = softmax_backward, .fused = softmax_fused,
                                         .uses = {PG_USE(PG_OUT(0))}};

static int softmax_op(pg_tensor *out, const pg_tensor *input, int64_t dim, int dtype, bool log) {
    int at, status = pg_wrap_dim(&at, dim, input->impl->ndim);
    if (status < 0) return status;
    const int want = dtype >= 0 ? dtype : input->impl->dtype;
    if (!pg_is_float(want)) return pg_fail("expected a floating dtype, got %s: give {dtype = ...} to convert", pg_dtype_name(want));
    pg_tensor x = PG_HANDLE;
    status = pg_to_dtype(&x, input, want);
    if (status >= 0) status = run(out, &x, at, log);
    const softmax_args args = {at, log};
    if (status >= 0) status = pg_record1(log ? &log_softmax_rule : &softmax_rule, out, &args, sizeof args, &x);
    pg_tensor_release(&x);
    return status;
}
int op_softmax(pg_tensor *out, const pg_tensor *input, int64_t dim, int dtype) {
    return softmax_op(out, input, dim, dtype, false);
}
int op_log_softmax(pg_tensor *out, const pg_tensor *input, int64_t dim, int dtype) {
    return softmax_op(out, input, dim, dtype, true);
}
