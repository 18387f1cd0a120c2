/* attention.c: scaled_dot_product_attention. */
#include <math.h>

#include "networks.h"

typedef struct attention_args {
    double scale, dropout_p;
    bool causal;
    pg_philox philox;
} attention_args;

enum { LSE = PG_OUT(1) };

/* q, k, v as the kernel sees them: (batch, heads, length, size), size dense. mask may be NULL. */
typedef struct operands { pg_tensor q, k, v, mask; } operands;

static void release(operands *o) {
    pg_tensor_release(&o->q);
    pg_tensor_release(&o->k);
    pg_tensor_release(&o->v);
    pg_tensor_release(&o->mask);
}

/* x with its last dimension dense: x itself or a copy. */
static int with_dense_rows(pg_tensor *out, const pg_tensor *x) {
    const pg_impl *t = x->impl;
    if (t->stride[3] == 1 || t->shape[3] <= 1) {
        pg_share(out, x);
        return PG_OK;
    }
    return pg_dense(out, x);
}

/* An empty tensor of shape (batch, heads, length, size) whose memory is (batch, length, heads, size): what comes before and after
 * attention wants the heads of one position beside each other. */
static int new_by_position(pg_tensor *out, const pg_tensor *like, const int64_t *shape) {
    pg_tensor dense = PG_HANDLE;
    int status = pg_new(&dense, pg_device_of(like), like->impl->dtype, 4, (const int64_t[]){shape[0], shape[2], shape[1], shape[3]});
    if (status >= 0) {
        const int64_t *s = dense.impl->stride;
        status = pg_alias(out, &dense, 4, shape, (const int64_t[]){s[0], s[2], s[1], s[3]}, 0);
    }
    pg_tensor_release(&dense);
    return status;
}

static void set3(int64_t *to, const pg_tensor *t) {
    for (int i = 0; i < 3; i++) to[i] = t->impl->stride[i];
}

static void describe(pg_attention *a, const operands *o, const attention_args *args) {
    const pg_impl *q = o->q.impl, *k = o->k.impl, *v = o->v.impl;
    *a = (pg_attention){.batch = q->shape[0], .heads = q->shape[1], .kv_heads = k->shape[1], .q_len = q->shape[2],
                        .k_len = k->shape[2], .size = q->shape[3], .v_size = v->shape[3], .causal = args->causal,
                        .scale = args->scale, .dropout_p = args->dropout_p, .philox = &args->philox};
    a->q = pg_data(&o->q);
    a->k = pg_data(&o->k);
    a->v = pg_data(&o->v);
    set3(a->q_stride, &o->q);
    set3(a->k_stride, &o->k);
    set3(a->v_stride, &o->v);
    if (o->mask.impl) {
        a->mask = pg_data(&o->mask);
        const int64_t shape[4] = {a->batch, a->heads, a->q_len, a->k_len};
        const pg_impl *m = o->mask.impl;
        for (int i = 0; i < 4; i++) {
            const int at = i - (4 - m->ndim);
            a->mask_stride[i] = at < 0 || (m->shape[at] == 1 && shape[i] != 1) ? 0 : m->stride[at];
        }
    }
}

/* ---- the rule ---- */

/* Inputs: q, k, v, mask (float, or absent). */
static int gather_saved(pg_backward *b, operands *o) {
    *o = (operands){PG_HANDLE, PG_HANDLE, PG_HANDLE, PG_HANDLE};
    const pg_tensor *q = pg_saved(b, PG_IN(0)), *k = pg_saved(b, PG_IN(1)), *v = pg_saved(b, PG_IN(2));
    const pg_tensor *mask = pg_input_meta(b, 3).dtype >= 0 ? pg_saved(b, PG_IN(3)) : NULL;
    int status = b->pool->status;
    if (status >= 0) status = with_dense_rows(&o->q, q);
    if (status >= 0) status = with_dense_rows(&o->k, k);
    if (status >= 0) status = with_dense_rows(&o->v, v);
    if (status >= 0 && mask) pg_share(&o->mask, mask);
    return status;
}

