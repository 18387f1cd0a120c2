/* loss.c: losses. cross_entropy is fused from logits and linear_cross_entropy from what they are made of; the others are composed of
 * ops, which give their gradients. */
#include <math.h>

#include "networks.h"

pg_tensor *pg_reduced(pg_pool *p, const pg_tensor *loss, int reduction) {
    if (p->status < 0 || reduction == PG_REDUCTION_NONE) return (pg_tensor *)(uintptr_t)loss;
    pg_tensor *sum = x_sum(p, loss, NULL, 0, false, -1);
    /* an empty mean is 0 / 0, as PyTorch's */
    return reduction == PG_REDUCTION_SUM ? sum : x_scaled(p, sum, loss->impl->numel > 0 ? 1 / (double)loss->impl->numel : NAN);
}

/* ---- cross_entropy ---- */

typedef struct ce_args { int64_t ignore_index; double label_smoothing; int32_t reduction, ids; } ce_args;

enum { CE_LSE = PG_OUT(1), CE_TOTAL = PG_OUT(2) };

/* Logits as rows, the classes last: `dim` is where they were. */
static int class_dim(int ndim) { return ndim == 1 ? 0 : 1; }
/* How many there are, of no class too. */
static int64_t count_rows(const pg_impl *x) {
    int64_t n = 1;
    for (int i = 0; i < x->ndim; i++) n *= i == class_dim(x->ndim) ? 1 : x->shape[i];
    return n;
}

/* The kernel's description; tensors it points into stay in the pool. */
static int describe(pg_pool *p, pg_classifier *c, pg_tensor **rows, const pg_tensor *input, const pg_tensor *target,
                    const pg_tensor *weight, const ce_args *a) {
    const int ndim = input->impl->ndim, dim = class_dim(ndim), dtype = input->impl->dtype;
    pg_tensor *x = *rows = pg_pool_new(p), *t = pg_pool_new(p), *w = pg_pool_new(p);
    int status = p->status;
    *c = (pg_classifier){.classes = input->impl->shape[dim], .ignore_index = a->ignore_index, .label_smoothing = a->label_smoothing};
    c->rows = count_rows(input->impl);
    /* Rows of a matrix may lie apart. */
    const bool direct = ndim == 2 && input->impl->stride[1] == 1 && input->impl->stride[0] >= c->classes;
    if (status >= 0 && direct) pg_share(x, input);
    else if (status >= 0) status = pg_rows_of(x, input, dim, dtype);
    c->row_stride = direct ? input->impl->stride[0] : c->classes;
    if (status >= 0) status = a->ids ? pg_dense_as(t, target, PG_INT64) : pg_rows_of(t, target, dim, dtype);
    if (status >= 0 && weight) status = pg_dense_as(w, weight, pg_accumulate_dtype(dtype));
    if (status < 0) return status;
    c->logits = pg_data(x);
    if (a->ids) c->target = pg_data(t);
    else c->probabilities = pg_data(t);
    if (weight) c->weight = pg_data(w);
    return PG_OK;
}

/* Class ids where the shapes say so; an error where neither form fits. */
static int check_target(ce_args *a, const pg_tensor *input, const pg_tensor *target) {
    const pg_impl *x = input->impl, *t = target->impl;
    const int dim = class_dim(x->ndim);
    if (x->ndim == 0) return pg_fail("input needs at least one dimension, that of the classes");
    if (!pg_is_float(x->dtype)) return pg_fail("expected a floating input, got %s", pg_dtype_name(x->dtype));
    int64_t want[PG_DIMS_MAX];
    int n = 0;
    for (int i = 0; i < x->ndim; i++)
        if (i != dim) want[n++] = x->shape[i];
    bool ids = t->ndim == n;
    for (int i = 0; i < n && ids; i++) ids = t->shape[i] == want[i];
    if (pg_same_shape(input, target) && pg_is_float(t->dtype)) {
        a->ids = false;
        if (t->dtype != x->dtype)
            return pg_fail("expected probabilities of the dtype of input, %s, got %s", pg_dtype_name(x->dtype), pg_dtype_name(t->dtype));
        return PG_OK;
    }
    if (!ids)
        return pg_fail("for input of shape %s expected target of shape %s (class ids) or %s (probabilities), got %s", pg_text(input),
                       pg_shape_text((char[PG_TEXT]){0}, want, n), pg_text(input), pg_text(target));
    if (!pg_is_integer(t->dtype)) return pg_fail("expected class ids of dtype int64, got %s", pg_dtype_name(t->dtype));
    a->ids = true;
    return PG_OK;
}
static int check_weight(const pg_tensor *weight, const pg_tensor *input, int64_t classes) {
    if (!weight || (weight->impl->ndim == 1 && weight->impl->shape[0] == classes)) return PG_OK;
    return pg_fail("expected weight of shape [%lld] for input of shape %s, got %s", (long long)classes, pg_text(input), pg_text(weight));
}

