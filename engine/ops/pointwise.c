/* pointwise.c: arithmetic, element by element. */
#include "pointwise.h"

/* ---- the shared path ---- */

static bool same_dense(const pg_tensor *a, const pg_tensor *b) {
    return a->impl->contiguous && b->impl->contiguous && pg_same_shape(a, b);
}

/* All tensor operands have out's shape and are dense: one loop. */
static bool fill_dense(pg_strided *s, const pg_tensor *out, int n, const pg_operand *operands, int compute, int keep) {
    s->ndim = 1;
    s->n = n + 1;
    s->shape[0] = out->impl->numel;
    s->stride[0][0] = 1;
    s->data[0] = pg_data(out);
    for (int k = 0; k < n; k++) {
        const pg_tensor *t = operands[k].tensor;
        if (!t) {
            s->stride[k + 1][0] = 0;
            s->data[k + 1] = NULL;
            s->scalar[k + 1] = pg_value_of(operands[k].number, k == keep ? PG_BOOL : compute);
        } else if (same_dense(t, out)) {
            s->stride[k + 1][0] = 1;
            s->data[k + 1] = pg_data(t);
        } else {
            return false;
        }
    }
    return true;
}

static void fill_strided(pg_strided *s, const pg_tensor *out, int n, const pg_operand *operands, int compute, int keep) {
    pg_strided_begin(s, out->impl->ndim, out->impl->shape);
    pg_strided_add(s, out);
    for (int k = 0; k < n; k++)
        if (operands[k].tensor) pg_strided_add(s, operands[k].tensor);
        else pg_strided_add_value(s, pg_value_of(operands[k].number, k == keep ? PG_BOOL : compute));
    pg_strided_end(s);
}

enum { OPERANDS_MAX = PG_K_OPERANDS - 1 };

