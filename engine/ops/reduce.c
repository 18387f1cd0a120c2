/* reduce.c: reductions over any dimensions. */
#include <string.h>

#include "ops.h"

/* ---- the shared path ---- */

/* The kept and the reduced dimensions of x, each coalesced, as the kernel wants them; the output's shape with or without the reduced
 * dimensions. */
typedef struct plan { pg_reduction r; int ndim; int64_t shape[PG_DIMS_MAX]; } plan;

static int coalesce(int n, int64_t *shape, int64_t *stride) {
    int last = -1;
    for (int i = 0; i < n; i++) {
        if (shape[i] == 1) continue;
        if (last >= 0 && stride[last] == stride[i] * shape[i]) {
            shape[last] *= shape[i];
            stride[last] = stride[i];
        } else {
            last++;
            shape[last] = shape[i];
            stride[last] = stride[i];
        }
    }
    return last + 1;
}

static void make_plan(plan *p, const pg_tensor *x, uint32_t mask, bool keepdim) {
    const pg_impl *t = x->impl;
    memset(&p->r, 0, sizeof p->r);
    p->ndim = 0;
    for (int i = 0; i < t->ndim; i++) {
        bool reduced = mask >> i & 1;
        if (!reduced || keepdim) p->shape[p->ndim++] = reduced ? 1 : t->shape[i];
        int k = reduced ? p->r.reduced_n++ : p->r.kept_n++;
        (reduced ? p->r.reduced_shape : p->r.kept_shape)[k] = t->shape[i];
        (reduced ? p->r.reduced_stride : p->r.kept_stride)[k] = t->stride[i];
    }
    p->r.kept_n = coalesce(p->r.kept_n, p->r.kept_shape, p->r.kept_stride);
    p->r.reduced_n = coalesce(p->r.reduced_n, p->r.reduced_shape, p->r.reduced_stride);
    p->r.in = pg_data(x);
}

/* ---- sum ---- */

/* A gradient of the reduced shape, spread over the input's. */
static pg_tensor *spread(pg_pool *p, const pg_tensor *grad, const pg_meta *m, uint32_t mask) {
    int64_t with_ones[PG_DIMS_MAX];
    for (int i = 0; i < m->ndim; i++) with_ones[i] = mask >> i & 1 ? 1 : m->shape[i];
    return x_expand(p, x_reshape(p, grad, with_ones, m->ndim), m->shape, m->ndim);
}

static int sum_backward(pg_backward *b) {
    pg_meta m = pg_input_meta(b, 0);
    b->input[0] = spread(b->pool, b->grad[0], &m, *(const uint32_t *)b->args);
    return b->pool->status;
}
static const pg_rule sum_rule = {.name = "sum", .backward = sum_backward};

int op_sum(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim, int dtype) {
    uint32_t mask;
    int status = pg_dim_mask(&mask, dim, dim_n, input->impl->ndim, true);
    if (status < 0) return status;
    int result = dtype >= 0 ? dtype : pg_is_float(input->impl->dtype) ? input->impl->dtype : PG_INT64;
    pg_tensor x = PG_HANDLE;
    if ((status = pg_to_dtype(&x, input, result)) < 0) return status;
    plan p;
    make_plan(&p, &x, mask, keepdim);
    status = pg_new(out, pg_device_of(&x), result, p.ndim, p.shape);
    if (status >= 0) {
        p.r.out = pg_data(out);
        status = x.impl->numel == 0 ? pg_fill_value(out, (pg_value){0, 0})
                                    : PG_RUN(pg_device_of(&x), reduce, PG_K_REDUCE_SUM, result, &p.r);
    }
    if (status >= 0) status = pg_record1(&sum_rule, out, &mask, sizeof mask, &x);
    else pg_tensor_release(out);
    pg_tensor_release(&x);
    return status;
}