/* A loss of each row in the shape of the target's ids. */
static int shaped(pg_tensor *out, const pg_tensor *rows, const pg_tensor *input, const pg_tensor *dtype_of) {
    const pg_impl *x = input->impl;
    const int dim = class_dim(x->ndim);
    int64_t shape[PG_DIMS_MAX], stride[PG_DIMS_MAX];
    int n = 0;
    for (int i = 0; i < x->ndim; i++)
        if (i != dim) shape[n++] = x->shape[i];
    pg_dense_strides(stride, shape, n);
    pg_tensor view = PG_HANDLE;
    int status = pg_alias(&view, rows, n, shape, stride, rows->impl->offset);
    if (status >= 0) status = pg_converted(out, &view, dtype_of->impl->dtype);
    pg_tensor_release(&view);
    return status;
}

/* Gradients for the rows' losses: (rows) or one for all, before their dtype. saved_total: what the mean of class ids divided by. */
static const pg_tensor *row_grads(pg_backward *b, const ce_args *a, int64_t rows, int saved_total) {
    pg_pool *p = b->pool;
    const pg_tensor *g = b->grad[0];
    if (a->reduction == PG_REDUCTION_NONE) return x_reshape(p, g, &rows, 1);
    if (a->reduction == PG_REDUCTION_SUM) return g;
    if (!a->ids) return x_scaled(p, g, rows > 0 ? 1 / (double)rows : NAN);
    pg_tensor *total = pg_pool_new(p);
    const pg_tensor *saved = pg_saved(b, saved_total);
    if (p->status >= 0) pg_pool_note(p, pg_alias_same(total, saved));   /* of the targets alone: a constant */
    return x_div(p, g, total, NULL, -1);
}

/* Minus the target's mass (kernels/cpu/loss.c), a constant (rows, classes): the kernel's gradient where softmax is 0 (lse +inf) and
 * the row's is 1. */
static pg_tensor *ids_mass(pg_pool *p, const pg_tensor *input, const pg_tensor *target, const pg_tensor *weight, const ce_args *a) {
    pg_classifier c;
    pg_tensor *rows_of, *lse = pg_pool_new(p), *one = pg_pool_new(p), *mass = pg_pool_new(p);
    if (p->status < 0) return mass;
    const pg_device *device = pg_device_of(input);
    const int dtype = input->impl->dtype, wide = pg_accumulate_dtype(dtype);
    int status = describe(p, &c, &rows_of, input, target, weight, a);
    if (status >= 0) status = pg_new(lse, device, wide, 1, &c.rows);
    if (status >= 0) status = pg_fill_value(lse, (pg_value){0, INFINITY});
    if (status >= 0) status = pg_new_scalar(one, device, wide, 1);
    if (status >= 0) status = pg_new(mass, device, dtype, 2, (const int64_t[]){c.rows, c.classes});
    if (status >= 0 && mass->impl->numel > 0)
        status = PG_RUN(device, cross_entropy_backward, dtype, &c, pg_data(lse), pg_data(one), 0, pg_data(mass), c.classes);
    pg_pool_note(p, status);
    return mass;
}

