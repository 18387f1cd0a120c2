/* reduce.c: reductions over any dimensions. */
#include <math.h>
#include <string.h>

#include "pointwise.h"

/* ---- the shared path ---- */

/* The kept and the reduced dimensions of x, each coalesced, as the kernel wants them; the output's shape
 * with or without the reduced dimensions; how many elements fall into one. */
typedef struct plan {
    pg_reduction r;
    int ndim;
    int64_t shape[PG_DIMS_MAX], count;
} plan;

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

/* By falling strides: where the order of the reduced elements does not matter, memory's is the fastest. */
static void sort_by_stride(int n, int64_t *shape, int64_t *stride) {
    for (int i = 1; i < n; i++)
        for (int k = i; k > 0 && stride[k] > stride[k - 1]; k--) {
            int64_t s = shape[k], t = stride[k];
            shape[k] = shape[k - 1], stride[k] = stride[k - 1];
            shape[k - 1] = s, stride[k - 1] = t;
        }
}

static void make_plan(plan *p, const pg_tensor *x, uint32_t mask, bool keepdim, bool in_order) {
    const pg_impl *t = x->impl;
    memset(&p->r, 0, sizeof p->r);
    p->ndim = 0;
    p->count = 1;
    for (int i = 0; i < t->ndim; i++) {
        bool reduced = mask >> i & 1;
        if (!reduced || keepdim) p->shape[p->ndim++] = reduced ? 1 : t->shape[i];
        if (reduced) p->count *= t->shape[i];
        int k = reduced ? p->r.reduced_n++ : p->r.kept_n++;
        (reduced ? p->r.reduced_shape : p->r.kept_shape)[k] = t->shape[i];
        (reduced ? p->r.reduced_stride : p->r.kept_stride)[k] = t->stride[i];
    }
    if (!in_order) sort_by_stride(p->r.reduced_n, p->r.reduced_shape, p->r.reduced_stride);
    p->r.kept_n = coalesce(p->r.kept_n, p->r.kept_shape, p->r.kept_stride);
    p->r.reduced_n = coalesce(p->r.reduced_n, p->r.reduced_shape, p->r.reduced_stride);
    p->r.in = pg_data(x);
}

/* out (dtype result) = kernel op over mask of x. An empty reduction gives `empty`; where that is NULL it is
 * an error. second (or NULL): the kernel's second output, of dtype second_dtype. */
static int reduce(pg_tensor *out, int op, const pg_tensor *x, uint32_t mask, bool keepdim, int result,
                  double p0, const pg_value *empty, pg_tensor *second, int second_dtype) {
    plan p;
    /* places are counted in row-major order */
    bool in_order = second || op == PG_K_REDUCE_ARGMAX || op == PG_K_REDUCE_ARGMIN;
    make_plan(&p, x, mask, keepdim, in_order);
    if (p.count == 0 && !empty)
        return pg_fail("expected at least one element to reduce over, got shape %s", pg_text(x));
    const pg_device *d = pg_device_of(x);
    int status = pg_new(out, d, result, p.ndim, p.shape);
    if (status >= 0 && second) status = pg_new(second, d, second_dtype, p.ndim, p.shape);
    if (status >= 0 && p.count == 0) status = pg_fill_value(out, *empty);
    else if (status >= 0 && out->impl->numel > 0) {
        p.r.out = pg_data(out);
        p.r.out2 = second ? pg_data(second) : NULL;
        p.r.p0 = p0;
        status = PG_RUN(d, reduce, op, x->impl->dtype, &p.r);
    }
    if (status < 0) {
        pg_tensor_release(out);
        if (second) pg_tensor_release(second);
    }
    return status;
}

static const pg_value zero_value = {0, 0}, one_value = {1, 1}, nan_value = {0, NAN},
    minus_infinity = {0, -INFINITY};

/* ---- what gradients share ---- */

typedef struct reduction_args { uint32_t mask; double p; } reduction_args;

static int64_t count_of(const pg_meta *m, uint32_t mask) {
    int64_t n = 1;
    for (int i = 0; i < m->ndim; i++)
        if (mask >> i & 1) n *= m->shape[i];
    return n;
}

/* A tensor of the reduced shape with its reduced dimensions as ones, so that it broadcasts against the
 * input. */
