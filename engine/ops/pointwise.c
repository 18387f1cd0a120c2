/* pointwise.c: arithmetic, element by element. */
#include "pointwise.h"

#include <math.h>

#include "../core/deferred.h"

/* ---- the shared path ---- */

/* The first tensor where all are dense, of one shape, on one device and of the dtypes that the op reads; else
 * NULL. */
static const pg_impl *alike(int n, const pg_operand *operands, int compute, int keep) {
    const pg_impl *first = NULL;
    for (int k = 0; k < n; k++) {
        if (!operands[k].tensor) continue;
        const pg_impl *x = operands[k].tensor->impl;
        if (x->dtype != (k == keep ? PG_BOOL : compute) || !x->contiguous) return NULL;
        if (!first) {
            first = x;
            continue;
        }
        if (x->storage->device != first->storage->device || x->ndim != first->ndim) return NULL;
        for (int i = 0; i < x->ndim; i++)
            if (x->shape[i] != first->shape[i]) return NULL;
    }
    return first;
}

/* Tensors that are alike, out among them: one loop. */
static void fill_dense(pg_strided *s, const pg_tensor *out, int n, const pg_operand *operands, int compute,
                       int keep) {
    s->ndim = 1;
    s->n = n + 1;
    s->shape[0] = out->impl->numel;
    s->stride[0][0] = 1;
    s->data[0] = pg_data(out);
    for (int k = 0; k < n; k++) {
        const pg_tensor *t = operands[k].tensor;
        s->stride[k + 1][0] = t != NULL;
        s->data[k + 1] = t ? pg_data(t) : NULL;
        if (!t) s->scalar[k + 1] = pg_value_of(operands[k].number, k == keep ? PG_BOOL : compute);
    }
}

static void fill_strided(pg_strided *s, const pg_tensor *out, int n, const pg_operand *operands, int compute,
                         int keep) {
    pg_strided_begin(s, out->impl->ndim, out->impl->shape);
    pg_strided_add(s, out);
    for (int k = 0; k < n; k++)
        if (operands[k].tensor) pg_strided_add(s, operands[k].tensor);
        else pg_strided_add_value(s, pg_value_of(operands[k].number, k == keep ? PG_BOOL : compute));
    pg_strided_end(s);
}

enum { OPERANDS_MAX = PG_K_OPERANDS - 1 };

static bool put_off(const pg_tensor *out, int op, int compute, int result, int n, const pg_operand *operands,
                    int keep, const double *p) {
    if (n > PG_DEFERRED_OPERANDS) return false;
    const bool two = op == PG_K_SOFTPLUS || op == PG_K_SOFTPLUS_BACKWARD;      /* the others bring p0 alone, or none */
    pg_operation o = {.op = op, .compute = compute, .result = result, .keep = keep, .n = n,
                      .p = {p ? p[0] : 0, p && two ? p[1] : 0}};
    for (int k = 0; k < n; k++)
        if (operands[k].tensor) o.tensor[k] = operands[k].tensor;
        else o.scalar[k] = pg_value_of(operands[k].number, k == keep ? PG_BOOL : compute);
    return pg_defer(out, &o);
}

/* out = op(operands), which are of the dtypes that it reads. dense: and alike, of out's shape. */
static int run(pg_tensor *out, bool dense, int op, int compute, int result, int n, const pg_operand *operands,
               int keep, const double *p) {
    if (out->impl->numel == 0) return PG_OK;
    if (pg_deferring && put_off(out, op, compute, result, n, operands, keep, p)) return PG_OK;
    pg_strided s;
    if (dense) fill_dense(&s, out, n, operands, compute, keep);
    else fill_strided(&s, out, n, operands, compute, keep);
    int status = PG_RUN(pg_device_of(out), pointwise, op, compute, &s, p);
    if (status < 0) pg_tensor_release(out);
    return status;
}

/* Operands of several shapes, dtypes or devices. */
static int run_unlike(pg_tensor *out, int op, int compute, int result, int n, const pg_operand *operands, int keep,
                      const double *p) {
    pg_tensor converted[OPERANDS_MAX];
    pg_operand use[OPERANDS_MAX];
    pg_number read[OPERANDS_MAX];
    int64_t shape[PG_DIMS_MAX] = {0};
    int ndim = -1, status = PG_OK, made = 0;
    const pg_device *device = NULL;
    /* beside tensors of another device a 0-dim one on the cpu is a number */
    for (int k = 0; k < n && (!device || device->host); k++)
        if (operands[k].tensor) device = pg_device_of(operands[k].tensor);
    for (int k = 0; k < n && status >= 0; k++) {
        const pg_tensor *t = operands[k].tensor;
        use[k] = operands[k];
        if (!t) continue;
        if (__builtin_expect(pg_device_of(t) != device, 0)) {
            status = pg_item(&read[k], t);
            use[k] = (pg_operand){NULL, &read[k]};
            if (ndim < 0) ndim = 0;
            continue;
        }
        if (ndim < 0) {
            ndim = t->impl->ndim;
            for (int i = 0; i < ndim; i++) shape[i] = t->impl->shape[i];
        } else {
            status = pg_broadcast(shape, &ndim, t->impl->shape, t->impl->ndim);
        }
        int want = k == keep ? PG_BOOL : compute;
        if (status >= 0 && t->impl->dtype != want) {
            converted[made] = PG_HANDLE;
            status = pg_converted(&converted[made], t, want);
            use[k].tensor = &converted[made++];
        }
    }
    if (status >= 0) status = pg_new(out, device, result, ndim, shape);
    if (status >= 0) {
        const pg_impl *like = alike(n, use, compute, keep);
        const bool dense = like && like->ndim == ndim && like->numel == out->impl->numel;
        status = run(out, dense, op, compute, result, n, use, keep, p);
    }
    while (made > 0) pg_tensor_release(&converted[--made]);
    return status;
}

int pg_pointwise(pg_tensor *out, int op, int compute, int result, int n, const pg_operand *operands, int keep,
                 const double *p) {
    const pg_impl *like = alike(n, operands, compute, keep);
    if (!like) return run_unlike(out, op, compute, result, n, operands, keep, p);
    int status = pg_new(out, like->storage->device, result, like->ndim, like->shape);
    return status < 0 ? status : run(out, true, op, compute, result, n, operands, keep, p);
}