static int attention_fused(pg_backward *b) {
    pg_pool *p = b->pool;
    const attention_args *args = b->args;
    operands o;
    int status = gather_saved(b, &o);
    const pg_tensor *saved_out = pg_saved(b, PG_OUT(0)), *lse = pg_saved(b, LSE);
    pg_tensor *g = pg_pool_new(p), *grad[3] = {pg_pool_new(p), pg_pool_new(p), pg_pool_new(p)};
    if (status >= 0) status = p->status;
    if (status >= 0) status = with_dense_rows(g, b->grad[0]);
    const pg_tensor *inputs[3] = {&o.q, &o.k, &o.v};
    for (int i = 0; i < 3 && status >= 0; i++) status = new_by_position(grad[i], inputs[i], inputs[i]->impl->shape);
    if (status >= 0) {
        pg_attention a;
        describe(&a, &o, args);
        a.out = pg_data(saved_out);
        a.lse = pg_data(lse);
        a.grad_out = pg_data(g);
        a.grad_q = pg_data(grad[0]);
        a.grad_k = pg_data(grad[1]);
        a.grad_v = pg_data(grad[2]);
        set3(a.out_stride, saved_out);
        set3(a.grad_out_stride, g);
        set3(a.grad_q_stride, grad[0]);
        set3(a.grad_k_stride, grad[1]);
        set3(a.grad_v_stride, grad[2]);
        status = PG_RUN(pg_device_of(&o.q), attention_backward, o.q.impl->dtype, &a);
        for (int i = 0; i < 3; i++)
            if (b->needs[i]) b->input[i] = grad[i];
    }
    release(&o);
    return status;
}

/* k or v (batch, kv_heads, length, size), each head repeated for the heads of q that share it. */
static const pg_tensor *repeated(pg_pool *p, const pg_tensor *x, int64_t heads) {
    if (!x->impl || x->impl->shape[1] == heads) return x;
    const int64_t *s = x->impl->shape, share = heads / s[1];
    const int64_t wide[5] = {s[0], s[1], share, s[2], s[3]}, flat[4] = {s[0], heads, s[2], s[3]};
    return x_reshape(p, x_expand(p, x_unsqueeze(p, x, 2), wide, 5), flat, 4);
}
static const pg_tensor *shared_sum(pg_pool *p, const pg_tensor *grad, const pg_meta *m) {
    if (!grad->impl || grad->impl->shape[1] == m->shape[1]) return grad;
    const int64_t split[5] = {m->shape[0], m->shape[1], grad->impl->shape[1] / m->shape[1], m->shape[2], m->shape[3]};
    return x_sum(p, x_reshape(p, grad, split, 5), (const int64_t[]){2}, 1, false, -1);
}

/* -inf where query i may not see key j (j > i), 0 elsewhere: (rows, cols). */
static const pg_tensor *causal_mask(pg_pool *p, const pg_tensor *like, int64_t rows, int64_t cols) {
    pg_tensor *m = pg_pool_new(p), *upper = pg_pool_new(p);
    int status = p->status;
    if (status >= 0) status = pg_new(m, pg_device_of(like), like->impl->dtype, 2, (const int64_t[]){rows, cols});
    if (status >= 0) status = pg_fill_value(m, (pg_value){0, -INFINITY});
    if (status >= 0) status = pg_new_like(upper, m, m->impl->dtype);
    if (status >= 0 && m->impl->numel > 0)
        status = PG_RUN(pg_device_of(like), triangle, pg_size_of(m->impl->dtype), 1, rows, cols, 1, true, pg_data(m), pg_data(upper));
    pg_pool_note(p, status);
    return upper;
}
/* What dropout multiplied each weight by: (batch, heads, q_len, k_len). */
static const pg_tensor *dropout_factors(pg_pool *p, const pg_tensor *weights, const attention_args *a) {
    pg_tensor *ones = pg_pool_new(p), *factors = pg_pool_new(p), *mask = pg_pool_new(p);
    int status = p->status;
    if (status >= 0) status = pg_new_like(ones, weights, weights->impl->dtype);
    if (status >= 0) status = pg_fill_value(ones, (pg_value){1, 1});
    if (status >= 0) status = pg_new_like(factors, weights, weights->impl->dtype);
    if (status >= 0) status = pg_new_like(mask, weights, PG_BOOL);
    if (status >= 0 && ones->impl->numel > 0)
        status = PG_RUN(pg_device_of(weights), dropout, weights->impl->dtype, ones->impl->numel, a->dropout_p, &a->philox,
                        pg_data(ones), pg_data(factors), pg_data(mask));
    pg_pool_note(p, status);
    return factors;
}