static pg_tensor *with_ones(pg_pool *p, const pg_tensor *x, const pg_meta *m, uint32_t mask) {
    int64_t shape[PG_DIMS_MAX];
    for (int i = 0; i < m->ndim; i++) shape[i] = mask >> i & 1 ? 1 : m->shape[i];
    return x_reshape(p, x, shape, m->ndim);
}

/* The same, expanded to the input's shape. */
static pg_tensor *spread(pg_pool *p, const pg_tensor *x, const pg_meta *m, uint32_t mask) {
    return x_expand(p, with_ones(p, x, m, mask), m->shape, m->ndim);
}

static pg_tensor *scaled(pg_pool *p, const pg_tensor *x, double by) {
    pg_number n = {PG_NUMBER_FLOAT, 0, by};
    return x_mul(p, x, NULL, &n);
}

static pg_tensor *minus(pg_pool *p, const pg_tensor *a, const pg_tensor *b) {
    pg_number n = {PG_NUMBER_INT, -1, 0};
    return x_add(p, a, b, NULL, &n);
}

/* 1 where a == b (broadcast), else 0, as dtype; a constant: no gradient runs through it. */
static pg_tensor *equal_mask(pg_pool *p, const pg_tensor *a, const pg_tensor *b, int dtype) {
    pg_tensor *same = pg_pool_new(p), *mask = pg_pool_new(p);
    if (p->status < 0) return mask;
    pg_operand operands[] = {{a, NULL}, {b, NULL}};
    pg_pool_note(p, pg_pointwise(same, PG_K_EQ, a->impl->dtype, PG_BOOL, 2, operands, -1, NULL));
    if (p->status >= 0) pg_pool_note(p, pg_converted(mask, same, dtype));
    return mask;
}

static int floating(pg_tensor *x, const pg_tensor *input, int dtype) {
    int result = dtype >= 0 ? dtype : input->impl->dtype;
    if (!pg_is_float(result))
        return pg_fail("expected a floating-point dtype, got %s", pg_dtype_name(result));
    return pg_to_dtype(x, input, result);
}

/* ---- sum, mean ---- */

static int sum_backward(pg_backward *b) {
    pg_meta m = pg_input_meta(b, 0);
    b->input[0] = spread(b->pool, b->grad[0], &m, ((const reduction_args *)b->args)->mask);
    return b->pool->status;
}
static const pg_rule sum_rule = {.name = "sum", .backward = sum_backward};

int op_sum(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim, int dtype) {
    reduction_args a = {0, 0};
    int status = pg_dim_mask(&a.mask, dim, dim_n, input->impl->ndim, true);
    if (status < 0) return status;
    int result = dtype >= 0 ? dtype : pg_is_float(input->impl->dtype) ? input->impl->dtype : PG_INT64;
    pg_tensor x = PG_HANDLE;
    status = pg_to_dtype(&x, input, result);
    if (status >= 0)
        status = reduce(out, PG_K_REDUCE_SUM, &x, a.mask, keepdim, result, 0, &zero_value, NULL, 0);
    if (status >= 0) status = pg_record1(&sum_rule, out, &a, sizeof a, &x);
    pg_tensor_release(&x);
    return status;
}

static int mean_backward(pg_backward *b) {
    const reduction_args *a = b->args;
    pg_meta m = pg_input_meta(b, 0);
    b->input[0] = spread(b->pool, scaled(b->pool, b->grad[0], 1.0 / (double)count_of(&m, a->mask)), &m,
                         a->mask);
    return b->pool->status;
}
static const pg_rule mean_rule = {.name = "mean", .backward = mean_backward};

int op_mean(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim, int dtype) {
    reduction_args a = {0, 0};
    pg_tensor x = PG_HANDLE;
    int status = pg_dim_mask(&a.mask, dim, dim_n, input->impl->ndim, true);
    if (status >= 0) status = floating(&x, input, dtype);
    if (status >= 0)
        status = reduce(out, PG_K_REDUCE_MEAN, &x, a.mask, keepdim, x.impl->dtype, 0, &nan_value, NULL, 0);
    if (status >= 0) status = pg_record1(&mean_rule, out, &a, sizeof a, &x);
    pg_tensor_release(&x);
    return status;
}

/* ---- prod ---- */

/* Products of all that stands before (or, reversed, behind) each element along the only dimension `d`:
 * log2(n) doubling steps, each a recorded op, exact where elements are zero. */