int pg_result_of(const pg_tensor *a, const pg_tensor *b, const pg_number *b_number) {
    if (b && a->impl->dtype == b->impl->dtype) return a->impl->dtype;
    pg_result_type r = PG_RESULT;
    pg_result_add(&r, a);
    if (b) pg_result_add(&r, b);
    else pg_result_add_number(&r, b_number);
    return pg_result(&r);
}

int pg_unary(pg_tensor *out, int op, const pg_tensor *x) {
    int dtype = x->impl->dtype;
    return pg_pointwise(out, op, dtype, dtype, 1, &(pg_operand){x, NULL}, -1, NULL);
}

int pg_unary_float(pg_tensor *out, int op, const pg_tensor *x, const double *p) {
    int dtype = pg_float_dtype(x->impl->dtype);
    return pg_pointwise(out, op, dtype, dtype, 1, &(pg_operand){x, NULL}, -1, p);
}

int pg_fused(pg_backward *b, int op, int saved, const double *p) {
    const pg_tensor *s = pg_saved(b, saved);
    pg_tensor *result = pg_pool_new(b->pool);
    if (b->pool->status < 0) return b->pool->status;
    int dtype = s->impl->dtype;
    pg_operand operands[] = {{b->grad[0], NULL}, {s, NULL}};
    pg_pool_note(b->pool, pg_pointwise(result, op, dtype, dtype, 2, operands, -1, p));
    b->input[0] = result;
    return b->pool->status;
}

int pg_check_floating(const pg_tensor *x) {
    if (pg_is_float(x->impl->dtype)) return PG_OK;
    return pg_fail("expected a floating-point tensor, got %s", pg_dtype_name(x->impl->dtype));
}

/* Two operands of their common dtype. */
static int binary(pg_tensor *out, int op, const pg_tensor *a, const pg_tensor *b, const pg_number *b_number,
                  int dtype, const double *p) {
    pg_operand operands[] = {{a, NULL}, {b, b_number}};
    return pg_pointwise(out, op, dtype, dtype, 2, operands, -1, p);
}

static double as_double(const pg_number *n) { return n->kind == PG_NUMBER_FLOAT ? n->d : (double)n->i; }
static bool is_one(const pg_number *n) { return as_double(n) == 1; }
static pg_number negated(const pg_number *n) {
    return n->kind == PG_NUMBER_FLOAT ? pg_float(-n->d) : (pg_number){PG_NUMBER_INT, -n->i, 0};
}

/* ---- add, sub, rsub ---- */

/* args: what the second operand was multiplied with */
static int add_backward(pg_backward *b) {
    const pg_number *alpha = b->args;
    b->input[0] = b->grad[0];
    if (b->n_inputs > 1 && b->needs[1])
        b->input[1] = is_one(alpha) ? b->grad[0] : x_mul(b->pool, b->grad[0], NULL, alpha);
    return b->pool->status;
}
static const pg_rule add_rule = {.name = "add", .backward = add_backward};
static const pg_rule sub_rule = {.name = "sub", .backward = add_backward};

static int check_alpha(const pg_number *alpha, int dtype) {
    if (alpha->kind == PG_NUMBER_FLOAT && !pg_is_float(dtype))
        return pg_fail("for integral input tensors, alpha must not be a floating point number, got %g",
                       alpha->d);
    if (alpha->kind == PG_NUMBER_BOOL && dtype != PG_BOOL)
        return pg_fail("a boolean alpha is only supported for boolean results, got %s", pg_dtype_name(dtype));
    return PG_OK;
}

int op_add(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number,
           const pg_number *alpha) {
    int dtype = pg_result_of(input, other, other_number), status = check_alpha(alpha, dtype);
    if (status < 0) return status;
    double scale = as_double(alpha);
    if (scale == 1) status = binary(out, PG_K_ADD, input, other, other_number, dtype, NULL);
    else if (dtype == PG_BOOL) status = pg_fail("bools are added with alpha 1 only, got %g", scale);
    else status = binary(out, PG_K_ADD_SCALED, input, other, other_number, dtype, &scale);
    return status < 0 ? status : pg_record1(&add_rule, out, alpha, sizeof *alpha, input, other);
}

static int check_subtraction(const pg_tensor *a, const pg_tensor *b, const pg_number *number) {
    bool both = a->impl->dtype == PG_BOOL && (b ? b->impl->dtype == PG_BOOL : number->kind == PG_NUMBER_BOOL);
    if (both)
        return pg_fail("subtraction of two bool tensors is not supported: use bitwise_xor or logical_xor");
    if (a->impl->dtype == PG_BOOL || (b ? b->impl->dtype == PG_BOOL : number->kind == PG_NUMBER_BOOL))
        return pg_fail("subtraction with a bool tensor is not supported: use bitwise_not or logical_not to "
                       "invert a mask");
    return PG_OK;
}

int op_sub(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number,
           const pg_number *alpha) {
    int dtype = pg_result_of(input, other, other_number),
        status = check_subtraction(input, other, other_number);
    if (status >= 0) status = check_alpha(alpha, dtype);
    if (status < 0) return status;
    double scale = -as_double(alpha);
    if (scale == -1) status = binary(out, PG_K_SUB, input, other, other_number, dtype, NULL);
    else status = binary(out, PG_K_ADD_SCALED, input, other, other_number, dtype, &scale);
    pg_number factor = negated(alpha);
    return status < 0 ? status : pg_record1(&sub_rule, out, &factor, sizeof factor, input, other);
}

static int rsub_number_backward(pg_backward *b) {
    const pg_number *factor = b->args;
    b->input[0] = x_mul(b->pool, b->grad[0], NULL, factor);
    return b->pool->status;
}
static const pg_rule rsub_rule = {.name = "rsub", .backward = rsub_number_backward};