/* With q the target's mass and y = log_softmax(x): dx = g (exp(y) sum(q) - q); for probabilities dt = -g w (1 - smoothing) y. */
static int ce_backward(pg_backward *b) {
    const ce_args *a = b->args;
    pg_pool *p = b->pool;
    const pg_tensor *input = pg_saved(b, PG_IN(0)), *target = pg_saved(b, PG_IN(1));
    const pg_tensor *weight = pg_input_meta(b, 2).dtype >= 0 ? pg_saved(b, PG_IN(2)) : NULL;
    if (p->status < 0) return p->status;
    const int ndim = input->impl->ndim, dim = class_dim(ndim);
    const int64_t classes = input->impl->shape[dim], rows = count_rows(input->impl);
    const int64_t flat[2] = {rows, classes};
    const pg_tensor *last = dim == ndim - 1 ? input : x_movedim(p, input, (const int64_t[]){dim}, 1, (const int64_t[]){-1}, 1);
    if (p->status < 0) return p->status;
    int64_t turned[PG_DIMS_MAX];
    for (int i = 0; i < ndim; i++) turned[i] = last->impl->shape[i];
    const pg_tensor *y = x_log_softmax(p, x_reshape(p, last, flat, 2), -1, -1);
    const pg_tensor *g = row_grads(b, a, rows, CE_TOTAL), *q = NULL, *factor = NULL;
    if (p->status < 0) return p->status;
    if (a->reduction == PG_REDUCTION_NONE) g = x_unsqueeze(p, g, 1);
    if (a->ids) {
        q = x_scaled(p, ids_mass(p, input, target, weight, a), -1);
    } else {
        const pg_tensor *t = dim == ndim - 1 ? target : x_movedim(p, target, (const int64_t[]){dim}, 1, (const int64_t[]){-1}, 1);
        q = x_reshape(p, t, flat, 2);
        if (a->label_smoothing != 0)
            q = x_shifted(p, x_scaled(p, q, 1 - a->label_smoothing), a->label_smoothing / (double)(classes > 0 ? classes : 1));
        if (weight) q = x_times(p, q, weight);
    }
    const pg_tensor *d[2] = {NULL, NULL};
    if (b->needs[0]) d[0] = x_times(p, g, x_minus(p, x_times(p, x_exp(p, y), x_sum_last(p, q)), q));
    if (b->needs[1] && !a->ids) {
        factor = x_scaled(p, y, a->label_smoothing - 1);
        if (weight) factor = x_times(p, factor, weight);
        d[1] = x_times(p, g, factor);
    }
    for (int k = 0; k < 2; k++) {
        if (!d[k]) continue;
        d[k] = x_reshape(p, d[k], turned, ndim);
        b->input[k] = dim == ndim - 1 ? d[k] : x_movedim(p, d[k], (const int64_t[]){-1}, 1, (const int64_t[]){dim}, 1);
    }
    return p->status;
}
static int ce_fused(pg_backward *b) {
    const ce_args *a = b->args;
    pg_pool *p = b->pool;
    if (b->needs[1]) return ce_backward(b);
    const pg_tensor *input = pg_saved(b, PG_IN(0)), *target = pg_saved(b, PG_IN(1)), *lse = pg_saved(b, CE_LSE);
    const pg_tensor *weight = pg_input_meta(b, 2).dtype >= 0 ? pg_saved(b, PG_IN(2)) : NULL;
    if (p->status < 0) return p->status;
    pg_classifier c;
    pg_tensor *rows, *grad = pg_pool_new(p), *d = pg_pool_new(p), *result = pg_pool_new(p);
    int status = describe(p, &c, &rows, input, target, weight, a);
    if (status < 0) return status;
    const pg_tensor *g = row_grads(b, a, c.rows, CE_TOTAL);
    if (p->status < 0) return p->status;
    const int ndim = input->impl->ndim, dim = class_dim(ndim), dtype = input->impl->dtype;
    int64_t shape[PG_DIMS_MAX];
    int n = 0;
    for (int i = 0; i < ndim; i++)
        if (i != dim) shape[n++] = input->impl->shape[i];
    shape[n] = c.classes;
    status = pg_dense_as(grad, g, pg_accumulate_dtype(dtype));
    if (status >= 0) status = pg_new(d, pg_device_of(input), dtype, ndim, shape);
    if (status >= 0 && d->impl->numel > 0)
        status = PG_RUN(pg_device_of(input), cross_entropy_backward, dtype, &c, pg_data(lse), pg_data(grad),
                        a->reduction == PG_REDUCTION_NONE, pg_data(d), c.classes);
    if (status >= 0) status = pg_rows_back(result, d, ndim, dim);
    b->input[0] = result;
    return status;
}
#define CE_USES (PG_USE(PG_IN(0)) | PG_USE(PG_IN(1)) | PG_USE(PG_IN(2)) | PG_USE(CE_LSE) | PG_USE(CE_TOTAL))
static const pg_rule ce_rule = {.name = "cross_entropy", .backward = ce_backward, .fused = ce_fused, .undefined_grads = true,
                                .uses = {CE_USES, CE_USES}};

