/* embedding.c: rows of a table by id. */
#include "networks.h"

typedef struct embedding_args { int64_t rows, padding; } embedding_args;   /* padding -1: none */

static int check_ids(const pg_tensor *ids) {
    return ids->impl->dtype == PG_INT64 || ids->impl->dtype == PG_INT32
               ? PG_OK : pg_fail("expected ids of dtype int64 or int32, got %s", pg_dtype_name(ids->impl->dtype));
}
static int resolve_padding(int64_t *padding, const int64_t *padding_idx, int64_t rows) {
    *padding = -1;
    if (!padding_idx) return PG_OK;
    if (*padding_idx < -rows || *padding_idx >= rows)
        return pg_fail("padding_idx must be within [%lld, %lld], got %lld", (long long)-rows, (long long)rows - 1,
                       (long long)*padding_idx);
    *padding = *padding_idx < 0 ? *padding_idx + rows : *padding_idx;
    return PG_OK;
}

static int embedding_backward(pg_backward *b) {
    const embedding_args *a = b->args;
    b->input[1] = x_embedding_backward(b->pool, b->grad[0], pg_saved(b, PG_IN(0)), a->rows, a->padding);
    return b->pool->status;
}
static const pg_rule embedding_rule = {.name = "embedding", .backward = embedding_backward, .uses = {0, PG_USE(PG_IN(0))}};

int op_embedding(pg_tensor *out, const pg_tensor *input, const pg_tensor *weight, const int64_t *padding_idx) {
    if (weight->impl->ndim != 2) return pg_fail("weight must be 2-dimensional, got shape %s", pg_text(weight));
    embedding_args args = {weight->impl->shape[0], -1};
    int status = check_ids(input);
    if (status >= 0) status = resolve_padding(&args.padding, padding_idx, args.rows);
    const int ndim = input->impl->ndim;
    if (status >= 0 && ndim + 1 > PG_DIMS_MAX) status = pg_fail("at most %d dimensions are supported", PG_DIMS_MAX);
    if (status < 0) return status;
    int64_t shape[PG_DIMS_MAX];
    for (int i = 0; i < ndim; i++) shape[i] = input->impl->shape[i];
    shape[ndim] = weight->impl->shape[1];
    pg_tensor ids = PG_HANDLE, table = PG_HANDLE;
    status = pg_dense_as(&ids, input, PG_INT64);
    if (status >= 0) status = pg_dense(&table, weight);
    if (status >= 0) status = pg_new(out, pg_device_of(weight), weight->impl->dtype, ndim + 1, shape);
    if (status >= 0 && ids.impl->numel > 0) {
        const pg_rows rows = {.outer = 1, .size = args.rows, .n_index = ids.impl->numel, .inner = shape[ndim], .index = pg_data(&ids)};
        status = PG_RUN(pg_device_of(weight), index_select, pg_size_of(weight->impl->dtype), &rows, pg_data(&table), pg_data(out));
        if (status < 0) pg_tensor_release(out);
    }
    if (status >= 0) status = pg_record1(&embedding_rule, out, &args, sizeof args, &ids, weight);
    pg_tensor_release(&ids);
    pg_tensor_release(&table);
    return status;
}

/* 1 for every row of the table but the padding row, where it is 0: (rows, 1). */
static const pg_tensor *all_but(pg_pool *p, const pg_tensor *like, const embedding_args *a) {
    pg_tensor *mask = pg_pool_new(p), row = PG_HANDLE;
    int status = p->status;
    if (status >= 0) status = pg_new(mask, pg_device_of(like), like->impl->dtype, 2, (const int64_t[]){a->rows, 1});
    if (status >= 0) status = pg_fill_value(mask, (pg_value){1, 1});
    if (status >= 0) status = pg_alias(&row, mask, 1, (const int64_t[]){1}, (const int64_t[]){1}, a->padding);
    if (status >= 0) status = pg_fill_value(&row, (pg_value){0, 0});
    pg_tensor_release(&row);
    pg_pool_note(p, status);
    return mask;
}
/* Its gradient is the fetch again, without the padding row. */
static int embedding_backward_backward(pg_backward *b) {
    const embedding_args *a = b->args;
    pg_pool *p = b->pool;
    const pg_tensor *rows = b->grad[0];
    if (a->padding >= 0 && a->padding < a->rows) rows = x_times(p, rows, all_but(p, rows, a));
    b->input[0] = x_embedding(p, pg_saved(b, PG_IN(1)), rows, NULL);
    return p->status;
}
static const pg_rule embedding_backward_rule = {.name = "embedding_backward", .backward = embedding_backward_backward,
                                                .uses = {PG_USE(PG_IN(1))}};

int op_embedding_backward(pg_tensor *out, const pg_tensor *grad, const pg_tensor *ids, int64_t num_weights, int64_t padding_idx) {
    int status = check_ids(ids);
    const int ndim = grad->impl->ndim;
    if (status >= 0 && (ndim != ids->impl->ndim + 1 || num_weights < 0))
        status = pg_fail("expected a gradient of one dimension more than ids, got %s and %s", pg_text(grad), pg_text(ids));
    for (int i = 0; i < ids->impl->ndim && status >= 0; i++)
        if (grad->impl->shape[i] != ids->impl->shape[i])
            status = pg_fail("a gradient of shape %s does not belong to ids of shape %s", pg_text(grad), pg_text(ids));
    if (status < 0) return status;
    const int64_t inner = grad->impl->shape[ndim - 1];
    const embedding_args args = {num_weights, padding_idx};
    pg_tensor index = PG_HANDLE, rows = PG_HANDLE;
    status = pg_dense_as(&index, ids, PG_INT64);
    if (status >= 0) status = pg_dense(&rows, grad);
    if (status >= 0) status = pg_new(out, pg_device_of(grad), grad->impl->dtype, 2, (const int64_t[]){num_weights, inner});
    if (status >= 0) status = pg_fill_value(out, (pg_value){0, 0});
    if (status >= 0 && rows.impl->numel > 0) {
        const pg_rows r = {.outer = 1, .size = num_weights, .n_index = index.impl->numel, .inner = inner, .index = pg_data(&index)};
        status = PG_RUN(pg_device_of(grad), index_add, grad->impl->dtype, &r, pg_data(&rows), 1.0, pg_data(out));
    }
    if (status >= 0 && padding_idx >= 0 && padding_idx < num_weights) {
        pg_tensor row = PG_HANDLE;
        status = pg_alias(&row, out, 1, &inner, (const int64_t[]){1}, out->impl->offset + padding_idx * inner);
        if (status >= 0) status = pg_fill_value(&row, (pg_value){0, 0});
        pg_tensor_release(&row);
    }
    if (status < 0) pg_tensor_release(out);
    else status = pg_record1(&embedding_backward_rule, out, &args, sizeof args, grad, &index);
    pg_tensor_release(&index);
    pg_tensor_release(&rows);
    return status;
}