int op_rsub(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number,
            const pg_number *alpha) {
    if (other) return op_sub(out, other, input, NULL, alpha);
    int dtype = pg_result_of(input, NULL, other_number),
        status = check_subtraction(input, NULL, other_number);
    if (status >= 0) status = check_alpha(alpha, dtype);
    if (status < 0) return status;
    double scale = -as_double(alpha);
    pg_operand operands[] = {{NULL, other_number}, {input, NULL}};
    status = pg_pointwise(out, scale == -1 ? PG_K_SUB : PG_K_ADD_SCALED, dtype, dtype, 2, operands, -1,
                          &scale);
    pg_number factor = negated(alpha);
    return status < 0 ? status : pg_record1(&rsub_rule, out, &factor, sizeof factor, input);
}

/* ---- mul ---- */

/* args: the number, of kind -1 where the other operand is a tensor */
static int mul_backward(pg_backward *b) {
    const pg_number *number = b->args;
    if (number->kind >= 0) {
        b->input[0] = x_mul(b->pool, b->grad[0], NULL, number);
        return b->pool->status;
    }
    if (b->needs[0]) b->input[0] = e_mul(b->pool, b->grad[0], pg_saved(b, PG_IN(1)));
    if (b->needs[1]) b->input[1] = e_mul(b->pool, b->grad[0], pg_saved(b, PG_IN(0)));
    return b->pool->status;
}
static const pg_rule mul_rule = {.name = "mul", .backward = mul_backward,
                                 .uses = {PG_USE(PG_IN(1)), PG_USE(PG_IN(0))}};
static const pg_rule mul_number_rule = {.name = "mul", .backward = mul_backward};

int op_mul(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number) {
    int dtype = pg_result_of(input, other, other_number);
    int status = binary(out, PG_K_MUL, input, other, other_number, dtype, NULL);
    if (status < 0) return status;
    if (!other) return pg_record1(&mul_number_rule, out, other_number, sizeof *other_number, input);
    pg_number none = {-1, 0, 0};
    return pg_record1(&mul_rule, out, &none, sizeof none, input, other);
}

/* ---- div and its kin ---- */

static int div_backward(pg_backward *b) {
    const pg_number *number = b->args;
    pg_pool *p = b->pool;
    if (number->kind >= 0) {
        b->input[0] = x_div(p, b->grad[0], NULL, number, -1);
        return p->status;
    }
    const pg_tensor *divisor = pg_saved(b, PG_IN(1));
    if (b->needs[0]) b->input[0] = e_div(p, b->grad[0], divisor);
    if (b->needs[1])
        b->input[1] = x_neg(p, e_mul(p, b->grad[0],
                                     e_div(p, e_div(p, pg_saved(b, PG_IN(0)), divisor), divisor)));
    return p->status;
}
static const pg_rule div_rule = {.name = "div", .backward = div_backward,
                                 .uses = {PG_USE(PG_IN(1)), PG_USE(PG_IN(0)) | PG_USE(PG_IN(1))}};
static const pg_rule div_number_rule = {.name = "div", .backward = div_backward};

/* Rounded quotients are steps: their gradients are 0. */
static int step_backward(pg_backward *b) {
    for (int k = 0; k < b->n_inputs; k++)
        if (b->needs[k]) b->input[k] = e_zeros(b->pool, b->grad[0]);
    return b->pool->status;
}
static const pg_rule floor_divide_rule = {.name = "floor_divide", .backward = step_backward};
static const pg_rule div_rounded_rule = {.name = "div", .backward = step_backward};

static int check_not_bools(int dtype, const char *what) {
    return dtype == PG_BOOL ? pg_fail("\"%s\" is not defined for bool", what) : PG_OK;
}

static int divide_rounded(pg_tensor *out, const pg_tensor *input, const pg_tensor *other,
                          const pg_number *other_number, bool down) {
    int dtype = pg_result_of(input, other, other_number), status = check_not_bools(dtype, "floor_divide");
    if (status < 0) return status;
    if (down) return binary(out, PG_K_FLOOR_DIVIDE, input, other, other_number, dtype, NULL);
    pg_tensor quotient = PG_HANDLE, rest = PG_HANDLE;
    if (pg_is_float(dtype)) {
        status = binary(&quotient, PG_K_DIV, input, other, other_number, dtype, NULL);
        if (status >= 0) status = pg_unary(out, PG_K_TRUNC, &quotient);
    } else {
        /* (a - fmod(a, b)) / b leaves no rest */
        status = binary(&rest, PG_K_FMOD, input, other, other_number, dtype, NULL);
        if (status >= 0) status = binary(&quotient, PG_K_SUB, input, &rest, NULL, dtype, NULL);
        if (status >= 0) status = binary(out, PG_K_FLOOR_DIVIDE, &quotient, other, other_number, dtype, NULL);
    }
    pg_tensor_release(&quotient);
    pg_tensor_release(&rest);
    return status;
}

int op_div(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number,
           int rounding_mode) {
    int status;
    if (rounding_mode >= 0) {
        status = divide_rounded(out, input, other, other_number, rounding_mode == 1);
        return status < 0 ? status : pg_record1(&div_rounded_rule, out, NULL, 0, input, other);
    }
    int dtype = pg_float_dtype(pg_result_of(input, other, other_number));
    status = binary(out, PG_K_DIV, input, other, other_number, dtype, NULL);
    if (status < 0) return status;
    if (!other) return pg_record1(&div_number_rule, out, other_number, sizeof *other_number, input);
    pg_number none = {-1, 0, 0};
    return pg_record1(&div_rule, out, &none, sizeof none, input, other);
}

int op_floor_divide(pg_tensor *out, const pg_tensor *input, const pg_tensor *other,
                    const pg_number *other_number) {
    int status = divide_rounded(out, input, other, other_number, true);
    return status < 0 ? status : pg_record1(&floor_divide_rule, out, NULL, 0, input, other);
}

/* input - other * n with a whole n: args say how the quotient was rounded */
static int modulo_backward(pg_backward *b) {
    const bool *down = b->args;
    pg_pool *p = b->pool;
    b->input[0] = b->grad[0];
    if (b->n_inputs > 1 && b->needs[1]) {
        const pg_tensor *q = x_div(p, pg_saved(b, PG_IN(0)), pg_saved(b, PG_IN(1)), NULL, *down ? 1 : 0);
        b->input[1] = x_neg(p, e_mul(p, b->grad[0], q));
    }
    return p->status;
}
static const pg_rule remainder_rule = {.name = "remainder", .backward = modulo_backward,
                                       .uses = {0, PG_USE(PG_IN(0)) | PG_USE(PG_IN(1))}};