static pg_tensor *exclusive_product(pg_pool *p, const pg_tensor *x, int d, bool reversed) {
    int64_t n = x->impl->shape[d], flip_dims[] = {d};
    const pg_tensor *t = reversed ? x_flip(p, x, flip_dims, 1) : x;
    for (int64_t step = 0; p->status >= 0 && step < n; step = step ? 2 * step : 1) {
        /* the first step shifts by one; the others multiply by what stands `step` before */
        int64_t shift = step ? step : 1;
        pg_tensor *head = x_narrow(p, t, d, 0, shift < n ? shift : n),
            *tail = x_narrow(p, t, d, 0, n - shift < 0 ? 0 : n - shift);
        pg_tensor *ones = pg_pool_new(p);
        if (p->status < 0) break;
        pg_pool_note(p, pg_new_like(ones, head, head->impl->dtype));
        if (p->status >= 0) pg_pool_note(p, pg_fill_value(ones, one_value));
        pg_tensor *shifted = x_cat(p, (const pg_tensor *[]){ones, tail}, 2, d);
        t = step ? x_mul(p, t, shifted, NULL) : shifted;
    }
    return reversed ? x_flip(p, t, flip_dims, 1) : (pg_tensor *)t;
}

/* gradient of element i: grad * the product of all the others. */
static int prod_backward(pg_backward *b) {
    const reduction_args *a = b->args;
    pg_meta m = pg_input_meta(b, 0);
    pg_pool *p = b->pool;
    bool all = m.ndim == 0 || a->mask == (UINT32_C(1) << m.ndim) - 1;
    int64_t flat[] = {-1};
    int d = all ? 0 : __builtin_ctz(a->mask);
    const pg_tensor *x = pg_saved(b, PG_IN(0));
    if (all) x = x_reshape(p, x, flat, 1);
    if (p->status < 0) return p->status;
    pg_tensor *others = x_mul(p, exclusive_product(p, x, d, false), exclusive_product(p, x, d, true), NULL);
    if (all) others = x_reshape(p, others, m.shape, m.ndim);
    b->input[0] = x_mul(p, spread(p, b->grad[0], &m, a->mask), others, NULL);
    return p->status;
}
static const pg_rule prod_rule = {.name = "prod", .backward = prod_backward, .uses = {PG_USE(PG_IN(0))}};

static int prod(pg_tensor *out, const pg_tensor *input, const int64_t *dim, bool keepdim, int dtype) {
    reduction_args a = {0, 0};
    pg_tensor x = PG_HANDLE;
    int result = dtype >= 0 ? dtype : pg_is_float(input->impl->dtype) ? input->impl->dtype : PG_INT64;
    int status = pg_dim_mask(&a.mask, dim, 1, input->impl->ndim, true);
    if (status >= 0) status = pg_to_dtype(&x, input, result);
    if (status >= 0)
        status = reduce(out, PG_K_REDUCE_PROD, &x, a.mask, keepdim, result, 0, &one_value, NULL, 0);
    if (status >= 0) status = pg_record1(&prod_rule, out, &a, sizeof a, &x);
    pg_tensor_release(&x);
    return status;
}

int op_prod(pg_tensor *out, const pg_tensor *input, int dtype) {
    return prod(out, input, NULL, false, dtype);
}

int op_prod_dim(pg_tensor *out, const pg_tensor *input, int64_t dim, bool keepdim, int dtype) {
    return prod(out, input, &dim, keepdim, dtype);
}

/* ---- amax, amin, and max, min over everything: ties share the gradient evenly ---- */

static int extreme_backward(pg_backward *b) {
    const reduction_args *a = b->args;
    pg_meta m = pg_input_meta(b, 0);
    pg_pool *p = b->pool;
    pg_tensor *result = with_ones(p, pg_saved(b, PG_OUT(0)), &m, a->mask);
    if (p->status < 0) return p->status;
    bool before = pg_grad_set(false);
    pg_tensor *mask = equal_mask(p, pg_saved(b, PG_IN(0)), result, m.dtype);
    int64_t dims[PG_DIMS_MAX];
    int n = 0;
    for (int i = 0; i < m.ndim; i++)
        if (a->mask >> i & 1) dims[n++] = i;
    pg_tensor *share = x_div(p, mask, m.ndim ? x_sum(p, mask, dims, n, true, -1) : mask, NULL, -1);
    pg_grad_set(before);
    b->input[0] = x_mul(p, with_ones(p, b->grad[0], &m, a->mask), share, NULL);
    return p->status;
}
static const pg_rule amax_rule = {.name = "amax", .backward = extreme_backward,
                                  .uses = {PG_USE(PG_IN(0)) | PG_USE(PG_OUT(0))}};