/* The reduced loss, of `dtype`, from the rows' (float32 for halves): out takes it, total what the mean of class ids divided by. */
static pg_tensor *reduced_rows(pg_pool *p, const pg_classifier *c, const ce_args *a, const pg_tensor *loss, const pg_tensor *weights,
                               pg_tensor **total, int dtype) {
    pg_tensor *made = pg_pool_new(p), *sum = x_sum(p, loss, NULL, 0, false, -1);
    if (a->reduction == PG_REDUCTION_MEAN && a->ids) {
        *total = x_sum(p, weights, NULL, 0, false, -1);
        sum = x_div(p, sum, *total, NULL, -1);
    } else if (a->reduction == PG_REDUCTION_MEAN) {
        sum = x_scaled(p, sum, c->rows > 0 ? 1 / (double)c->rows : NAN);
    }
    if (p->status >= 0) pg_pool_note(p, pg_converted(made, sum, dtype));
    return made;
}

static int check_options(const pg_tensor *weight, double label_smoothing) {
    if (!(label_smoothing >= 0 && label_smoothing <= 1))
        return pg_fail("label_smoothing must be between 0 and 1, got %g", label_smoothing);
    if (weight && pg_requires(weight) && pg_grad_enabled()) return pg_fail("weight has no gradient: detach it");
    return PG_OK;
}

int op_cross_entropy(pg_tensor *out, const pg_tensor *input, const pg_tensor *target, const pg_tensor *weight,
                     int64_t ignore_index, int reduction, double label_smoothing) {
    ce_args a = {.ignore_index = ignore_index, .label_smoothing = label_smoothing, .reduction = reduction};
    int status = check_target(&a, input, target);
    if (status < 0) return status;
    const int dim = class_dim(input->impl->ndim);
    status = check_weight(weight, input, input->impl->shape[dim]);
    if (status >= 0) status = check_options(weight, label_smoothing);
    if (status < 0) return status;
    const pg_device *device = pg_device_of(input);
    const int wide = pg_accumulate_dtype(input->impl->dtype);
    pg_pool pool, *p = &pool;
    pg_pool_begin(p);
    pg_classifier c;
    pg_tensor *rows, *loss = pg_pool_new(p), *lse = pg_pool_new(p), *weights = pg_pool_new(p), *made = pg_pool_new(p), *total = NULL;
    bool before = pg_grad_set(false);
    status = describe(p, &c, &rows, input, target, weight, &a);
    if (status >= 0) status = pg_new(loss, device, wide, 1, &c.rows);
    if (status >= 0) status = pg_new(lse, device, wide, 1, &c.rows);
    if (status >= 0) status = pg_new(weights, device, wide, 1, &c.rows);
    if (status >= 0 && c.rows > 0)
        status = PG_RUN(device, cross_entropy, input->impl->dtype, &c, pg_data(loss), pg_data(lse), pg_data(weights));
    pg_pool_note(p, status);
    if (p->status >= 0 && reduction == PG_REDUCTION_NONE) pg_pool_note(p, shaped(made, loss, input, input));
    else if (p->status >= 0) made = reduced_rows(p, &c, &a, loss, weights, &total, input->impl->dtype);
    pg_grad_set(before);
    if (p->status >= 0)
        pg_pool_note(p, pg_record(&ce_rule, total ? 3 : 2, (pg_tensor *[]){made, lse, total}, 3,
                                  (const pg_tensor *[]){input, target, weight}, &a, sizeof a));
    return pg_pool_return(p, out, made);
}

/* ---- linear_cross_entropy ----
 *
 * The logits are the op's own: a padded matrix (N, C), which the gradient takes over where no later run can ask for them. */

enum { LCE_LSE = PG_OUT(1), LCE_LOGITS = PG_OUT(2), LCE_TOTAL = PG_OUT(3) };

static const pg_tensor *as_rows(pg_pool *p, const pg_tensor *x) { return x->impl && x->impl->ndim == 1 ? x_unsqueeze(p, x, 0) : x; }

/* The gradients of what the logits (N, C) were made of, from theirs. products: of the tape's ops, or not recorded. */
static int through_linear(pg_backward *b, const pg_tensor *d, bool recorded) {
    pg_pool *p = b->pool;
    if (b->needs[0]) {
        const pg_tensor *w = pg_saved(b, PG_IN(1));
        const pg_tensor *dx = recorded ? x_matmul(p, d, w) : pg_product_in(p, d, false, w, false);
        b->input[0] = pg_input_meta(b, 0).ndim == 1 ? x_squeeze(p, dx, (const int64_t[]){0}, 1) : dx;
    }
    if (b->needs[1]) {
        const pg_tensor *x = as_rows(p, pg_saved(b, PG_IN(0)));
        b->input[1] = recorded ? x_matmul(p, x_swapped(p, d), x) : pg_product_in(p, d, true, x, false);
    }
    if (b->needs[3]) b->input[3] = x_sum(p, d, (const int64_t[]){0}, 1, false, -1);
    return p->status;
}