static const pg_rule fmod_rule = {.name = "fmod", .backward = modulo_backward,
                                  .uses = {0, PG_USE(PG_IN(0)) | PG_USE(PG_IN(1))}};

static int modulo(pg_tensor *out, const pg_tensor *input, const pg_tensor *other,
                  const pg_number *other_number, bool down) {
    int dtype = pg_result_of(input, other, other_number),
        status = check_not_bools(dtype, down ? "remainder" : "fmod");
    if (status >= 0)
        status = binary(out, down ? PG_K_REMAINDER : PG_K_FMOD, input, other, other_number, dtype, NULL);
    return status < 0 ? status : pg_record1(down ? &remainder_rule : &fmod_rule, out, &down, sizeof down,
                                            input, other);
}
int op_remainder(pg_tensor *out, const pg_tensor *input, const pg_tensor *other,
                 const pg_number *other_number) {
    return modulo(out, input, other, other_number, true);
}
int op_fmod(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number) {
    return modulo(out, input, other, other_number, false);
}

/* ---- pow ---- */

/* args: the exponent */
static int pow_number_backward(pg_backward *b) {
    const pg_number *e = b->args;
    pg_pool *p = b->pool;
    double v = as_double(e);
    if (v == 0) b->input[0] = e_zeros(p, b->grad[0]);
    else b->input[0] = e_mul(p, b->grad[0], e_times(p, e_power(p, X, v - 1), v));
    return p->status;
}
static const pg_rule pow_number_rule = {.name = "pow", .backward = pow_number_backward, .uses = {PG_USES_X}};

static int pow_backward(pg_backward *b) {
    pg_pool *p = b->pool;
    const pg_tensor *x = pg_saved(b, PG_IN(0)), *e = pg_saved(b, PG_IN(1));
    if (b->needs[0]) {
        const pg_tensor *slope = e_mul(p, e, x_pow(p, x, e_plus(p, e, -1), NULL));
        b->input[0] = e_drop(p, x_eq(p, e, NULL, PG_INT(0)), e_mul(p, b->grad[0], slope));
    }
    if (b->needs[1]) {
        const pg_tensor *flat = x_logical_and(p, x_eq(p, x, NULL, PG_INT(0)), x_ge(p, e, NULL, PG_INT(0)));
        b->input[1] = e_drop(p, flat, e_mul(p, b->grad[0], e_mul(p, Y, x_log(p, x))));
    }
    return p->status;
}
static const pg_rule pow_rule = {.name = "pow", .backward = pow_backward,
    .uses = {PG_USE(PG_IN(0)) | PG_USE(PG_IN(1)), PG_USE(PG_IN(0)) | PG_USE(PG_IN(1)) | PG_USE(PG_OUT(0))}};

/* args: the base */
static int pow_base_backward(pg_backward *b) {
    double base = as_double(b->args);
    pg_pool *p = b->pool;
    const pg_tensor *g = e_mul(p, b->grad[0], e_times(p, Y, log(base)));
    b->input[0] = base == 0 ? e_drop(p, x_ge(p, X, NULL, PG_INT(0)), g) : g;
    return p->status;
}
static const pg_rule pow_base_rule = {.name = "pow", .backward = pow_base_backward,
                                      .uses = {PG_USE(PG_IN(0)) | PG_USE(PG_OUT(0))}};

int op_pow(pg_tensor *out, const pg_tensor *input, const pg_tensor *exponent,
           const pg_number *exponent_number) {
    int dtype = pg_result_of(input, exponent, exponent_number);
    if (!exponent && !pg_is_float(dtype) && as_double(exponent_number) < 0)
        return pg_fail("integers to negative integer powers are not allowed");
    if (dtype == PG_BOOL && !exponent)       /* a bool to the power of true or false */
        return as_double(exponent_number) != 0 ? op_clone(out, input)
                                               : op_ones_like(out, input, -1, NULL, false);
    int status = check_not_bools(dtype, "pow");
    if (status >= 0) status = binary(out, PG_K_POW, input, exponent, exponent_number, dtype, NULL);
    if (status < 0) return status;
    if (exponent) return pg_record1(&pow_rule, out, NULL, 0, input, exponent);
    return pg_record1(&pow_number_rule, out, exponent_number, sizeof *exponent_number, input);
}

int op_pow_base(pg_tensor *out, const pg_number *input, const pg_tensor *exponent) {
    int dtype = pg_result_of(exponent, NULL, input), status = check_not_bools(dtype, "pow");
    if (status < 0) return status;
    pg_operand operands[] = {{NULL, input}, {exponent, NULL}};
    status = pg_pointwise(out, PG_K_POW, dtype, dtype, 2, operands, -1, NULL);
    return status < 0 ? status : pg_record1(&pow_base_rule, out, input, sizeof *input, exponent);
}

/* ---- maximum, minimum ---- */

/* The gradient goes to the one that was taken, in halves where they are equal. */
static int extreme_backward(pg_backward *b, bool largest) {
    pg_pool *p = b->pool;
    const pg_tensor *x = pg_saved(b, PG_IN(0)), *y = pg_saved(b, PG_IN(1)), *g = b->grad[0];
    const pg_tensor *shared = x_where(p, x_eq(p, x, y, NULL), e_times(p, g, 0.5), NULL, g, NULL);
    const pg_tensor *less = x_lt(p, x, y, NULL), *more = x_gt(p, x, y, NULL);
    if (b->needs[0]) b->input[0] = e_drop(p, largest ? less : more, shared);
    if (b->needs[1]) b->input[1] = e_drop(p, largest ? more : less, shared);
    return p->status;
}
static int maximum_backward(pg_backward *b) { return extreme_backward(b, true); }
static int minimum_backward(pg_backward *b) { return extreme_backward(b, false); }
#define BOTH (PG_USE(PG_IN(0)) | PG_USE(PG_IN(1)))
static const pg_rule maximum_rule = {.name = "maximum", .backward = maximum_backward, .uses = {BOTH, BOTH}};
static const pg_rule minimum_rule = {.name = "minimum", .backward = minimum_backward, .uses = {BOTH, BOTH}};