/* softmax(scale q k^T + masks) from ops. A row that sees nothing is zero. */
static const pg_tensor *weights_of(pg_pool *p, const pg_tensor *q, const pg_tensor *k, const pg_tensor *mask, const attention_args *a) {
    const pg_tensor *scores = x_scaled(p, x_matmul(p, q, x_swapped(p, k)), a->scale);
    if (p->status < 0) return scores;
    if (a->causal) scores = x_plus(p, scores, causal_mask(p, scores, scores->impl->shape[2], scores->impl->shape[3]));
    if (mask) scores = x_plus(p, scores, mask);
    const pg_tensor *weights = x_softmax(p, scores, -1, -1);
    if (!mask) return weights;
    const pg_tensor *top = x_amax(p, scores, (const int64_t[]){-1}, 1, true);
    const pg_tensor *empty = x_equals(p, top, &(pg_number){PG_NUMBER_FLOAT, 0, -INFINITY});
    return x_masked_fill(p, weights, empty, NULL, &(pg_number){PG_NUMBER_FLOAT, 0, 0});
}

/* With P = softmax(s), M dropout's factors, W = P M, o = W v: dv = W^T g, dP = (g v^T) M, ds = P (dP - sum(dP P)), dq = scale ds k,
 * dk = scale ds^T q, dmask = ds. */
static int attention_backward(pg_backward *b) {
    pg_pool *p = b->pool;
    const attention_args *a = b->args;
    const pg_tensor *g = b->grad[0], *q = pg_saved(b, PG_IN(0));
    if (p->status < 0) return p->status;
    const int64_t heads = q->impl->shape[1];
    const pg_meta mk = pg_input_meta(b, 1), mv = pg_input_meta(b, 2);
    const pg_tensor *k = repeated(p, pg_saved(b, PG_IN(1)), heads), *v = repeated(p, pg_saved(b, PG_IN(2)), heads);
    const pg_tensor *mask = pg_input_meta(b, 3).dtype >= 0 ? pg_saved(b, PG_IN(3)) : NULL;
    const pg_tensor *weights = weights_of(p, q, k, mask, a), *dropped = weights, *factors = NULL;
    if (p->status < 0) return p->status;
    if (a->dropout_p > 0) {
        factors = dropout_factors(p, weights, a);
        dropped = x_times(p, weights, factors);
    }
    if (b->needs[2]) b->input[2] = shared_sum(p, x_matmul(p, x_swapped(p, dropped), g), &mv);
    if (!b->needs[0] && !b->needs[1] && !b->needs[3]) return p->status;
    const pg_tensor *d = x_matmul(p, g, x_swapped(p, v));
    if (factors) d = x_times(p, d, factors);
    d = x_times(p, weights, x_minus(p, d, x_sum_last(p, x_times(p, d, weights))));
    if (b->needs[3]) b->input[3] = d;
    if (b->needs[0]) b->input[0] = x_scaled(p, x_matmul(p, d, k), a->scale);
    if (b->needs[1]) b->input[1] = shared_sum(p, x_scaled(p, x_matmul(p, x_swapped(p, d), q), a->scale), &mk);
    return p->status;
}
static int attention_fused_or_not(pg_backward *b) {
    /* The kernel has no gradient for the mask. */
    return b->needs[3] ? attention_backward(b) : attention_fused(b);
}
#define ATTENTION_USES (PG_USE(PG_IN(0)) | PG_USE(PG_IN(1)) | PG_USE(PG_IN(2)) | PG_USE(PG_IN(3)) | PG_USE(PG_OUT(0)) | PG_USE(LSE))
static const pg_rule attention_rule = {.name = "scaled_dot_product_attention", .backward = attention_backward,
                                       .fused = attention_fused_or_not, .undefined_grads = true,
                                       .uses = {ATTENTION_USES, ATTENTION_USES, ATTENTION_USES, ATTENTION_USES}};

/* q, k, v (batch, heads, length, size), floating and of one dtype; mask float or NULL. */
static int run(pg_tensor *out, const pg_tensor *q, const pg_tensor *k, const pg_tensor *v, const pg_tensor *mask,
               const attention_args *args) {
    operands o = {PG_HANDLE, PG_HANDLE, PG_HANDLE, PG_HANDLE};
    pg_tensor lse = PG_HANDLE;
    const int64_t shape[4] = {q->impl->shape[0], q->impl->shape[1], q->impl->shape[2], v->impl->shape[3]};
    const bool keeps = pg_will_record(4, (const pg_tensor *[]){q, k, v, mask});
    int status = with_dense_rows(&o.q, q);
    if (status >= 0) status = with_dense_rows(&o.k, k);
    if (status >= 0) status = with_dense_rows(&o.v, v);
    if (status >= 0 && mask) pg_share(&o.mask, mask);
    if (status >= 0) status = new_by_position(out, q, shape);
    if (status >= 0 && keeps) status = pg_new(&lse, pg_device_of(q), pg_accumulate_dtype(q->impl->dtype), 3, shape);
    if (status >= 0) {
        pg_attention a;
        describe(&a, &o, args);
        a.out = pg_data(out);
        set3(a.out_stride, out);
        if (keeps) a.lse = pg_data(&lse);
        status = PG_RUN(pg_device_of(q), attention, q->impl->dtype, &a);
    }
    if (status < 0) pg_tensor_release(out);
    else if (keeps)
        status = pg_record(&attention_rule, 2, (pg_tensor *[]){out, &lse}, 4, (const pg_tensor *[]){q, k, v, mask}, args,
                           sizeof *args);
    pg_tensor_release(&lse);
    release(&o);
    return status;
}

