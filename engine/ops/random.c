/* random.c: draws from the device's Philox stream. The same seed gives the same numbers at every thread
 * count. */
#include <math.h>

#include "pointwise.h"
#include "../../kernels/philox.h"

/* ---- the shared path ---- */

/* Fills a dense tensor with a draw. */
static int draw_dense(const pg_tensor *t, int kind, pg_value a, pg_value b) {
    int64_t n = t->impl->numel;
    if (n == 0) return PG_OK;
    uint64_t range = kind == PG_K_RANDOM_INTEGER ? (uint64_t)b.i - (uint64_t)a.i : 0;
    const pg_device *d = pg_device_of(t);
    pg_philox state = pg_random_draw(d, pg_philox_counters(kind, pg_dtype_of(t), range, n));
    return PG_RUN(d, random, kind, pg_dtype_of(t), n, a, b, &state, pg_data(t));
}

static int drawn(pg_tensor *out, const int64_t *size, int n, int dtype, const char *device,
                 bool requires_grad, int kind, pg_value a, pg_value b) {
    int status = op_empty(out, size, n, dtype, device, requires_grad);
    if (status >= 0 && (status = draw_dense(out, kind, a, b)) < 0) pg_tensor_release(out);
    return status;
}

static const char *like_device(const pg_tensor *input, const char *device) {
    return device ? device : pg_device_of(input)->name;
}
static int like_dtype(const pg_tensor *input, int dtype) { return dtype >= 0 ? dtype : pg_dtype_of(input); }

static int need_float(int dtype) {
    int result = dtype >= 0 ? dtype : pg_default_dtype();
    return pg_is_float(result) ? PG_OK : pg_fail("expected a floating-point dtype, got %s",
                                                 pg_dtype_name(result));
}

static const pg_value zero = {0, 0}, one = {1, 1};

/* ---- rand, randn, randint ---- */

int op_rand(pg_tensor *out, const int64_t *size, int size_n, int dtype, const char *device,
            bool requires_grad) {
    int status = need_float(dtype);
    return status < 0 ? status : drawn(out, size, size_n, dtype, device, requires_grad, PG_K_RANDOM_UNIFORM,
                                       zero, one);
}

int op_randn(pg_tensor *out, const int64_t *size, int size_n, int dtype, const char *device,
             bool requires_grad) {
    int status = need_float(dtype);
    return status < 0 ? status : drawn(out, size, size_n, dtype, device, requires_grad, PG_K_RANDOM_NORMAL,
                                       zero, one);
}

int op_rand_like(pg_tensor *out, const pg_tensor *input, int dtype, const char *device, bool requires_grad) {
    return op_rand(out, pg_shape(input), pg_ndim(input), like_dtype(input, dtype), like_device(input, device),
                   requires_grad);
}

int op_randn_like(pg_tensor *out, const pg_tensor *input, int dtype, const char *device, bool requires_grad) {
    return op_randn(out, pg_shape(input), pg_ndim(input), like_dtype(input, dtype),
                    like_device(input, device), requires_grad);
}

int op_randint(pg_tensor *out, int64_t low, int64_t high, const int64_t *size, int size_n, int dtype,
               const char *device) {
    if (low >= high)
        return pg_fail("expected low < high, got %lld and %lld", (long long)low, (long long)high);
    return drawn(out, size, size_n, dtype >= 0 ? dtype : PG_INT64, device, false, PG_K_RANDOM_INTEGER,
                 (pg_value){low, (double)low}, (pg_value){high, (double)high});
}

int op_randint_like(pg_tensor *out, const pg_tensor *input, int64_t low, int64_t high, int dtype,
                    const char *device) {
    return op_randint(out, low, high, pg_shape(input), pg_ndim(input), like_dtype(input, dtype),
                      like_device(input, device));
}

/* Random keys, sorted: their order is the permutation. */
int op_randperm(pg_tensor *out, int64_t n, int dtype, const char *device) {
    if (n < 0) return pg_fail("n must be non-negative, got %lld", (long long)n);
    pg_tensor keys = PG_HANDLE, order = PG_HANDLE;
    int status = drawn(&keys, &n, 1, PG_INT64, device, false, PG_K_RANDOM_BITS, zero, zero);
    if (status >= 0) status = pg_new_like(&order, &keys, PG_INT64);
    if (status >= 0 && n > 0)
        status = PG_RUN(pg_device_of(&keys), sort, PG_INT64, (int64_t)1, n, pg_data(&keys), NULL,
                        pg_data(&order), false);
    if (status >= 0) status = pg_converted(out, &order, dtype >= 0 ? dtype : PG_INT64);
    pg_tensor_release(&keys);
    pg_tensor_release(&order);
    return status;
}

/* ---- in place ---- */

/* The gradient of what a draw replaced is zero. */
static int drawn_backward(pg_backward *b) {
    b->input[0] = x_zeros_like(b->pool, b->grad[0], -1, NULL, false);
    return b->pool->status;
}
static const pg_rule normal_rule = {.name = "normal", .backward = drawn_backward};
static const pg_rule uniform_rule = {.name = "uniform", .backward = drawn_backward};
static const pg_rule bernoulli_rule = {.name = "bernoulli", .backward = drawn_backward};