int op_maximum(pg_tensor *out, const pg_tensor *input, const pg_tensor *other) {
    int status = binary(out, PG_K_MAXIMUM, input, other, NULL, pg_result_of(input, other, NULL), NULL);
    return status < 0 ? status : pg_record1(&maximum_rule, out, NULL, 0, input, other);
}
int op_minimum(pg_tensor *out, const pg_tensor *input, const pg_tensor *other) {
    int status = binary(out, PG_K_MINIMUM, input, other, NULL, pg_result_of(input, other, NULL), NULL);
    return status < 0 ? status : pg_record1(&minimum_rule, out, NULL, 0, input, other);
}
int op_max_other(pg_tensor *out, const pg_tensor *input, const pg_tensor *other) {
    return op_maximum(out, input, other);
}
int op_min_other(pg_tensor *out, const pg_tensor *input, const pg_tensor *other) {
    return op_minimum(out, input, other);
}

/* ---- atan2, lerp, addcmul, addcdiv ---- */

static int atan2_backward(pg_backward *b) {
    pg_pool *p = b->pool;
    const pg_tensor *y = pg_saved(b, PG_IN(0)), *x = pg_saved(b, PG_IN(1));
    const pg_tensor *scaled = e_div(p, b->grad[0], e_add(p, x_square(p, x), x_square(p, y)));
    if (b->needs[0]) b->input[0] = e_mul(p, scaled, x);
    if (b->needs[1]) b->input[1] = x_neg(p, e_mul(p, scaled, y));
    return p->status;
}
static const pg_rule atan2_rule = {.name = "atan2", .backward = atan2_backward, .uses = {BOTH, BOTH}};

int op_atan2(pg_tensor *out, const pg_tensor *input, const pg_tensor *other) {
    int status = binary(out, PG_K_ATAN2, input, other, NULL, pg_float_dtype(pg_result_of(input, other, NULL)),
                        NULL);
    return status < 0 ? status : pg_record1(&atan2_rule, out, NULL, 0, input, other);
}

/* args: the weight, of kind -1 where it is a tensor */
static int lerp_backward(pg_backward *b) {
    const pg_number *number = b->args;
    pg_pool *p = b->pool;
    const pg_tensor *g = b->grad[0];
    if (number->kind >= 0) {
        double w = as_double(number);
        if (b->needs[0]) b->input[0] = e_times(p, g, 1 - w);
        if (b->needs[1]) b->input[1] = e_times(p, g, w);
        return p->status;
    }
    const pg_tensor *w = b->needs[0] || b->needs[1] ? pg_saved(b, PG_IN(2)) : NULL;
    if (b->needs[0]) b->input[0] = e_mul(p, g, e_from(p, 1, w));
    if (b->needs[1]) b->input[1] = e_mul(p, g, w);
    if (b->needs[2]) b->input[2] = e_mul(p, g, e_sub(p, pg_saved(b, PG_IN(1)), pg_saved(b, PG_IN(0))));
    return p->status;
}
static const pg_rule lerp_rule = {.name = "lerp", .backward = lerp_backward,
                                  .uses = {PG_USE(PG_IN(2)), PG_USE(PG_IN(2)), BOTH}};
static const pg_rule lerp_number_rule = {.name = "lerp", .backward = lerp_backward};

int op_lerp(pg_tensor *out, const pg_tensor *input, const pg_tensor *end, const pg_tensor *weight,
            const pg_number *weight_number) {
    int dtype = input->impl->dtype, status = pg_check_floating(input);
    if (status < 0) return status;
    if (end->impl->dtype != dtype || (weight && weight->impl->dtype != dtype))
        return pg_fail("expected one dtype, got %s, %s%s%s", pg_dtype_name(dtype),
                       pg_dtype_name(end->impl->dtype), weight ? " and " : "",
                       weight ? pg_dtype_name(weight->impl->dtype) : "");
    pg_operand operands[] = {{input, NULL}, {end, NULL}, {weight, weight_number}};
    status = pg_pointwise(out, PG_K_LERP, dtype, dtype, 3, operands, -1, NULL);
    if (status < 0) return status;
    if (!weight) return pg_record1(&lerp_number_rule, out, weight_number, sizeof *weight_number, input, end);
    pg_number none = {-1, 0, 0};
    return pg_record1(&lerp_rule, out, &none, sizeof none, input, end, weight);
}

/* args: value */
static int addcmul_backward(pg_backward *b) {
    pg_pool *p = b->pool;
    double value = as_double(b->args);
    b->input[0] = b->grad[0];
    for (int k = 1; k <= 2; k++)
        if (b->needs[k]) b->input[k] = e_times(p, e_mul(p, b->grad[0], pg_saved(b, PG_IN(3 - k))), value);
    return p->status;
}
static const pg_rule addcmul_rule = {.name = "addcmul", .backward = addcmul_backward,
                                     .uses = {0, PG_USE(PG_IN(2)), PG_USE(PG_IN(1))}};

static int result_of_three(const pg_tensor *a, const pg_tensor *b, const pg_tensor *c) {
    pg_result_type r = PG_RESULT;
    pg_result_add(&r, a);
    pg_result_add(&r, b);
    pg_result_add(&r, c);
    return pg_result(&r);
}

int op_addcmul(pg_tensor *out, const pg_tensor *input, const pg_tensor *tensor1, const pg_tensor *tensor2,
               const pg_number *value) {
    int dtype = result_of_three(input, tensor1, tensor2), status = check_not_bools(dtype, "addcmul");
    if (status >= 0 && value->kind == PG_NUMBER_FLOAT && !pg_is_float(dtype))
        status = pg_fail("for integral tensors, value must not be a floating point number, got %g", value->d);
    if (status < 0) return status;
    double scale = as_double(value);
    pg_operand operands[] = {{input, NULL}, {tensor1, NULL}, {tensor2, NULL}};
    status = pg_pointwise(out, PG_K_ADDCMUL, dtype, dtype, 3, operands, -1, &scale);
    return status < 0 ? status : pg_record1(&addcmul_rule, out, value, sizeof *value, input, tensor1,
                                            tensor2);
}