static const pg_tensor *saved_or_none(pg_backward *b, int k) {
    return pg_input_meta(b, k).dtype >= 0 ? pg_saved(b, PG_IN(k)) : NULL;
}

/* The logits again, with their history: those that were saved have this node for it. */
static int lce_backward(pg_backward *b) {
    const ce_args *a = b->args;
    pg_pool *p = b->pool;
    const pg_tensor *input = as_rows(p, pg_saved(b, PG_IN(0))), *target = pg_saved(b, PG_IN(2));
    const pg_tensor *linear_bias = saved_or_none(b, 3), *weight = saved_or_none(b, 4);
    const pg_tensor *logits = x_linear(p, input, pg_saved(b, PG_IN(1)), linear_bias, -1);
    if (p->status < 0) return p->status;
    const int dtype = logits->impl->dtype;
    const pg_tensor *y = x_log_softmax(p, logits, -1, pg_accumulate_dtype(dtype));
    const pg_tensor *q = x_scaled(p, ids_mass(p, logits, target, weight, a), -1), *g = row_grads(b, a, logits->impl->shape[0], LCE_TOTAL);
    if (a->reduction == PG_REDUCTION_NONE) g = x_unsqueeze(p, g, 1);
    const pg_tensor *d = x_times(p, g, x_minus(p, x_times(p, x_exp(p, y), x_sum_last(p, q)), q));
    pg_tensor *same = pg_pool_new(p);
    if (p->status >= 0) pg_pool_note(p, pg_to_dtype(same, d, dtype));
    return p->status < 0 ? p->status : through_linear(b, same, true);
}

static int lce_fused(pg_backward *b) {
    const ce_args *a = b->args;
    pg_pool *p = b->pool;
    const pg_tensor *target = pg_saved(b, PG_IN(2)), *lse = pg_saved(b, LCE_LSE), *weight = saved_or_none(b, 4);
    const pg_tensor *g = p->status < 0 ? NULL : row_grads(b, a, lse->impl->numel, LCE_TOTAL);
    pg_tensor *grad = pg_pool_new(p), *d = pg_saved_last(b, LCE_LOGITS);
    const pg_tensor *logits = d ? d : pg_saved(b, LCE_LOGITS);
    if (p->status < 0) return p->status;
    const pg_device *device = pg_device_of(logits);
    const int dtype = logits->impl->dtype;
    pg_classifier c;
    pg_tensor *rows;
    int status = describe(p, &c, &rows, logits, target, weight, a);
    if (status >= 0) status = pg_dense_as(grad, g, pg_accumulate_dtype(dtype));
    if (!d) {
        d = pg_pool_new(p);
        if (status >= 0) status = pg_new_padded(d, device, dtype, c.rows, c.classes);
    }
    if (status >= 0 && d->impl->numel > 0)
        status = PG_RUN(device, cross_entropy_backward, dtype, &c, pg_data(lse), pg_data(grad), a->reduction == PG_REDUCTION_NONE,
                        pg_data(d), d->impl->stride[0]);
    return status < 0 ? status : through_linear(b, d, false);
}
#define LCE_USES (PG_USE(PG_IN(0)) | PG_USE(PG_IN(1)) | PG_USE(PG_IN(2)) | PG_USE(PG_IN(3)) | PG_USE(PG_IN(4)) | PG_USE(LCE_LSE) | \
                  PG_USE(LCE_LOGITS) | PG_USE(LCE_TOTAL))
static const pg_rule lce_rule = {.name = "linear_cross_entropy", .backward = lce_backward, .fused = lce_fused,
                                 .undefined_grads = true, .uses = {LCE_USES, LCE_USES, 0, LCE_USES}};