static int drawn_like(pg_tensor *out, const pg_tensor *input, int kind, pg_value a, pg_value b,
                      const pg_rule *rule) {
    int status = pg_new_like(out, input, pg_dtype_of(input));
    if (status >= 0) status = draw_dense(out, kind, a, b);
    if (status < 0) {
        pg_tensor_release(out);
        return status;
    }
    return pg_record1(rule, out, NULL, 0, input);
}

int op__normal(pg_tensor *out, const pg_tensor *input, double mean, double std) {
    if (!pg_is_float(pg_dtype_of(input)))
        return pg_fail("expected a floating-point tensor, got %s", pg_dtype_name(pg_dtype_of(input)));
    if (!(std >= 0)) return pg_fail("expected std >= 0, got %g", std);
    return drawn_like(out, input, PG_K_RANDOM_NORMAL, (pg_value){0, mean}, (pg_value){0, std}, &normal_rule);
}

int op__uniform(pg_tensor *out, const pg_tensor *input, double from, double to) {
    if (!pg_is_float(pg_dtype_of(input)))
        return pg_fail("expected a floating-point tensor, got %s", pg_dtype_name(pg_dtype_of(input)));
    if (!(from <= to) || !isfinite(to - from))
        return pg_fail("expected a finite range [from, to), got from %g to %g", from, to);
    return drawn_like(out, input, PG_K_RANDOM_UNIFORM, (pg_value){0, from}, (pg_value){0, to}, &uniform_rule);
}

int op__bernoulli(pg_tensor *out, const pg_tensor *input, double p) {
    if (!(p >= 0 && p <= 1)) return pg_fail("expected 0 <= p <= 1, got %g", p);
    return drawn_like(out, input, PG_K_RANDOM_BERNOULLI, (pg_value){0, p}, zero, &bernoulli_rule);
}

int op_bernoulli_p(pg_tensor *out, const pg_tensor *input, double p) {
    bool before = pg_grad_set(false);
    int status = op__bernoulli(out, input, p);
    pg_grad_set(before);
    return status;
}

/* ---- bernoulli, normal with tensors ---- */

/* Whether every element of x (floating) lies in [0, most]; reads the device once. */
static int check_range(const pg_tensor *x, double most, const char *what) {
    if (x->impl->numel == 0) return PG_OK;
    pg_tensor low = PG_HANDLE, high = PG_HANDLE;
    pg_number a = {0, 0, 0}, b = {0, 0, 0};
    bool before = pg_grad_set(false);
    int status = op_amin(&low, x, NULL, 0, false);
    if (status >= 0) status = op_amax(&high, x, NULL, 0, false);
    pg_grad_set(before);
    if (status >= 0) status = pg_item(&a, &low);
    if (status >= 0) status = pg_item(&b, &high);
    if (status >= 0 && !(a.d >= 0 && b.d <= most)) status = pg_fail("%s", what);
    pg_tensor_release(&low);
    pg_tensor_release(&high);
    return status;
}

int op_bernoulli(pg_tensor *out, const pg_tensor *input) {
    int dtype = pg_dtype_of(input), status;
    if (!pg_is_float(dtype))
        return pg_fail("expected a floating-point tensor of probabilities, got %s", pg_dtype_name(dtype));
    if ((status = check_range(input, 1, "expected probabilities between 0 and 1")) < 0) return status;
    int wide = pg_accumulate_dtype(dtype);
    pg_tensor u = PG_HANDLE, below = PG_HANDLE;
    status = pg_new_like(&u, input, wide);
    if (status >= 0) status = draw_dense(&u, PG_K_RANDOM_UNIFORM, zero, one);
    pg_operand operands[] = {{&u, NULL}, {input, NULL}};
    if (status >= 0) status = pg_pointwise(&below, PG_K_LT, wide, PG_BOOL, 2, operands, -1, NULL);
    if (status >= 0) status = pg_converted(out, &below, dtype);
    pg_tensor_release(&u);
    pg_tensor_release(&below);
    return status;
}

/* ---- multinomial ---- */

static int unary(pg_tensor *out, int op, const pg_tensor *x, const pg_number *with) {
    pg_operand operands[] = {{x, NULL}, {NULL, with}};
    return pg_pointwise(out, op, pg_dtype_of(x), pg_dtype_of(x), with ? 2 : 1, operands, -1, NULL);
}

/* Exponential race (the smallest of Exp(1) / p wins with probability p): scores p / e, of which the largest
 * are the sample. p (rows, classes) float32 or float64, dense; scores (rows, draws, classes). */