int op_addcdiv(pg_tensor *out, const pg_tensor *input, const pg_tensor *tensor1, const pg_tensor *tensor2,
               const pg_number *value) {
    if (!pg_is_float(tensor1->impl->dtype) && !pg_is_float(tensor2->impl->dtype))
        return pg_fail("integer division is not supported: make tensor1 or tensor2 floating, got %s and %s",
                       pg_dtype_name(tensor1->impl->dtype), pg_dtype_name(tensor2->impl->dtype));
    pg_pool p;
    pg_pool_begin(&p);
    return pg_pool_return(&p, out, x_add(&p, input, e_div(&p, tensor1, tensor2), NULL, value));
}

/* ---- comparisons, logic, bits ---- */

#define COMPARISON(NAME, KERNEL) \
    int op_##NAME(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, \
                  const pg_number *other_number) { \
        pg_operand operands[] = {{input, NULL}, {other, other_number}}; \
        return pg_pointwise(out, KERNEL, pg_result_of(input, other, other_number), PG_BOOL, 2, operands, -1, \
                            NULL); \
    }
COMPARISON(eq, PG_K_EQ)
COMPARISON(ne, PG_K_NE)
COMPARISON(lt, PG_K_LT)
COMPARISON(le, PG_K_LE)
COMPARISON(gt, PG_K_GT)
COMPARISON(ge, PG_K_GE)

#define LOGICAL(NAME, KERNEL) \
    int op_##NAME(pg_tensor *out, const pg_tensor *input, const pg_tensor *other) { \
        pg_operand operands[] = {{input, NULL}, {other, NULL}}; \
        return pg_pointwise(out, KERNEL, pg_promote_types(input->impl->dtype, other->impl->dtype), PG_BOOL, \
                            2, operands, -1, NULL); \
    }
LOGICAL(logical_and, PG_K_LOGICAL_AND)
LOGICAL(logical_or, PG_K_LOGICAL_OR)
LOGICAL(logical_xor, PG_K_LOGICAL_XOR)

static int check_bits(int dtype) {
    return pg_is_float(dtype) ? pg_fail("expected integers or bools, got %s", pg_dtype_name(dtype)) : PG_OK;
}
#define BITWISE(NAME, KERNEL) \
    int op_##NAME(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, \
                  const pg_number *other_number) { \
        int dtype = pg_result_of(input, other, other_number), status = check_bits(dtype); \
        return status < 0 ? status : binary(out, KERNEL, input, other, other_number, dtype, NULL); \
    }
BITWISE(bitwise_and, PG_K_BITWISE_AND)
BITWISE(bitwise_or, PG_K_BITWISE_OR)
BITWISE(bitwise_xor, PG_K_BITWISE_XOR)

int op_bitwise_not(pg_tensor *out, const pg_tensor *input) {
    int status = check_bits(input->impl->dtype);
    return status < 0 ? status : pg_unary(out, PG_K_BITWISE_NOT, input);
}

#define PREDICATE(NAME, KERNEL) \
    int op_##NAME(pg_tensor *out, const pg_tensor *input) { \
        return pg_pointwise(out, KERNEL, input->impl->dtype, PG_BOOL, 1, &(pg_operand){input, NULL}, -1, \
                            NULL); \
    }
PREDICATE(logical_not, PG_K_LOGICAL_NOT)
PREDICATE(isnan, PG_K_ISNAN)
PREDICATE(isinf, PG_K_ISINF)
PREDICATE(isfinite, PG_K_ISFINITE)

/* |a - b| <= atol + rtol |b|, or equal (infinities), or both NaN where that counts */
static const pg_tensor *close_to(pg_pool *p, const pg_tensor *a, const pg_tensor *b, double rtol, double atol,
                                 bool equal_nan) {
    const pg_tensor *same = x_eq(p, a, b, NULL);
    if (equal_nan) same = x_logical_or(p, same, x_logical_and(p, x_isnan(p, a), x_isnan(p, b)));
    const pg_tensor *limit = e_plus(p, e_times(p, x_abs(p, b), rtol), atol);
    const pg_tensor *near = x_le(p, x_abs(p, e_sub(p, a, b)), limit, NULL);
    return x_logical_or(p, same, x_logical_and(p, near, x_isfinite(p, b)));
}

static int check_close(const pg_tensor *a, const pg_tensor *b, double rtol, double atol) {
    if (a->impl->dtype != b->impl->dtype)
        return pg_fail("expected tensors of one dtype, got %s and %s", pg_dtype_name(a->impl->dtype),
                       pg_dtype_name(b->impl->dtype));
    if (!(rtol >= 0)) return pg_fail("rtol must not be negative, got %g", rtol);
    return atol >= 0 ? PG_OK : pg_fail("atol must not be negative, got %g", atol);
}

/* Integers and bools are compared as float64. */
static const pg_tensor *comparable(pg_pool *p, const pg_tensor *x) {
    if (pg_is_float(x->impl->dtype)) return x;
    pg_tensor *t = pg_pool_new(p);
    if (p->status >= 0) pg_pool_note(p, pg_converted(t, x, PG_FLOAT64));
    return t;
}

int op_isclose(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, double rtol, double atol,
               bool equal_nan) {
    int status = check_close(input, other, rtol, atol);
    if (status < 0) return status;
    pg_pool p;
    pg_pool_begin(&p);
    return pg_pool_return(&p, out, close_to(&p, comparable(&p, input), comparable(&p, other), rtol, atol,
                                            equal_nan));
}

/* Whether all elements of a bool tensor are true. */
static int all_true(bool *out, pg_pool *p, const pg_tensor *t) {
    const pg_tensor *all = x_all(p, t, NULL, 0, false);
    pg_number n = {0};
    if (p->status >= 0) pg_pool_note(p, pg_item(&n, all));
    *out = n.i != 0;
    return pg_pool_end(p);
}

int op_allclose(bool *out, const pg_tensor *input, const pg_tensor *other, double rtol, double atol,
                bool equal_nan) {
    int status = check_close(input, other, rtol, atol);
    if (status < 0) return status;
    pg_pool p;
    pg_pool_begin(&p);
    return all_true(out, &p, close_to(&p, comparable(&p, input), comparable(&p, other), rtol, atol,
                                      equal_nan));
}