/* The composition that the op stands for, for what the fused form has not: probabilities, and losses of K dimensions. */
static int composed(pg_tensor *out, const pg_tensor *input, const pg_tensor *linear_weight, const pg_tensor *target,
                    const pg_tensor *linear_bias, const pg_tensor *weight, const ce_args *a, const int64_t *shape, int ndim, int dtype) {
    pg_pool pool, *p = &pool;
    pg_pool_begin(p);
    const pg_impl *w = linear_weight->impl;
    const int64_t classes = pg_product(w->shape, w->ndim - 1), flat[2] = {classes, w->shape[w->ndim - 1]};
    const pg_tensor *matrix = w->ndim == 2 ? linear_weight : x_reshape(p, linear_weight, flat, 2);
    const pg_tensor *bias = linear_bias && linear_bias->impl->ndim > 1 ? x_reshape(p, linear_bias, &classes, 1) : linear_bias;
    const pg_tensor *logits = x_reshape(p, x_linear(p, input, matrix, bias, -1), shape, ndim);
    pg_tensor *x = pg_pool_new(p), *t = pg_pool_new(p), *made = pg_pool_new(p);
    if (p->status >= 0) pg_pool_note(p, pg_to_dtype(x, logits, dtype));
    if (p->status >= 0 && pg_is_float(target->impl->dtype)) pg_pool_note(p, pg_to_dtype(t, target, dtype));
    if (p->status >= 0)
        pg_pool_note(p, op_cross_entropy(made, x, t->impl ? t : target, weight, a->ignore_index, a->reduction, a->label_smoothing));
    return pg_pool_return(p, out, made);
}

static int check_linear(const pg_tensor *input, const pg_tensor *linear_weight, const pg_tensor *linear_bias) {
    const pg_impl *x = input->impl, *w = linear_weight->impl, *b = linear_bias ? linear_bias->impl : NULL;
    if (x->ndim < 1 || x->ndim > 2)
        return pg_fail("expected input of shape [in_features] or [N, in_features], got %s: flatten the dimensions before the last",
                       pg_text(input));
    if (w->ndim < 2) return pg_fail("expected linear_weight of shape [C, in_features], got %s", pg_text(linear_weight));
    if (w->shape[w->ndim - 1] != x->shape[x->ndim - 1])
        return pg_fail("input of shape %s does not fit linear_weight of shape %s: expected a last dimension of %lld", pg_text(input),
                       pg_text(linear_weight), (long long)w->shape[w->ndim - 1]);
    if (w->shape[0] < 1) return pg_fail("expected a linear_weight of at least one class, got shape %s", pg_text(linear_weight));
    if (w->ndim > 2 && x->ndim == 1)
        return pg_fail("a linear_weight of shape %s needs a batched input, [N, in_features], got %s", pg_text(linear_weight),
                       pg_text(input));
    bool fits = !b || b->ndim == w->ndim - 1;
    for (int i = 0; b && i < b->ndim && fits; i++) fits = b->shape[i] == w->shape[i];
    if (!fits)
        return pg_fail("expected linear_bias of shape %s for linear_weight of shape %s, got %s",
                       pg_shape_text((char[PG_TEXT]){0}, w->shape, w->ndim - 1), pg_text(linear_weight), pg_text(linear_bias));
    if (!pg_is_float(x->dtype)) return pg_fail("expected a floating input, got %s", pg_dtype_name(x->dtype));
    if (w->dtype != x->dtype || (b && b->dtype != x->dtype))
        return pg_fail("expected linear_weight and linear_bias of the dtype of input, %s, got %s", pg_dtype_name(x->dtype),
                       pg_dtype_name(w->dtype != x->dtype ? w->dtype : b->dtype));
    return PG_OK;
}