static const pg_rule amin_rule = {.name = "amin", .backward = extreme_backward,
                                  .uses = {PG_USE(PG_IN(0)) | PG_USE(PG_OUT(0))}};
static const pg_rule max_rule = {.name = "max", .backward = extreme_backward,
                                 .uses = {PG_USE(PG_IN(0)) | PG_USE(PG_OUT(0))}};
static const pg_rule min_rule = {.name = "min", .backward = extreme_backward,
                                 .uses = {PG_USE(PG_IN(0)) | PG_USE(PG_OUT(0))}};

static int extreme(pg_tensor *out, int op, const pg_rule *rule, const pg_tensor *input, const int64_t *dim,
                   int dim_n, bool keepdim) {
    reduction_args a = {0, 0};
    int status = pg_dim_mask(&a.mask, dim, dim_n, input->impl->ndim, true);
    if (status >= 0) status = reduce(out, op, input, a.mask, keepdim, input->impl->dtype, 0, NULL, NULL, 0);
    return status < 0 ? status : pg_record1(rule, out, &a, sizeof a, input);
}

int op_amax(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim) {
    return extreme(out, PG_K_REDUCE_AMAX, &amax_rule, input, dim, dim_n, keepdim);
}

int op_amin(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim) {
    return extreme(out, PG_K_REDUCE_AMIN, &amin_rule, input, dim, dim_n, keepdim);
}

int op_max(pg_tensor *out, const pg_tensor *input) {
    return extreme(out, PG_K_REDUCE_AMAX, &max_rule, input, NULL, 0, false);
}

int op_min(pg_tensor *out, const pg_tensor *input) {
    return extreme(out, PG_K_REDUCE_AMIN, &min_rule, input, NULL, 0, false);
}

/* ---- max, min along a dimension: the gradient goes to the element that was chosen ---- */

/* One where position along dim equals index (which has size 1 there), as dtype. */
static pg_tensor *chosen_mask(pg_pool *p, const pg_tensor *index, const pg_meta *m, int dim) {
    pg_tensor *positions = pg_pool_new(p);
    int64_t n = m->ndim ? m->shape[dim] : 1, shape[PG_DIMS_MAX];
    if (p->status >= 0) pg_pool_note(p, pg_new(positions, m->device, PG_INT64, 1, &n));
    if (p->status >= 0 && n > 0) {
        pg_value start = {0, 0}, step = {1, 0};
        pg_pool_note(p, PG_RUN(m->device, arange, PG_INT64, n, start, step, pg_data(positions)));
    }
    for (int i = 0; i < m->ndim; i++) shape[i] = i == dim ? n : 1;
    return equal_mask(p, x_reshape(p, positions, shape, m->ndim), index, m->dtype);
}

static int choose_backward(pg_backward *b) {
    const reduction_args *a = b->args;
    pg_meta m = pg_input_meta(b, 0);
    pg_pool *p = b->pool;
    pg_tensor *index = with_ones(p, pg_saved(b, PG_OUT(1)), &m, a->mask);
    if (p->status < 0) return p->status;
    pg_tensor *mask = chosen_mask(p, index, &m, m.ndim ? __builtin_ctz(a->mask) : 0);
    b->input[0] = x_mul(p, with_ones(p, b->grad[0], &m, a->mask), mask, NULL);
    return p->status;
}
static const pg_rule max_dim_rule = {
    .name = "max", .backward = choose_backward, .uses = {PG_USE(PG_OUT(1))}, .undefined_grads = true};
static const pg_rule min_dim_rule = {
    .name = "min", .backward = choose_backward, .uses = {PG_USE(PG_OUT(1))}, .undefined_grads = true};

static int choose(pg_tensor *values, pg_tensor *indices, int op, const pg_rule *rule, const pg_tensor *input,
                  int64_t dim, bool keepdim) {
    reduction_args a = {0, 0};
    int status = pg_dim_mask(&a.mask, &dim, 1, input->impl->ndim, false);
    if (status >= 0)
        status = reduce(values, op, input, a.mask, keepdim, input->impl->dtype, 0, NULL, indices, PG_INT64);
    if (status < 0) return status;
    return pg_record(rule, 2, (pg_tensor *[]){values, indices}, 1, (const pg_tensor *[]){input}, &a,
                     sizeof a);
}