int op_equal(bool *out, const pg_tensor *input, const pg_tensor *other) {
    *out = false;
    if (!pg_same_shape(input, other)) return PG_OK;
    pg_pool p;
    pg_pool_begin(&p);
    return all_true(out, &p, x_eq(&p, input, other, NULL));
}

/* ---- where ---- */

/* inputs: condition, input, other */
static int where_backward(pg_backward *b) {
    pg_pool *p = b->pool;
    const pg_tensor *condition = pg_saved(b, PG_IN(0));
    if (b->needs[1]) b->input[1] = e_keep(p, condition, b->grad[0]);
    if (b->needs[2]) b->input[2] = e_drop(p, condition, b->grad[0]);
    return p->status;
}
static const pg_rule where_rule = {.name = "where", .backward = where_backward,
                                   .uses = {0, PG_USE(PG_IN(0)), PG_USE(PG_IN(0))}};

int op_where(pg_tensor *out, const pg_tensor *condition, const pg_tensor *input,
             const pg_number *input_number, const pg_tensor *other, const pg_number *other_number) {
    if (condition->impl->dtype != PG_BOOL)
        return pg_fail("expected condition to be a bool tensor, got %s",
                       pg_dtype_name(condition->impl->dtype));
    pg_result_type r = PG_RESULT;
    if (input) pg_result_add(&r, input);
    else pg_result_add_number(&r, input_number);
    if (other) pg_result_add(&r, other);
    else pg_result_add_number(&r, other_number);
    int dtype = pg_result(&r);
    pg_operand operands[] = {{condition, NULL}, {input, input_number}, {other, other_number}};
    int status = pg_pointwise(out, PG_K_WHERE, dtype, dtype, 3, operands, 0, NULL);
    return status < 0 ? status : pg_record1(&where_rule, out, NULL, 0, condition, input, other);
}

int op__where(pg_tensor *out, const pg_tensor *input, const pg_tensor *condition, const pg_tensor *other,
              const pg_number *other_number) {
    return op_where(out, condition, input, NULL, other, other_number);
}

/* ---- clamp ---- */

/* args: the bounds, each a number or of kind -1 where it is absent. At a bound the gradient is 0. */
static int clamp_backward(pg_backward *b) {
    const pg_number *bounds = b->args;
    pg_pool *p = b->pool;
    const pg_tensor *x = X, *above = NULL, *below = NULL;
    if (bounds[0].kind >= 0) above = x_gt(p, x, NULL, &bounds[0]);
    if (bounds[1].kind >= 0) below = x_lt(p, x, NULL, &bounds[1]);
    b->input[0] = e_keep(p, above && below ? x_logical_and(p, above, below) : above ? above : below,
                         b->grad[0]);
    return p->status;
}
static const pg_rule clamp_rule = {.name = "clamp", .backward = clamp_backward, .uses = {PG_USES_X}};

/* A bound as a tensor. */
static const pg_tensor *bound_tensor(pg_pool *p, const pg_tensor *like, const pg_tensor *t,
                                     const pg_number *n) {
    return t || !n ? t : x_full(p, NULL, 0, n, like->impl->dtype, pg_device_of(like)->name, false);
}

int op_clamp(pg_tensor *out, const pg_tensor *input, const pg_tensor *min, const pg_number *min_number,
             const pg_tensor *max, const pg_number *max_number) {
    bool has_min = min || min_number, has_max = max || max_number;
    if (!has_min && !has_max) return pg_fail("at least one of min and max must not be nil");
    /* gradients reach the bounds: the larger of the one, the smaller of the other */
    if (min || max) {
        pg_pool p;
        pg_pool_begin(&p);
        const pg_tensor *x = input;
        if (has_min) x = x_maximum(&p, x, bound_tensor(&p, input, min, min_number));
        if (has_max && p.status >= 0) x = x_minimum(&p, x, bound_tensor(&p, input, max, max_number));
        return pg_pool_return(&p, out, x);
    }
    pg_result_type r = PG_RESULT;
    pg_result_add(&r, input);
    if (has_min) pg_result_add_number(&r, min_number);
    if (has_max) pg_result_add_number(&r, max_number);
    int dtype = pg_result(&r), status = check_not_bools(dtype, "clamp");
    if (status < 0) return status;
    if (has_min && has_max) {
        pg_operand operands[] = {{input, NULL}, {NULL, min_number}, {NULL, max_number}};
        status = pg_pointwise(out, PG_K_CLAMP, dtype, dtype, 3, operands, -1, NULL);
    } else {
        status = binary(out, has_min ? PG_K_MAXIMUM : PG_K_MINIMUM, input, NULL,
                        has_min ? min_number : max_number, dtype, NULL);
    }
    const pg_number absent = {-1, 0, 0};
    const pg_number bounds[] = {has_min ? *min_number : absent, has_max ? *max_number : absent};
    return status < 0 ? status : pg_record1(&clamp_rule, out, bounds, sizeof bounds, input);
}

/* ---- one operand, the dtype kept ---- */

PG_RULE(neg, PG_USES_NONE, x_neg(p, g));
PG_RULE(abs, PG_USES_X, e_mul(p, g, x_sign(p, X)));
PG_RULE(sign, PG_USES_NONE, e_zeros(p, g));
PG_RULE(square, PG_USES_X, e_mul(p, g, e_times(p, X, 2)));
PG_RULE(floor, PG_USES_NONE, e_zeros(p, g));
PG_RULE(ceil, PG_USES_NONE, e_zeros(p, g));
PG_RULE(trunc, PG_USES_NONE, e_zeros(p, g));
PG_RULE(round, PG_USES_NONE, e_zeros(p, g));

int op_neg(pg_tensor *out, const pg_tensor *input) {
    if (input->impl->dtype == PG_BOOL)
        return pg_fail("negation of a bool tensor is not supported: use logical_not to invert a mask");
    int status = pg_unary(out, PG_K_NEG, input);
    return status < 0 ? status : pg_record1(&neg_rule, out, NULL, 0, input);
}