int op_linear_cross_entropy(pg_tensor *out, const pg_tensor *input, const pg_tensor *linear_weight, const pg_tensor *target,
                            const pg_tensor *linear_bias, const pg_tensor *weight, int reduction, const int64_t *ignore_index,
                            double label_smoothing, int dtype) {
    int status = check_linear(input, linear_weight, linear_bias);
    if (status < 0) return status;
    const pg_impl *w = linear_weight->impl, *t = target->impl;
    const int batched = input->impl->ndim - 1, ndim = batched + w->ndim - 1;
    int64_t shape[PG_DIMS_MAX + 1];   /* of the logits: (N, C, d1, ...) or (C) */
    if (ndim > PG_DIMS_MAX) return pg_fail("at most %d dimensions are supported", PG_DIMS_MAX);
    if (batched) shape[0] = input->impl->shape[0];
    for (int i = 0; i < w->ndim - 1; i++) shape[batched + i] = w->shape[i];
    bool probable = t->ndim == ndim, ids = t->ndim == ndim - 1;
    for (int i = 0; i < t->ndim; i++) {
        if (probable) probable = t->shape[i] == shape[i];
        if (ids) ids = t->shape[i] == shape[i < batched ? i : i + 1];
    }
    if (!probable && !ids) {
        int64_t want[PG_DIMS_MAX];
        for (int i = 0; i < ndim - 1; i++) want[i] = shape[i < batched ? i : i + 1];
        return pg_fail("for input of shape %s and linear_weight of shape %s expected target of shape %s (class ids) or %s "
                       "(probabilities), got %s", pg_text(input), pg_text(linear_weight),
                       pg_shape_text((char[PG_TEXT]){0}, want, ndim - 1), pg_shape_text((char[PG_TEXT]){0}, shape, ndim), pg_text(target));
    }
    if (probable && !pg_is_float(t->dtype))
        return pg_fail("expected floating probabilities, got %s: class ids have the shape of the logits without the classes",
                       pg_dtype_name(t->dtype));
    if (probable && ignore_index) return pg_fail("ignore_index is for class ids, but target (%s) holds probabilities", pg_text(target));
    if (ids && !pg_is_integer(t->dtype)) return pg_fail("expected class ids of dtype int64, got %s", pg_dtype_name(t->dtype));
    if (weight && (weight->impl->ndim != 1 || weight->impl->shape[0] != w->shape[0]))
        return pg_fail("expected weight of shape [%lld] for linear_weight of shape %s, got %s", (long long)w->shape[0],
                       pg_text(linear_weight), pg_text(weight));
    if (dtype >= 0 && !pg_is_float(dtype)) return pg_fail("expected a floating dtype, got %s", pg_dtype_name(dtype));
    status = check_options(weight, label_smoothing);
    if (status < 0) return status;
    if (dtype < 0) dtype = input->impl->dtype;
    ce_args a = {.ignore_index = ignore_index ? *ignore_index : -100, .label_smoothing = label_smoothing, .reduction = reduction,
                 .ids = ids};
    if (probable || w->ndim > 2)
        return composed(out, input, linear_weight, target, linear_bias, weight, &a, shape, ndim, dtype);
    const pg_device *device = pg_device_of(input);
    const int low = input->impl->dtype, wide = pg_accumulate_dtype(low);
    pg_pool pool, *p = &pool;
    pg_pool_begin(p);
    pg_classifier c;
    pg_tensor *loss = pg_pool_new(p), *lse = pg_pool_new(p), *weights = pg_pool_new(p), *logits = pg_pool_new(p), *total = NULL;
    pg_tensor *made = pg_pool_new(p), *rows;
    bool before = pg_grad_set(false);
    const pg_tensor *x = as_rows(p, input);
    status = p->status;
    if (status >= 0) status = pg_padded_linear(logits, x, linear_weight, linear_bias);
    if (status >= 0) status = describe(p, &c, &rows, logits, target, weight, &a);
    if (status >= 0) status = pg_new(loss, device, wide, 1, &c.rows);
    if (status >= 0) status = pg_new(lse, device, wide, 1, &c.rows);
    if (status >= 0) status = pg_new(weights, device, wide, 1, &c.rows);
    if (status >= 0 && c.rows > 0)
        status = PG_RUN(device, cross_entropy, low, &c, pg_data(loss), pg_data(lse), pg_data(weights));
    pg_pool_note(p, status);
    if (p->status >= 0 && reduction == PG_REDUCTION_NONE) {
        const pg_tensor *each = batched ? loss : x_squeeze(p, loss, (const int64_t[]){0}, 1);
        if (p->status >= 0) pg_pool_note(p, pg_converted(made, each, dtype));
    } else if (p->status >= 0) {
        made = reduced_rows(p, &c, &a, loss, weights, &total, dtype);
    }
    pg_grad_set(before);
    if (p->status >= 0)
        pg_pool_note(p, pg_record(&lce_rule, total ? 4 : 3, (pg_tensor *[]){made, lse, logits, total}, 5,
                                  (const pg_tensor *[]){input, linear_weight, target, linear_bias, weight}, &a, sizeof a));
    return pg_pool_return(p, out, made);
}

/* ---- nll_loss ---- */