int op_max_dim(pg_tensor *values, pg_tensor *indices, const pg_tensor *input, int64_t dim, bool keepdim) {
    return choose(values, indices, PG_K_REDUCE_MAX, &max_dim_rule, input, dim, keepdim);
}

int op_min_dim(pg_tensor *values, pg_tensor *indices, const pg_tensor *input, int64_t dim, bool keepdim) {
    return choose(values, indices, PG_K_REDUCE_MIN, &min_dim_rule, input, dim, keepdim);
}

/* ---- argmax, argmin ---- */

static int arg_extreme(pg_tensor *out, int op, const pg_tensor *input, const int64_t *dim, bool keepdim) {
    uint32_t mask;
    pg_tensor x = PG_HANDLE;
    int status = pg_dim_mask(&mask, dim, 1, input->impl->ndim, true);
    /* over everything the position counts elements in row-major order */
    if (status >= 0 && !dim) status = pg_dense(&x, input);
    else if (status >= 0) pg_share(&x, input);
    if (status >= 0) status = reduce(out, op, &x, mask, keepdim, PG_INT64, 0, NULL, NULL, 0);
    pg_tensor_release(&x);
    return status;
}

int op_argmax(pg_tensor *out, const pg_tensor *input, const int64_t *dim, bool keepdim) {
    return arg_extreme(out, PG_K_REDUCE_ARGMAX, input, dim, keepdim);
}

int op_argmin(pg_tensor *out, const pg_tensor *input, const int64_t *dim, bool keepdim) {
    return arg_extreme(out, PG_K_REDUCE_ARGMIN, input, dim, keepdim);
}

/* ---- all, any ---- */

static int test(pg_tensor *out, int op, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim,
                pg_value empty) {
    uint32_t mask;
    int status = pg_dim_mask(&mask, dim, dim_n, input->impl->ndim, true);
    return status < 0 ? status : reduce(out, op, input, mask, keepdim, PG_BOOL, 0, &empty, NULL, 0);
}

int op_all(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim) {
    return test(out, PG_K_REDUCE_ALL, input, dim, dim_n, keepdim, one_value);
}

int op_any(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim) {
    return test(out, PG_K_REDUCE_ANY, input, dim, dim_n, keepdim, zero_value);
}

int op_count_nonzero(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n) {
    pg_pool p;
    pg_pool_begin(&p);
    return pg_pool_return(&p, out, x_sum(&p, x_ne(&p, input, NULL, PG_INT(0)), dim, dim_n, false, PG_INT64));
}

/* ---- var, std ---- */

/* d var / d x = 2 (x - mean) / (n - correction) */
static pg_tensor *var_gradient(pg_backward *b, const pg_tensor *grad) {
    const reduction_args *a = b->args;
    pg_meta m = pg_input_meta(b, 0);
    pg_pool *p = b->pool;
    const pg_tensor *x = pg_saved(b, PG_IN(0));
    int64_t dims[PG_DIMS_MAX];
    int n = 0;
    for (int i = 0; i < m.ndim; i++)
        if (a->mask >> i & 1) dims[n++] = i;
    pg_tensor *centred = minus(p, x, m.ndim ? x_mean(p, x, dims, n, true, -1) : (pg_tensor *)x);
    double by = fmax((double)count_of(&m, a->mask) - a->p, 0);
    return x_mul(p, scaled(p, with_ones(p, grad, &m, a->mask), 2 / by), centred, NULL);
}

static int var_backward(pg_backward *b) {
    b->input[0] = var_gradient(b, b->grad[0]);
    return b->pool->status;
}
static const pg_rule var_rule = {.name = "var", .backward = var_backward, .uses = {PG_USE(PG_IN(0))}};

/* d std = d var / (2 std); zero where std is zero, as in PyTorch */
static int std_backward(pg_backward *b) {
    pg_pool *p = b->pool;
    const pg_tensor *std = pg_saved(b, PG_OUT(0));
    pg_number zero = {PG_NUMBER_INT, 0, 0};
    pg_tensor *rate = x_div(p, b->grad[0], scaled(p, std, 2), NULL, -1), *flat = pg_pool_new(p);
    if (p->status < 0) return p->status;
    pg_operand operands[] = {{std, NULL}, {NULL, &zero}};
    pg_pool_note(p, pg_pointwise(flat, PG_K_EQ, std->impl->dtype, PG_BOOL, 2, operands, -1, NULL));
    b->input[0] = var_gradient(b, x_masked_fill(p, rate, flat, NULL, &zero));
    return p->status;
}
static const pg_rule std_rule = {.name = "std", .backward = std_backward,
                                 .uses = {PG_USE(PG_IN(0)) | PG_USE(PG_OUT(0))}};