/* ---- checks and shapes ---- */

static int check_shapes(const pg_tensor *q, const pg_tensor *k, const pg_tensor *v, bool gqa) {
    const pg_tensor *all[3] = {q, k, v};
    static const char *const names[3] = {"query", "key", "value"};
    for (int i = 0; i < 3; i++) {
        if (all[i]->impl->ndim < 2) return pg_fail("%s needs at least 2 dimensions, got shape %s", names[i], pg_text(all[i]));
        if (!pg_is_float(all[i]->impl->dtype))
            return pg_fail("expected a floating %s, got %s", names[i], pg_dtype_name(all[i]->impl->dtype));
        if (all[i]->impl->dtype != q->impl->dtype)
            return pg_fail("expected query, key and value of one dtype, got %s, %s and %s", pg_dtype_name(q->impl->dtype),
                           pg_dtype_name(k->impl->dtype), pg_dtype_name(v->impl->dtype));
        if (all[i]->impl->ndim != q->impl->ndim)
            return pg_fail("expected query, key and value with as many dimensions, got %s, %s and %s", pg_text(q), pg_text(k), pg_text(v));
    }
    const int n = q->impl->ndim;
    const int64_t *a = q->impl->shape, *b = k->impl->shape, *c = v->impl->shape;
    if (a[n - 1] != b[n - 1]) return pg_fail("the last sizes of query and key differ: %s and %s", pg_text(q), pg_text(k));
    if (b[n - 2] != c[n - 2]) return pg_fail("key and value differ in length: %s and %s", pg_text(k), pg_text(v));
    if (gqa && n < 3) return pg_fail("enable_gqa needs a dimension of heads, got query of shape %s", pg_text(q));
    if (gqa && (b[n - 3] != c[n - 3] || b[n - 3] == 0 || a[n - 3] % b[n - 3] != 0))
        return pg_fail("enable_gqa: the heads of key and value must be equal and divide those of query: %s, %s and %s", pg_text(q),
                       pg_text(k), pg_text(v));
    return PG_OK;
}

/* (..., heads, length, size) as (batch, heads, length, size). */
static const pg_tensor *four(pg_pool *p, const pg_tensor *x) {
    if (!x->impl || x->impl->ndim == 4) return x;
    const int n = x->impl->ndim;
    const int64_t *s = x->impl->shape;
    const int64_t shape[4] = {n > 3 ? pg_product(s, n - 3) : 1, n > 2 ? s[n - 3] : 1, s[n - 2], s[n - 1]};
    return x_reshape(p, x, shape, 4);
}

/* The mask as floats to be added: true is 0, false is -inf. */
static const pg_tensor *float_mask(pg_pool *p, const pg_tensor *mask, int dtype) {
    pg_tensor *out = pg_pool_new(p);
    if (p->status < 0) return out;
    if (mask->impl->dtype != PG_BOOL) {
        pg_pool_note(p, pg_to_dtype(out, mask, dtype));
        return out;
    }
    const pg_number zero = {PG_NUMBER_FLOAT, 0, 0}, low = {PG_NUMBER_FLOAT, 0, -INFINITY};
    const pg_operand operands[] = {{mask, NULL}, {NULL, &zero}, {NULL, &low}};
    pg_pool_note(p, pg_pointwise(out, PG_K_WHERE, dtype, dtype, 3, operands, 0, NULL));
    return out;
}