int op_nll_loss(pg_tensor *out, const pg_tensor *input, const pg_tensor *target, const pg_tensor *weight, int64_t ignore_index,
                int reduction) {
    ce_args a = {0};
    int status = check_target(&a, input, target);
    if (status >= 0 && !a.ids) status = pg_fail("expected class ids, got probabilities (%s)", pg_dtype_name(target->impl->dtype));
    const int dim = status < 0 ? 0 : class_dim(input->impl->ndim);
    if (status >= 0) status = check_weight(weight, input, input->impl->shape[dim]);
    if (status < 0) return status;
    pg_pool pool, *p = &pool;
    pg_pool_begin(p);
    const pg_number ignore = {PG_NUMBER_INT, ignore_index, (double)ignore_index}, zero = {PG_NUMBER_INT, 0, 0};
    pg_tensor *ids = pg_pool_new(p);
    if (p->status >= 0) pg_pool_note(p, pg_to_dtype(ids, target, PG_INT64));
    const pg_tensor *ignored = x_equals(p, ids, &ignore), *safe = x_masked_fill(p, ids, ignored, NULL, &zero);
    const pg_tensor *picked = x_squeeze(p, x_gather(p, input, dim, x_unsqueeze(p, safe, dim)), (const int64_t[]){dim}, 1);
    const pg_tensor *each = NULL;
    if (weight && p->status >= 0) {
        const int64_t count = safe->impl->numel;
        each = x_reshape(p, x_index_select(p, weight, 0, x_reshape(p, safe, &count, 1)), safe->impl->shape, safe->impl->ndim);
        each = x_masked_fill(p, each, ignored, NULL, &zero);
        picked = x_times(p, picked, each);
    }
    const pg_tensor *loss = x_scaled(p, x_masked_fill(p, picked, ignored, NULL, &zero), -1);
    if (reduction != PG_REDUCTION_NONE && p->status >= 0) {
        loss = x_sum(p, loss, NULL, 0, false, -1);
        if (reduction == PG_REDUCTION_MEAN) {
            const pg_tensor *total = each ? x_sum(p, each, NULL, 0, false, -1)
                                          : x_shifted(p, x_scaled(p, x_sum(p, ignored, NULL, 0, false, input->impl->dtype), -1),
                                                      (double)ids->impl->numel);
            loss = x_div(p, loss, total, NULL, -1);
        }
    }
    return pg_pool_return(p, out, loss);
}

/* ---- element by element ---- */

static int check_pair(const pg_tensor *input, const pg_tensor *target) {
    int64_t shape[PG_DIMS_MAX];
    int n = input->impl->ndim;
    for (int i = 0; i < n; i++) shape[i] = input->impl->shape[i];
    return pg_broadcast(shape, &n, target->impl->shape, target->impl->ndim);
}

int op_mse_loss(pg_tensor *out, const pg_tensor *input, const pg_tensor *target, int reduction) {
    int status = check_pair(input, target);
    if (status < 0) return status;
    pg_pool p;
    pg_pool_begin(&p);
    const pg_tensor *d = x_minus(&p, input, target);
    return pg_pool_return(&p, out, pg_reduced(&p, x_times(&p, d, d), reduction));
}

int op_l1_loss(pg_tensor *out, const pg_tensor *input, const pg_tensor *target, int reduction) {
    int status = check_pair(input, target);
    if (status < 0) return status;
    pg_pool p;
    pg_pool_begin(&p);
    return pg_pool_return(&p, out, pg_reduced(&p, x_abs(&p, x_minus(&p, input, target)), reduction));
}

/* pos_weight t softplus(-x) + (1 - t) softplus(x): sums of what is positive, so that nothing cancels. The threshold of 80 is where
 * softplus(x) is x in double. */
int op_binary_cross_entropy_with_logits(pg_tensor *out, const pg_tensor *input, const pg_tensor *target, const pg_tensor *weight,
                                        int reduction, const pg_tensor *pos_weight) {
    if (!pg_same_shape(input, target))
        return pg_fail("target size (%s) must be the same as input size (%s)", pg_text(target), pg_text(input));
    pg_pool pool, *p = &pool;
    pg_pool_begin(p);
    const pg_tensor *yes = x_times(p, target, x_softplus(p, x_scaled(p, input, -1), 1, 80));
    const pg_tensor *no = x_times(p, x_shifted(p, x_scaled(p, target, -1), 1), x_softplus(p, input, 1, 80));
    if (pos_weight) yes = x_times(p, yes, pos_weight);
    const pg_tensor *loss = x_plus(p, yes, no);
    if (weight) loss = x_times(p, loss, weight);
    return pg_pool_return(p, out, pg_reduced(p, loss, reduction));
}