/* unbiased: PyTorch's older way to say correction 1 or 0; -1 where it is not given */
static int var(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, double correction,
               int unbiased, bool keepdim, bool root) {
    if (unbiased >= 0) correction = unbiased;
    reduction_args a = {0, correction};
    pg_tensor x = PG_HANDLE;
    int status = pg_dim_mask(&a.mask, dim, dim_n, input->impl->ndim, true);
    if (status >= 0) status = floating(&x, input, -1);
    if (status >= 0)
        status = reduce(out, PG_K_REDUCE_VAR, &x, a.mask, keepdim, x.impl->dtype, correction, &nan_value,
                        NULL, 0);
    if (status >= 0 && root) {
        pg_tensor result = PG_HANDLE;
        pg_operand operand = {out, NULL};
        status = pg_pointwise(&result, PG_K_SQRT, out->impl->dtype, out->impl->dtype, 1, &operand, -1, NULL);
        pg_tensor_release(out);
        if (status >= 0) pg_move(out, &result);
    }
    if (status >= 0) status = pg_record1(root ? &std_rule : &var_rule, out, &a, sizeof a, &x);
    pg_tensor_release(&x);
    return status;
}

int op_var(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, double correction,
           int unbiased, bool keepdim) {
    return var(out, input, dim, dim_n, correction, unbiased, keepdim, false);
}

int op_std(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, double correction,
           int unbiased, bool keepdim) {
    return var(out, input, dim, dim_n, correction, unbiased, keepdim, true);
}

/* ---- norm ---- */

/* p = 2: x / norm; p = 1: sign x; inf: shared by the largest; else |x|^(p-2) x / norm^(p-1). Zero where the
 * norm is zero. */
static int norm_backward(pg_backward *b) {
    const reduction_args *a = b->args;
    pg_meta m = pg_input_meta(b, 0);
    pg_pool *p = b->pool;
    const pg_tensor *x = pg_saved(b, PG_IN(0));
    pg_tensor *norm = with_ones(p, pg_saved(b, PG_OUT(0)), &m, a->mask),
        *grad = with_ones(p, b->grad[0], &m, a->mask);
    pg_number zero = {PG_NUMBER_INT, 0, 0};
    if (p->status < 0) return p->status;
    if (a->p == 0) {
        b->input[0] = NULL;
    } else if (a->p == 1) {
        b->input[0] = x_mul(p, grad, x_sign(p, x), NULL);
    } else if (isinf(a->p)) {
        bool before = pg_grad_set(false);
        pg_tensor *mask = equal_mask(p, x_abs(p, x), norm, m.dtype);
        int64_t dims[PG_DIMS_MAX];
        int n = 0;
        for (int i = 0; i < m.ndim; i++)
            if (a->mask >> i & 1) dims[n++] = i;
        pg_tensor *share = x_div(p, mask, m.ndim ? x_sum(p, mask, dims, n, true, -1) : mask, NULL, -1);
        pg_tensor *signed_share = x_mul(p, share, x_sign(p, x), NULL);
        pg_grad_set(before);
        b->input[0] = x_mul(p, grad, signed_share, NULL);
    } else {
        pg_number q = {PG_NUMBER_FLOAT, 0, a->p - 2}, r = {PG_NUMBER_FLOAT, 0, a->p - 1};
        pg_tensor *top = a->p == 2 ? (pg_tensor *)x : x_mul(p, x, x_pow(p, x_abs(p, x), NULL, &q), NULL);
        pg_tensor *bottom = a->p == 2 ? norm : x_pow(p, norm, NULL, &r), *flat = pg_pool_new(p);
        pg_tensor *rate = x_div(p, top, bottom, NULL, -1);
        if (p->status < 0) return p->status;
        pg_operand where_zero[] = {{a->p < 2 ? x : norm, NULL}, {NULL, &zero}};
        pg_pool_note(p, pg_pointwise(flat, PG_K_EQ, m.dtype, PG_BOOL, 2, where_zero, -1, NULL));
        b->input[0] = x_mul(p, grad, x_masked_fill(p, rate, flat, NULL, &zero), NULL);
    }
    return p->status;
}
static const pg_rule norm_rule = {.name = "norm", .backward = norm_backward,
                                  .uses = {PG_USE(PG_IN(0)) | PG_USE(PG_OUT(0))}};

