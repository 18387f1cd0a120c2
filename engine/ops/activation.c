/* activation.c: the nonlinearities of networks. */
#include "pointwise.h"

/* ---- relu ---- */

PG_FUSED_RULE(relu, "relu", PG_USES_Y, PG_K_RELU_BACKWARD, PG_OUT(0),
              e_drop(p, x_le(p, Y, NULL, PG_INT(0)), g));

int op_relu(pg_tensor *out, const pg_tensor *input) {
    if (input->impl->dtype == PG_BOOL) return pg_fail("bool tensors are not supported");
    int status = pg_unary(out, PG_K_RELU, input);
    return status < 0 ? status : pg_record1(&relu_rule, out, NULL, 0, input);
}

/* ---- gelu ---- */

/* Phi(x) + x phi(x) */
static const pg_tensor *gelu_slope(pg_pool *p, const pg_tensor *x) {
    const pg_tensor *cdf = e_times(p, e_plus(p, x_erf(p, e_times(p, x, 0.70710678118654752440)), 1), 0.5);
    const pg_tensor *density = e_times(p, x_exp(p, e_times(p, x_square(p, x), -0.5)), 0.39894228040143267794);
    return e_add(p, cdf, e_mul(p, x, density));
}
/* t = tanh(k (x + c x^3)): (1 + t) / 2 + x (1 - t^2) k (1 + 3 c x^2) / 2 */
static const pg_tensor *gelu_tanh_slope(pg_pool *p, const pg_tensor *x) {
    const double k = 0.79788456080286535588, c = 0.044715;
    const pg_tensor *x2 = x_square(p, x);
    const pg_tensor *t = x_tanh(p, e_times(p, e_mul(p, x, e_plus(p, e_times(p, x2, c), 1)), k));
    const pg_tensor *inner = e_mul(p, e_from(p, 1, x_square(p, t)), e_plus(p, e_times(p, x2, 3 * c), 1));
    return e_add(p, e_times(p, e_plus(p, t, 1), 0.5), e_times(p, e_mul(p, x, inner), 0.5 * k));
}
PG_FUSED_RULE(gelu, "gelu", PG_USES_X, PG_K_GELU_BACKWARD, PG_IN(0), e_mul(p, g, gelu_slope(p, X)));
PG_FUSED_RULE(gelu_tanh, "gelu", PG_USES_X, PG_K_GELU_TANH_BACKWARD, PG_IN(0),
              e_mul(p, g, gelu_tanh_slope(p, X)));

int op_gelu(pg_tensor *out, const pg_tensor *input, int approximate) {
    int status = pg_check_floating(input);
    if (status >= 0) status = pg_unary(out, approximate == 1 ? PG_K_GELU_TANH : PG_K_GELU, input);
    return status < 0 ? status : pg_record1(approximate == 1 ? &gelu_tanh_rule : &gelu_rule, out, NULL, 0,
                                            input);
}

int pg_record_activation(int activation, pg_tensor *out, const pg_tensor *z) {
    const pg_rule *rule = activation == PG_K_ACT_RELU ? &relu_rule : activation == PG_K_ACT_GELU ? &gelu_rule
        : &gelu_tanh_rule;
    return pg_record1(rule, out, NULL, 0, z);
}

/* ---- silu, softplus, leaky_relu ---- */

/* s (1 + x (1 - s)), s = sigmoid(x) */
static const pg_tensor *silu_slope(pg_pool *p, const pg_tensor *x) {
    const pg_tensor *s = x_sigmoid(p, x);
    return e_mul(p, s, e_plus(p, e_mul(p, x, e_from(p, 1, s)), 1));
}
PG_FUSED_RULE(silu, "silu", PG_USES_X, PG_K_SILU_BACKWARD, PG_IN(0), e_mul(p, g, silu_slope(p, X)));

int op_silu(pg_tensor *out, const pg_tensor *input) {
    int status = pg_check_floating(input);
    if (status >= 0) status = pg_unary(out, PG_K_SILU, input);
    return status < 0 ? status : pg_record1(&silu_rule, out, NULL, 0, input);
}

/* args: beta, threshold */
static const pg_tensor *softplus_grad(pg_pool *p, const pg_tensor *g, const pg_tensor *x,
                                      const double *args) {
    const pg_tensor *z = e_times(p, x, args[0]);
    return x_where(p, x_gt(p, z, NULL, PG_FLOAT(args[1])), g, NULL, e_mul(p, g, x_sigmoid(p, z)), NULL);
}
PG_FUSED_RULE(softplus, "softplus", PG_USES_X, PG_K_SOFTPLUS_BACKWARD, PG_IN(0),
              softplus_grad(p, g, X, b->args));

int op_softplus(pg_tensor *out, const pg_tensor *input, double beta, double threshold) {
    double args[] = {beta, threshold};
    int status = pg_check_floating(input);
    if (status >= 0) status = pg_unary_float(out, PG_K_SOFTPLUS, input, args);
    return status < 0 ? status : pg_record1(&softplus_rule, out, args, sizeof args, input);
}

/* args: slope, and a constant that the kernel does not read */
static const pg_tensor *leaky_relu_grad(pg_pool *p, const pg_tensor *g, const pg_tensor *x,
                                        const double *args) {
    return x_where(p, x_gt(p, x, NULL, PG_INT(0)), g, NULL, e_times(p, g, args[0]), NULL);
}
PG_FUSED_RULE(leaky_relu, "leaky_relu", PG_USES_X, PG_K_LEAKY_RELU_BACKWARD, PG_IN(0),
              leaky_relu_grad(p, g, X, b->args));

int op_leaky_relu(pg_tensor *out, const pg_tensor *input, double negative_slope) {
    double args[] = {negative_slope, 0};
    int status = pg_check_floating(input);
    if (status >= 0) status = pg_unary_float(out, PG_K_LEAKY_RELU, input, args);
    return status < 0 ? status : pg_record1(&leaky_relu_rule, out, args, sizeof args, input);
}

/* ---- built from others ---- */

/* -softplus(-x), whose threshold would cut the tail of */
int op_logsigmoid(pg_tensor *out, const pg_tensor *input) {
    int status = pg_check_floating(input);
    if (status < 0) return status;
    pg_pool p;
    pg_pool_begin(&p);
    return pg_pool_return(&p, out, x_neg(&p, x_softplus(&p, x_neg(&p, input), 1, 80)));
}

int op_elu(pg_tensor *out, const pg_tensor *input, double alpha) {
    int status = pg_check_floating(input);
    if (status < 0) return status;
    pg_pool p;
    pg_pool_begin(&p);
    /* the exponential sees no positive number: its gradient there would be inf * 0 */
    const pg_tensor *above = x_gt(&p, input, NULL, PG_INT(0));
    const pg_tensor *below = e_times(&p, x_expm1(&p, x_where(&p, above, NULL, PG_INT(0), input, NULL)),
                                     alpha);
    return pg_pool_return(&p, out, x_where(&p, above, input, NULL, below, NULL));
}

int op_relu6(pg_tensor *out, const pg_tensor *input) {
    return op_clamp(out, input, NULL, PG_INT(0), NULL, PG_INT(6));
}

int op_hardtanh(pg_tensor *out, const pg_tensor *input, double min_val, double max_val) {
    if (!(min_val <= max_val))
        return pg_fail("min_val must not be larger than max_val, got %g and %g", min_val, max_val);
    pg_number low = pg_float(min_val), high = pg_float(max_val);
    return op_clamp(out, input, NULL, &low, NULL, &high);
}