int op_scaled_dot_product_attention(pg_tensor *out, const pg_tensor *query, const pg_tensor *key, const pg_tensor *value,
                                    const pg_tensor *attn_mask, double dropout_p, bool is_causal, const double *scale,
                                    bool enable_gqa) {
    int status = check_shapes(query, key, value, enable_gqa);
    if (status < 0) return status;
    if (!(dropout_p >= 0 && dropout_p <= 1)) return pg_fail("dropout_p must be between 0 and 1, got %g", dropout_p);
    if (attn_mask && is_causal) return pg_fail("attn_mask and is_causal cannot be given together");
    if (attn_mask && attn_mask->impl->dtype != PG_BOOL && !pg_is_float(attn_mask->impl->dtype))
        return pg_fail("expected attn_mask of dtype bool or floating, got %s", pg_dtype_name(attn_mask->impl->dtype));
    pg_pool pool, *p = &pool;
    pg_pool_begin(p);
    const int n = query->impl->ndim, dtype = query->impl->dtype;
    /* Batch sizes are broadcast; with enable_gqa heads are not. */
    const pg_tensor *in[3] = {query, key, value};
    int64_t lead[PG_DIMS_MAX];
    int lead_n = n - (enable_gqa ? 3 : 2);
    for (int i = 0; i < lead_n; i++) lead[i] = query->impl->shape[i];
    for (int i = 1; i < 3 && status >= 0; i++) status = pg_broadcast(lead, &lead_n, in[i]->impl->shape, lead_n);
    for (int i = 0; i < 3 && status >= 0; i++) {
        bool same = true;
        int64_t full[PG_DIMS_MAX];
        for (int d = 0; d < n; d++) {
            full[d] = d < lead_n ? lead[d] : in[i]->impl->shape[d];
            same = same && full[d] == in[i]->impl->shape[d];
        }
        if (!same) in[i] = x_expand(p, in[i], full, n);
    }
    pg_pool_note(p, status);
    int64_t result[PG_DIMS_MAX];
    if (p->status >= 0) {
        for (int d = 0; d < n; d++) result[d] = in[0]->impl->shape[d];
        result[n - 1] = value->impl->shape[n - 1];
    }
    const pg_tensor *mask = NULL;
    /* The CPU's kernel knows no halves; other devices' take them as they are. */
    const int work = pg_device_of(query)->host ? pg_accumulate_dtype(dtype) : dtype;
    if (attn_mask && p->status >= 0) {
        int64_t scores[PG_DIMS_MAX];
        for (int d = 0; d < n; d++) scores[d] = result[d];
        scores[n - 1] = key->impl->shape[n - 2];
        int scores_n = n;
        status = attn_mask->impl->ndim > n ? -1 : pg_broadcast(scores, &scores_n, attn_mask->impl->shape, attn_mask->impl->ndim);
        bool same = status >= 0;
        for (int d = 0; d < n && same; d++) same = scores[d] == (d == n - 1 ? key->impl->shape[n - 2] : result[d]);
        if (!same) {
            scores[n - 1] = key->impl->shape[n - 2];
            for (int d = 0; d < n - 1; d++) scores[d] = result[d];
            pg_pool_note(p, pg_fail("attn_mask of shape %s does not broadcast to %s", pg_text(attn_mask),
                                    pg_shape_text((char[PG_TEXT]){0}, scores, n)));
        }
        mask = float_mask(p, attn_mask, work);
        if (p->status >= 0 && n != 4) {
            /* the same dimensions merged as in query */
            if (n > 4) mask = x_expand(p, mask, scores, n);
            else if (mask->impl->ndim == n && n == 3) mask = x_unsqueeze(p, mask, 0);
            if (n > 4) mask = four(p, mask);
        }
    }
    for (int i = 0; i < 3; i++) {
        in[i] = p->status < 0 ? in[i] : four(p, in[i]);
        if (p->status >= 0 && work != dtype) {
            pg_tensor *wide = pg_pool_new(p);
            pg_pool_note(p, pg_to_dtype(wide, in[i], work));
            in[i] = wide;
        }
    }
    const pg_tensor *y = NULL;
    if (p->status >= 0) {
        const int64_t size = query->impl->shape[n - 1];
        attention_args args = {.scale = scale ? *scale : size > 0 ? 1 / sqrt((double)size) : 1, .dropout_p = dropout_p,
                               .causal = is_causal};
        if (dropout_p > 0) {
            const uint64_t weights = (uint64_t)(pg_product(in[0]->impl->shape, 3) * in[1]->impl->shape[2]);
            args.philox = pg_random_draw(pg_device_of(query), (weights + 3) / 4);
        }
        pg_tensor *made = pg_pool_new(p);
        if (p->status >= 0) pg_pool_note(p, run(made, in[0], in[1], in[2], mask, &args));
        y = made;
        if (p->status >= 0 && n != 4) y = x_reshape(p, y, result, n);
        if (p->status >= 0 && work != dtype) {
            pg_tensor *narrow = pg_pool_new(p);
            pg_pool_note(p, pg_to_dtype(narrow, y, dtype));
            y = narrow;
        }
    }
    return pg_pool_return(p, out, y);
}
