/* sort.c: order along a dimension. */
#include "ops.h"

/* x with dimension d last, dense; d counts in x. */
static int last_dense(pg_tensor *out, const pg_tensor *x, int d) {
    pg_tensor turned = PG_HANDLE;
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    int n = pg_ndim(x);
    for (int i = 0; i < n; i++) {
        int from = i == n - 1 ? d : i == d ? n - 1 : i;
        shape[i] = x->impl->shape[from];
        stride[i] = x->impl->stride[from];
    }
    int status = pg_alias(&turned, x, n, shape, stride, x->impl->offset);
    if (status >= 0) status = pg_dense(out, &turned);
    pg_tensor_release(&turned);
    return status;
}

/* The way back: x's last dimension returns to d. Dense. */
static int turned_back(pg_tensor *out, pg_tensor *x, int d) {
    int n = pg_ndim(x);
    if (n == 0 || d == n - 1) {
        pg_move(out, x);
        return PG_OK;
    }
    int status = last_dense(out, x, d);
    pg_tensor_release(x);
    return status;
}

typedef struct sort_args { int dim; } sort_args;

/* The gradient of each value goes back to the place it came from. */
static int sort_backward(pg_backward *b) {
    const sort_args *a = b->args;
    pg_meta m = pg_input_meta(b, 0);
    pg_pool *p = b->pool;
    if (!b->grad[0]) return PG_OK;
    pg_tensor *zeros = pg_pool_new(p);
    pg_pool_note(p, pg_new(zeros, m.device, m.dtype, m.ndim, m.shape));
    if (p->status >= 0) pg_pool_note(p, pg_fill_value(zeros, (pg_value){0, 0}));
    b->input[0] = x_scatter(p, zeros, a->dim, pg_saved(b, PG_OUT(1)), b->grad[0], NULL);
    return p->status;
}
static const pg_rule sort_rule = {.name = "sort", .backward = sort_backward, .uses = {PG_USE(PG_OUT(1))},
                                  .undefined_grads = true};
static const pg_rule topk_rule = {.name = "topk", .backward = sort_backward, .uses = {PG_USE(PG_OUT(1))},
                                  .undefined_grads = true};

/* k < 0: all, sorted; else the k largest or smallest. values or indices may be NULL. */
static int order(pg_tensor *values, pg_tensor *indices, const pg_tensor *input, int d, int64_t k,
                 bool descending) {
    pg_tensor x = PG_HANDLE, v = PG_HANDLE, i = PG_HANDLE;
    int n = pg_ndim(input), dtype = pg_dtype_of(input);
    int64_t shape[PG_DIMS_MAX];
    int status = n ? last_dense(&x, input, d) : pg_dense(&x, input);
    int64_t size = status >= 0 && n ? pg_dim_size(&x, n - 1) : 1,
        rows = status >= 0 && size ? x.impl->numel / size : 0;
    for (int j = 0; status >= 0 && j < n; j++) shape[j] = j == n - 1 && k >= 0 ? k : pg_dim_size(&x, j);
    if (status >= 0 && values) status = pg_new(&v, pg_device_of(&x), dtype, n, shape);
    if (status >= 0) status = pg_new(&i, pg_device_of(&x), PG_INT64, n, shape);
    void *to = values && status >= 0 ? pg_data(&v) : NULL;
    if (status >= 0 && i.impl->numel > 0)
        status = k < 0 ? PG_RUN(pg_device_of(&x), sort, dtype, rows, size, pg_data(&x), to, pg_data(&i),
                                descending)
                       : PG_RUN(pg_device_of(&x), topk, dtype, rows, size, k, pg_data(&x), to, pg_data(&i),
                                descending);
    if (status >= 0 && values) status = turned_back(values, &v, d);
    if (status >= 0) status = turned_back(indices, &i, d);
    pg_tensor_release(&x);
    pg_tensor_release(&v);
    pg_tensor_release(&i);
    return status;
}

int op_sort(pg_tensor *values, pg_tensor *indices, const pg_tensor *input, int64_t dim, bool descending,
            bool stable) {
    (void)stable;   /* it always is */
    sort_args a;
    int status = pg_wrap_dim(&a.dim, dim, pg_ndim(input));
    if (status >= 0) status = order(values, indices, input, a.dim, -1, descending);
    if (status < 0) return status;
    return pg_record(&sort_rule, 2, (pg_tensor *[]){values, indices}, 1, (const pg_tensor *[]){input}, &a,
                     sizeof a);
}

int op_argsort(pg_tensor *out, const pg_tensor *input, int64_t dim, bool descending, bool stable) {
    (void)stable;
    int d, status = pg_wrap_dim(&d, dim, pg_ndim(input));
    return status < 0 ? status : order(NULL, out, input, d, -1, descending);
}

int op_topk(pg_tensor *values, pg_tensor *indices, const pg_tensor *input, int64_t k, int64_t dim,
            bool largest, bool sorted) {
    (void)sorted;   /* they always are */
    sort_args a;
    int status = pg_wrap_dim(&a.dim, dim, pg_ndim(input));
    if (status < 0) return status;
    int64_t size = pg_ndim(input) ? pg_dim_size(input, a.dim) : 1;
    if (k < 0 || k > size)
        return pg_fail("selected index k out of range: k = %lld of %lld elements along dimension %d",
                       (long long)k, (long long)size, a.dim);
    if ((status = order(values, indices, input, a.dim, k, largest)) < 0) return status;
    return pg_record(&topk_rule, 2, (pg_tensor *[]){values, indices}, 1, (const pg_tensor *[]){input}, &a,
                     sizeof a);
}