#define KEEPS_DTYPE(NAME, KERNEL) \
    int op_##NAME(pg_tensor *out, const pg_tensor *input) { \
        int status = check_not_bools(input->impl->dtype, #NAME); \
        if (status >= 0) status = pg_unary(out, KERNEL, input); \
        return status < 0 ? status : pg_record1(&NAME##_rule, out, NULL, 0, input); \
    }
KEEPS_DTYPE(floor, PG_K_FLOOR)
KEEPS_DTYPE(ceil, PG_K_CEIL)
KEEPS_DTYPE(trunc, PG_K_TRUNC)

KEEPS_DTYPE(abs, PG_K_ABS)

/* Bools are their own signs; their squares are integers. */
int op_sign(pg_tensor *out, const pg_tensor *input) {
    int status = input->impl->dtype == PG_BOOL ? pg_dense(out, input) : pg_unary(out, PG_K_SIGN, input);
    return status < 0 ? status : pg_record1(&sign_rule, out, NULL, 0, input);
}
int op_square(pg_tensor *out, const pg_tensor *input) {
    int dtype = input->impl->dtype == PG_BOOL ? PG_INT64 : input->impl->dtype;
    int status = pg_pointwise(out, PG_K_SQUARE, dtype, dtype, 1, &(pg_operand){input, NULL}, -1, NULL);
    return status < 0 ? status : pg_record1(&square_rule, out, NULL, 0, input);
}

int op_round(pg_tensor *out, const pg_tensor *input, int64_t decimals) {
    int status = check_not_bools(input->impl->dtype, "round");
    if (status < 0) return status;
    if (decimals == 0) {
        status = pg_unary(out, PG_K_ROUND, input);
    } else {
        if ((status = pg_check_floating(input)) < 0) return status;
        double scale = pow(10, (double)(decimals < 0 ? -decimals : decimals));
        int dtype = input->impl->dtype;
        pg_number n = pg_float(scale);
        pg_tensor scaled = PG_HANDLE, rounded = PG_HANDLE;
        status = binary(&scaled, decimals > 0 ? PG_K_MUL : PG_K_DIV, input, NULL, &n, dtype, NULL);
        if (status >= 0) status = pg_unary(&rounded, PG_K_ROUND, &scaled);
        if (status >= 0)
            status = binary(out, decimals > 0 ? PG_K_DIV : PG_K_MUL, &rounded, NULL, &n, dtype, NULL);
        pg_tensor_release(&scaled);
        pg_tensor_release(&rounded);
    }
    return status < 0 ? status : pg_record1(&round_rule, out, NULL, 0, input);
}

/* ---- one operand, floating ---- */

#define LN2 0.69314718055994530942
#define LN10 2.30258509299404568402
PG_RULE(exp, PG_USES_Y, e_mul(p, g, Y));
PG_RULE(expm1, PG_USES_Y, e_mul(p, g, e_plus(p, Y, 1)));
PG_RULE(exp2, PG_USES_Y, e_mul(p, g, e_times(p, Y, LN2)));
PG_RULE(log, PG_USES_X, e_div(p, g, X));
PG_RULE(log1p, PG_USES_X, e_div(p, g, e_plus(p, X, 1)));
PG_RULE(log2, PG_USES_X, e_div(p, g, e_times(p, X, LN2)));
PG_RULE(log10, PG_USES_X, e_div(p, g, e_times(p, X, LN10)));
PG_RULE(sqrt, PG_USES_Y, e_div(p, g, e_times(p, Y, 2)));
PG_RULE(rsqrt, PG_USES_Y, e_mul(p, g, e_times(p, e_power(p, Y, 3), -0.5)));
PG_RULE(reciprocal, PG_USES_Y, x_neg(p, e_mul(p, g, x_square(p, Y))));
PG_RULE(sin, PG_USES_X, e_mul(p, g, x_cos(p, X)));
PG_RULE(cos, PG_USES_X, x_neg(p, e_mul(p, g, x_sin(p, X))));
PG_RULE(tan, PG_USES_Y, e_mul(p, g, e_plus(p, x_square(p, Y), 1)));
PG_RULE(sinh, PG_USES_X, e_mul(p, g, x_cosh(p, X)));
PG_RULE(cosh, PG_USES_X, e_mul(p, g, x_sinh(p, X)));
PG_RULE(erf, PG_USES_X, e_mul(p, g, e_times(p, x_exp(p, x_neg(p, x_square(p, X))), 1.12837916709551257390)));
PG_FUSED_RULE(tanh, "tanh", PG_USES_Y, PG_K_TANH_BACKWARD, PG_OUT(0),
              e_mul(p, g, e_from(p, 1, x_square(p, Y))));
PG_FUSED_RULE(sigmoid, "sigmoid", PG_USES_Y, PG_K_SIGMOID_BACKWARD, PG_OUT(0),
              e_mul(p, g, e_mul(p, Y, e_from(p, 1, Y))));

#define FLOATING(NAME, KERNEL) \
    int op_##NAME(pg_tensor *out, const pg_tensor *input) { \
        int status = pg_unary_float(out, KERNEL, input, NULL); \
        return status < 0 ? status : pg_record1(&NAME##_rule, out, NULL, 0, input); \
    }
FLOATING(exp, PG_K_EXP)
FLOATING(expm1, PG_K_EXPM1)
FLOATING(exp2, PG_K_EXP2)
FLOATING(log, PG_K_LOG)
FLOATING(log1p, PG_K_LOG1P)
FLOATING(log2, PG_K_LOG2)
FLOATING(log10, PG_K_LOG10)
FLOATING(sqrt, PG_K_SQRT)
FLOATING(rsqrt, PG_K_RSQRT)
FLOATING(reciprocal, PG_K_RECIPROCAL)
FLOATING(sin, PG_K_SIN)
FLOATING(cos, PG_K_COS)
FLOATING(tan, PG_K_TAN)
FLOATING(sinh, PG_K_SINH)
FLOATING(cosh, PG_K_COSH)
FLOATING(tanh, PG_K_TANH)
FLOATING(sigmoid, PG_K_SIGMOID)
FLOATING(erf, PG_K_ERF)