static int race(pg_tensor *scores, const pg_tensor *p, int64_t draws) {
    int64_t rows = pg_dim_size(p, 0), classes = pg_dim_size(p, 1), shape[] = {rows, draws, classes},
        broadcast[] = {rows, 1, classes}, stride[] = {classes, classes, 1};
    pg_tensor u = PG_HANDLE, e = PG_HANDLE, kept = PG_HANDLE, wide = PG_HANDLE;
    /* u in (0, 1]: the draw of [0, 1) seen from above; e = -log u, kept off zero so that 0 / e stays 0 */
    pg_number tiny = {PG_NUMBER_FLOAT, 0, 1e-37}, minus_one = {PG_NUMBER_INT, -1, 0};
    int status = pg_new(&u, pg_device_of(p), pg_dtype_of(p), 3, shape);
    if (status >= 0) status = draw_dense(&u, PG_K_RANDOM_UNIFORM, (pg_value){0, 1}, (pg_value){0, 0});
    if (status >= 0) status = unary(&e, PG_K_LOG, &u, NULL);
    if (status >= 0) pg_tensor_release(&u), status = unary(&u, PG_K_MUL, &e, &minus_one);
    if (status >= 0) status = unary(&kept, PG_K_MAXIMUM, &u, &tiny);
    if (status >= 0) status = pg_alias(&wide, p, 3, broadcast, stride, p->impl->offset);
    pg_operand operands[] = {{&wide, NULL}, {&kept, NULL}};
    if (status >= 0)
        status = pg_pointwise(scores, PG_K_DIV, pg_dtype_of(p), pg_dtype_of(p), 2, operands, -1, NULL);
    pg_tensor_release(&u);
    pg_tensor_release(&e);
    pg_tensor_release(&kept);
    pg_tensor_release(&wide);
    return status;
}

static int check_weights(const pg_tensor *p, int64_t num_samples, bool replacement) {
    int status = check_range(p, 1e308, "probability tensor contains either inf, nan or element < 0");
    if (status < 0) return status;
    /* how many categories of each row can be drawn */
    pg_tensor positive = PG_HANDLE, counts = PG_HANDLE, least = PG_HANDLE;
    pg_number zero_number = {PG_NUMBER_INT, 0, 0}, n = {0, 0, 0};
    pg_operand operands[] = {{p, NULL}, {NULL, &zero_number}};
    int64_t dim = 1;
    status = pg_pointwise(&positive, PG_K_GT, pg_dtype_of(p), PG_BOOL, 2, operands, -1, NULL);
    if (status >= 0) status = op_sum(&counts, &positive, &dim, 1, false, PG_INT64);
    if (status >= 0) status = op_amin(&least, &counts, NULL, 0, false);
    if (status >= 0) status = pg_item(&n, &least);
    if (status >= 0 && n.i == 0)
        status = pg_fail("invalid multinomial distribution (sum of probabilities <= 0)");
    if (status >= 0 && !replacement && n.i < num_samples)
        status = pg_fail("invalid multinomial distribution (with replacement = false, not enough non-negative "
                         "category to sample: %lld of %lld)", (long long)n.i, (long long)num_samples);
    pg_tensor_release(&positive);
    pg_tensor_release(&counts);
    pg_tensor_release(&least);
    return status;
}

int op_multinomial(pg_tensor *out, const pg_tensor *input, int64_t num_samples, bool replacement) {
    const pg_impl *x = input->impl;
    if (!pg_is_float(x->dtype))
        return pg_fail("expected floating-point probabilities, got %s", pg_dtype_name(x->dtype));
    if (x->ndim < 1 || x->ndim > 2)
        return pg_fail("expected 1 or 2 dimensions, got shape %s", pg_text(input));
    if (num_samples < 1)
        return pg_fail("cannot sample num_samples <= 0 samples, got %lld", (long long)num_samples);
    int64_t rows = x->ndim == 2 ? x->shape[0] : 1, classes = x->shape[x->ndim - 1], two[] = {rows, classes},
        stride[] = {classes, 1};
    pg_tensor dense = PG_HANDLE, p = PG_HANDLE, scores = PG_HANDLE, indices = PG_HANDLE;
    bool before = pg_grad_set(false);
    int status = pg_dense_as(&dense, input, pg_accumulate_dtype(x->dtype));
    if (status >= 0) status = pg_alias(&p, &dense, 2, two, stride, dense.impl->offset);
    if (status >= 0 && rows > 0) status = check_weights(&p, num_samples, replacement);
    int64_t races = replacement ? num_samples : 1, chosen = replacement ? 1 : num_samples;
    if (status >= 0) status = race(&scores, &p, races);
    int64_t shape[] = {rows, num_samples};
    if (status >= 0)
        status = x->ndim == 2 ? pg_new(out, pg_device_of(input), PG_INT64, 2, shape)
                              : pg_new(out, pg_device_of(input), PG_INT64, 1, shape + 1);
    if (status >= 0 && rows > 0)
        status = PG_RUN(pg_device_of(input), topk, pg_dtype_of(&scores), rows * races, classes, chosen,
                        pg_data(&scores), NULL, pg_data(out), true);
    pg_grad_set(before);
    pg_tensor_release(&dense);
    pg_tensor_release(&p);
    pg_tensor_release(&scores);
    pg_tensor_release(&indices);
    if (status < 0) pg_tensor_release(out);
    return status;
}