int op_norm(pg_tensor *out, const pg_tensor *input, double p, const int64_t *dim, int dim_n, bool keepdim,
            int dtype) {
    reduction_args a = {0, p};
    pg_tensor x = PG_HANDLE;
    if (isnan(p)) return pg_fail("expected an order p, got nan");
    int status = pg_dim_mask(&a.mask, dim, dim_n, input->impl->ndim, true);
    if (status >= 0) status = floating(&x, input, dtype);
    if (status >= 0) {
        const pg_value *empty = isinf(p) || p < 0 ? NULL : &zero_value;
        status = reduce(out, PG_K_REDUCE_NORM, &x, a.mask, keepdim, x.impl->dtype, p, empty, NULL, 0);
    }
    if (status >= 0) status = pg_record1(&norm_rule, out, &a, sizeof a, &x);
    pg_tensor_release(&x);
    return status;
}

/* ---- logsumexp ---- */

static int logsumexp_backward(pg_backward *b) {
    const reduction_args *a = b->args;
    pg_meta m = pg_input_meta(b, 0);
    pg_pool *p = b->pool;
    pg_tensor *result = with_ones(p, pg_saved(b, PG_OUT(0)), &m, a->mask);
    b->input[0] = x_mul(p, with_ones(p, b->grad[0], &m, a->mask),
                        x_exp(p, minus(p, pg_saved(b, PG_IN(0)), result)), NULL);
    return p->status;
}
static const pg_rule logsumexp_rule = {
    .name = "logsumexp", .backward = logsumexp_backward, .uses = {PG_USE(PG_IN(0)) | PG_USE(PG_OUT(0))}};

int op_logsumexp(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim) {
    reduction_args a = {0, 0};
    pg_tensor x = PG_HANDLE;
    int status = pg_dim_mask(&a.mask, dim, dim_n, input->impl->ndim, true);
    if (status >= 0) status = pg_to_dtype(&x, input, pg_float_dtype(input->impl->dtype));
    if (status >= 0)
        status = reduce(out, PG_K_REDUCE_LOGSUMEXP, &x, a.mask, keepdim, x.impl->dtype, 0, &minus_infinity,
                        NULL, 0);
    if (status >= 0) status = pg_record1(&logsumexp_rule, out, &a, sizeof a, &x);
    pg_tensor_release(&x);
    return status;
}

/* ---- cumsum ---- */

/* sums from the other end */
static int cumsum_backward(pg_backward *b) {
    const reduction_args *a = b->args;
    pg_pool *p = b->pool;
    int64_t dims[] = {(int64_t)a->mask};
    b->input[0] = x_flip(p, x_cumsum(p, x_flip(p, b->grad[0], dims, 1), dims[0], -1), dims, 1);
    return p->status;
}
static const pg_rule cumsum_rule = {.name = "cumsum", .backward = cumsum_backward};

int op_cumsum(pg_tensor *out, const pg_tensor *input, int64_t dim, int dtype) {
    int d, status = pg_wrap_dim(&d, dim, input->impl->ndim);
    if (status < 0) return status;
    int result = dtype >= 0 ? dtype : pg_is_float(input->impl->dtype) ? input->impl->dtype : PG_INT64;
    pg_tensor x = PG_HANDLE, dense = PG_HANDLE;
    status = pg_to_dtype(&x, input, result);
    if (status >= 0) status = pg_dense(&dense, &x);
    if (status >= 0) status = pg_new_like(out, &x, result);
    if (status >= 0 && x.impl->numel > 0) {
        const pg_impl *t = dense.impl;
        int64_t outer = pg_product(t->shape, d), n = t->ndim ? t->shape[d] : 1,
            inner = t->numel / (outer * n);
        status = PG_RUN(pg_device_of(&x), scan, PG_K_REDUCE_SUM, result, outer, n, inner, pg_data(&dense),
                        pg_data(out));
    }
    reduction_args a = {(uint32_t)d, 0};
    if (status >= 0) status = pg_record1(&cumsum_rule, out, &a, sizeof a, &x);
    pg_tensor_release(&dense);
    pg_tensor_release(&x);
    return status;
}