int pg_pointwise(pg_tensor *out, int op, int compute, int result, int n, const pg_operand *operands, int keep, const double *p) {
    pg_tensor converted[OPERANDS_MAX];
    pg_operand use[OPERANDS_MAX];
    int64_t shape[PG_DIMS_MAX] = {0};
    int ndim = -1, status = PG_OK, made = 0;
    const pg_device *device = NULL;
    for (int k = 0; k < n && status >= 0; k++) {
        const pg_tensor *t = operands[k].tensor;
        use[k] = operands[k];
        if (!t) continue;
        if (ndim < 0) {
            ndim = t->impl->ndim;
            for (int i = 0; i < ndim; i++) shape[i] = t->impl->shape[i];
            device = pg_device_of(t);
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
    if (status >= 0 && out->impl->numel > 0) {
        pg_strided s;
        if (!fill_dense(&s, out, n, use, compute, keep)) fill_strided(&s, out, n, use, compute, keep);
        status = PG_RUN(device, pointwise, op, compute, &s, p);
        if (status < 0) pg_tensor_release(out);
    }
    while (made > 0) pg_tensor_release(&converted[--made]);
    return status;
}

int pg_result_of(const pg_tensor *a, const pg_tensor *b, const pg_number *b_number) {
    if (b && a->impl->dtype == b->impl->dtype) return a->impl->dtype;
    pg_result_type r = PG_RESULT;
    pg_result_add(&r, a);
    if (b) pg_result_add(&r, b);
    else pg_result_add_number(&r, b_number);
    return pg_result(&r);
}



static bool is_one(const pg_number *n) { return n->kind == PG_NUMBER_FLOAT ? n->d == 1 : n->i == 1; }

/* ---- add ---- */

static int add_backward(pg_backward *b) {
    const pg_number *alpha = b->args;
    b->input[0] = b->grad[0];
    if (b->n_inputs > 1 && b->needs[1]) b->input[1] = is_one(alpha) ? b->grad[0] : x_mul(b->pool, b->grad[0], NULL, alpha);
    return b->pool->status;
}
static const pg_rule add_rule = {.name = "add", .backward = add_backward};

int op_add(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number, const pg_number *alpha) {
    int dtype = pg_result_of(input, other, other_number), status;
    if (alpha->kind == PG_NUMBER_FLOAT && !pg_is_float(dtype))
        return pg_fail("for integral input tensors, alpha must not be a floating point number, got %g", alpha->d);
    pg_operand operands[] = {{input, NULL}, {other, other_number}};
    if (is_one(alpha)) {
        status = pg_pointwise(out, dtype == PG_BOOL ? PG_K_LOGICAL_OR : PG_K_ADD, dtype, dtype, 2, operands, -1, NULL);
    } else {
        double scale = alpha->kind == PG_NUMBER_FLOAT ? alpha->d : (double)alpha->i;
        status = pg_pointwise(out, PG_K_ADD_SCALED, dtype, dtype, 2, operands, -1, &scale);
    }
    return status < 0 ? status : pg_record1(&add_rule, out, alpha, sizeof *alpha, input, other);
}

/* ---- mul ---- */

static int mul_backward(pg_backward *b) {
    const pg_number *number = b->args;
    if (!b->needs[1] && number->kind >= 0) {
        b->input[0] = x_mul(b->pool, b->grad[0], NULL, number);
        return b->pool->status;
    }
    if (b->needs[0]) b->input[0] = x_mul(b->pool, b->grad[0], pg_saved(b, PG_IN(1)), NULL);
    if (b->needs[1]) b->input[1] = x_mul(b->pool, b->grad[0], pg_saved(b, PG_IN(0)), NULL);
    return b->pool->status;
}
static const pg_rule mul_rule = {.name = "mul", .backward = mul_backward, .uses = {PG_USE(PG_IN(1)), PG_USE(PG_IN(0))}};

int op_mul(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number) {
    int dtype = pg_result_of(input, other, other_number);
    pg_operand operands[] = {{input, NULL}, {other, other_number}};
    int status = pg_pointwise(out, PG_K_MUL, dtype, dtype, 2, operands, -1, NULL);
    if (status < 0) return status;
    /* kind -1: the other operand is a tensor */
    pg_number number = other ? (pg_number){-1, 0, 0} : *other_number;
    return pg_record1(&mul_rule, out, &number, sizeof number, input, other);
}

/* ---- div, pow ---- */

static pg_number float_number(double d) { return (pg_number){PG_NUMBER_FLOAT, 0, d}; }
static double number_value(const pg_number *n) { return n->kind == PG_NUMBER_FLOAT ? n->d : (double)n->i; }

static int div_backward(pg_backward *b) {
    const pg_number *number = b->args;
    pg_pool *p = b->pool;
    pg_number minus = float_number(-1);
    if (number->kind >= 0) {
        b->input[0] = x_div(p, b->grad[0], NULL, number, -1);
        return p->status;
    }
    const pg_tensor *other = pg_saved(b, PG_IN(1));
    if (b->needs[0]) b->input[0] = x_div(p, b->grad[0], other, NULL, -1);
    if (b->needs[1]) {
        pg_tensor *ratio = x_div(p, x_div(p, pg_saved(b, PG_IN(0)), other, NULL, -1), other, NULL, -1);
        b->input[1] = x_mul(p, x_mul(p, b->grad[0], ratio, NULL), NULL, &minus);
    }
    return p->status;
}
static const pg_rule div_rule = {
    .name = "div", .backward = div_backward, .uses = {PG_USE(PG_IN(1)), PG_USE(PG_IN(0)) | PG_USE(PG_IN(1))}};

int op_div(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number, int rounding_mode) {
    int dtype = pg_result_of(input, other, other_number), compute = pg_float_dtype(dtype);
    pg_operand operands[] = {{input, NULL}, {other, other_number}};
    if (rounding_mode >= 0 && !pg_is_float(dtype) && rounding_mode == 1)
        return pg_pointwise(out, PG_K_FLOOR_DIVIDE, dtype, dtype, 2, operands, -1, NULL);
    int status = pg_pointwise(out, PG_K_DIV, compute, compute, 2, operands, -1, NULL);
    if (status < 0) return status;
    if (rounding_mode >= 0) {
        pg_tensor rounded = PG_HANDLE;
        pg_operand whole = {out, NULL};
        status = pg_pointwise(&rounded, rounding_mode == 1 ? PG_K_FLOOR : PG_K_TRUNC, compute, compute, 1, &whole, -1, NULL);
        pg_tensor_release(out);
        if (status >= 0) status = pg_converted(out, &rounded, dtype);
        pg_tensor_release(&rounded);
        return status;
    }
    pg_number number = other ? (pg_number){-1, 0, 0} : *other_number;
    return pg_record1(&div_rule, out, &number, sizeof number, input, other);
}

static int pow_backward(pg_backward *b) {
    const pg_number *number = b->args;
    pg_pool *p = b->pool;
    const pg_tensor *x = pg_saved(b, PG_IN(0));
    if (number->kind >= 0) {
        double e = number_value(number);
        pg_number factor = float_number(e), less = float_number(e - 1);
        if (e == 0) b->input[0] = x_zeros_like(p, b->grad[0], -1, NULL, false);
        else b->input[0] = x_mul(p, b->grad[0], x_mul(p, x_pow(p, x, NULL, &less), NULL, &factor), NULL);
        return p->status;
    }
    const pg_tensor *e = pg_saved(b, PG_IN(1));
    pg_number one = float_number(1), minus = {PG_NUMBER_INT, -1, 0};
    if (b->needs[0]) {
        pg_tensor *ones = x_full_like(p, e, &one, -1, NULL, false);
        b->input[0] = x_mul(p, b->grad[0], x_mul(p, e, x_pow(p, x, x_add(p, e, ones, NULL, &minus), NULL), NULL), NULL);
    }
    if (b->needs[1]) b->input[1] = x_mul(p, b->grad[0], x_mul(p, x_pow(p, x, e, NULL), x_log(p, x), NULL), NULL);
    return p->status;
}
static const pg_rule pow_rule = {.name = "pow", .backward = pow_backward,
                                 .uses = {PG_USE(PG_IN(0)) | PG_USE(PG_IN(1)), PG_USE(PG_IN(0)) | PG_USE(PG_IN(1))}};

int op_pow(pg_tensor *out, const pg_tensor *input, const pg_tensor *exponent, const pg_number *exponent_number) {
    int dtype = pg_result_of(input, exponent, exponent_number);
    if (!exponent && !pg_is_float(dtype) && number_value(exponent_number) < 0)
        return pg_fail("integers to negative integer powers are not allowed");
    pg_operand operands[] = {{input, NULL}, {exponent, exponent_number}};
    int status = pg_pointwise(out, PG_K_POW, dtype, dtype, 2, operands, -1, NULL);
    if (status < 0) return status;
    pg_number number = exponent ? (pg_number){-1, 0, 0} : *exponent_number;
    return pg_record1(&pow_rule, out, &number, sizeof number, input, exponent);
}

/* ---- abs, sign, exp, log ---- */

static int unary(pg_tensor *out, int op, const pg_tensor *x, int dtype, const pg_rule *rule) {
    pg_operand operand = {x, NULL};
    int status = pg_pointwise(out, op, dtype, dtype, 1, &operand, -1, NULL);
    return status < 0 ? status : pg_record1(rule, out, NULL, 0, x);
}

static int abs_backward(pg_backward *b) {
    b->input[0] = x_mul(b->pool, b->grad[0], x_sign(b->pool, pg_saved(b, PG_IN(0))), NULL);
    return b->pool->status;
}
static const pg_rule abs_rule = {.name = "abs", .backward = abs_backward, .uses = {PG_USE(PG_IN(0))}};

int op_abs(pg_tensor *out, const pg_tensor *input) { return unary(out, PG_K_ABS, input, pg_dtype_of(input), &abs_rule); }

static int flat_backward(pg_backward *b) {
    b->input[0] = x_zeros_like(b->pool, b->grad[0], -1, NULL, false);
    return b->pool->status;
}
static const pg_rule sign_rule = {.name = "sign", .backward = flat_backward};

int op_sign(pg_tensor *out, const pg_tensor *input) { return unary(out, PG_K_SIGN, input, pg_dtype_of(input), &sign_rule); }

static int exp_backward(pg_backward *b) {
    b->input[0] = x_mul(b->pool, b->grad[0], pg_saved(b, PG_OUT(0)), NULL);
    return b->pool->status;
}
static const pg_rule exp_rule = {.name = "exp", .backward = exp_backward, .uses = {PG_USE(PG_OUT(0))}};

int op_exp(pg_tensor *out, const pg_tensor *input) {
    return unary(out, PG_K_EXP, input, pg_float_dtype(pg_dtype_of(input)), &exp_rule);
}

static int log_backward(pg_backward *b) {
    b->input[0] = x_div(b->pool, b->grad[0], pg_saved(b, PG_IN(0)), NULL, -1);
    return b->pool->status;
}
static const pg_rule log_rule = {.name = "log", .backward = log_backward, .uses = {PG_USE(PG_IN(0))}};

int op_log(pg_tensor *out, const pg_tensor *input) {
    return unary(out, PG_K_LOG, input, pg_float_dtype(pg_dtype_of(input)), &log_rule);
}
