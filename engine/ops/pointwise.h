/* pointwise.h: what the families of pointwise ops share: promotion, broadcasting, the kernel's call, and
 * short names for gradient rules. No history is recorded here. */
#ifndef PG_POINTWISE_H
#define PG_POINTWISE_H

#include "ops.h"

/* An operand: a tensor, or a number where tensor is NULL. */
typedef struct pg_operand { const pg_tensor *tensor; const pg_number *number; } pg_operand;

/* out = op(operands...) over their broadcast shape, computed in `compute` (operands of other dtypes are
 * converted first); the result has dtype `result`: compute, or bool for predicates. At least one operand is
 * a tensor. p: the kernel's constants or NULL. keep: which operand stays as it is (a bool condition), or
 * -1. */
int pg_pointwise(pg_tensor *out, int op, int compute, int result, int n, const pg_operand *operands, int keep,
                 const double *p);

/* The common dtype of two operands (PyTorch's result_type). */
int pg_result_of(const pg_tensor *a, const pg_tensor *b, const pg_number *b_number);

/* out = op(x) in x's dtype, or, for ops of floats, in the default dtype where x is not floating. */
int pg_unary(pg_tensor *out, int op, const pg_tensor *x);
int pg_unary_float(pg_tensor *out, int op, const pg_tensor *x, const double *p);
/* In fused rules: input 0's gradient = op(grad 0, saved), saved as PG_IN or PG_OUT. */
int pg_fused(pg_backward *b, int op, int saved, const double *p);
/* "gelu expects a floating-point tensor, got int64". */
int pg_check_floating(const pg_tensor *x);

/* ---- expressions of gradient rules ---- */

static inline pg_number pg_float(double v) { return (pg_number){PG_NUMBER_FLOAT, 0, v}; }
#define PG_FLOAT(v) (&(pg_number){PG_NUMBER_FLOAT, 0, (v)})
#define PG_INT(v) (&(pg_number){PG_NUMBER_INT, (v), 0})

static inline pg_tensor *e_add(pg_pool *p, const pg_tensor *a, const pg_tensor *b) {
    return x_add(p, a, b, NULL, PG_INT(1));
}
static inline pg_tensor *e_sub(pg_pool *p, const pg_tensor *a, const pg_tensor *b) {
    return x_sub(p, a, b, NULL, PG_INT(1));
}
static inline pg_tensor *e_mul(pg_pool *p, const pg_tensor *a, const pg_tensor *b) {
    return x_mul(p, a, b, NULL);
}
static inline pg_tensor *e_div(pg_pool *p, const pg_tensor *a, const pg_tensor *b) {
    return x_div(p, a, b, NULL, -1);
}
/* a + v, a * v */
static inline pg_tensor *e_plus(pg_pool *p, const pg_tensor *a, double v) {
    return x_add(p, a, NULL, PG_FLOAT(v), PG_INT(1));
}
static inline pg_tensor *e_times(pg_pool *p, const pg_tensor *a, double v) {
    return x_mul(p, a, NULL, PG_FLOAT(v));
}
/* v - a */
static inline pg_tensor *e_from(pg_pool *p, double v, const pg_tensor *a) {
    return x_rsub(p, a, NULL, PG_FLOAT(v), PG_INT(1));
}
static inline pg_tensor *e_power(pg_pool *p, const pg_tensor *a, double v) {
    return x_pow(p, a, NULL, PG_FLOAT(v));
}
/* a where c, else 0; 0 where c, else a */
static inline pg_tensor *e_keep(pg_pool *p, const pg_tensor *c, const pg_tensor *a) {
    return x_where(p, c, a, NULL, NULL, PG_INT(0));
}
static inline pg_tensor *e_drop(pg_pool *p, const pg_tensor *c, const pg_tensor *a) {
    return x_where(p, c, NULL, PG_INT(0), a, NULL);
}
static inline pg_tensor *e_zeros(pg_pool *p, const pg_tensor *like) {
    return x_zeros_like(p, like, -1, NULL, false);
}

/* A rule for one input: `expression` in p (the pool), g (the gradient), X (input 0) and Y (output 0). */
#define X pg_saved(b, PG_IN(0))
#define Y pg_saved(b, PG_OUT(0))
#define PG_USES_NONE 0
#define PG_USES_X PG_USE(PG_IN(0))
#define PG_USES_Y PG_USE(PG_OUT(0))
#define PG_RULE(NAME, reads, expression) \
    static int NAME##_backward(pg_backward *b) { \
        pg_pool *p = b->pool; \
        const pg_tensor *g = b->grad[0]; \
        b->input[0] = expression; \
        return p->status; \
    } \
    static const pg_rule NAME##_rule = {.name = #NAME, .backward = NAME##_backward, .uses = {reads}}
/* The same with a kernel (grad, saved) for when the gradient itself is not recorded. NAME: of the C
 * functions, called: of the op. */
#define PG_FUSED_RULE(NAME, called, reads, kernel, saved, expression) \
    static int NAME##_backward(pg_backward *b) { \
        pg_pool *p = b->pool; \
        const pg_tensor *g = b->grad[0]; \
        b->input[0] = expression; \
        return p->status; \
    } \
    static int NAME##_fused(pg_backward *b) { return pg_fused(b, kernel, saved, b->args); } \
    static const pg_rule NAME##_rule = {.name = called, .backward = NAME##_backward, .fused = NAME##_fused, \
                                        .uses = {reads}}

/* out = act(z) was computed elsewhere (PG_K_ACT_): records it. relu needs of z its history alone. */
int pg_record_activation(int activation, pg_tensor *out, const pg_tensor *z);

#endif
