/* loss.c: cross entropy, fused from logits: what a row needs is its maximum and the sum of its exponentials, and the gradient is
 * written in one pass from the saved log of that sum.
 *
 * With weights w, smoothing s over C classes and target probabilities t (one-hot for class ids), a row's target mass is
 * q_c = w_c ((1 - s) t_c + s / C), its loss sum_c q_c (lse - x_c), its gradient softmax(x)_c sum(q) - q_c. For class ids PyTorch
 * weighs the first term by w of the target's class, which is the same q.
 */
#ifndef T

#include "halves.h"
#include "rows.h"

typedef struct loss_arg {
    const pg_context *context;
    const pg_classifier *c;
    void *loss, *lse, *row_weight;
    const void *saved, *grad;
    int64_t grad_stride;
    void *dlogits;
} loss_arg;

static void bad_index(const pg_context *context, int64_t index, int64_t size) {
    __atomic_store_n(&context->bad_index[2], size, __ATOMIC_RELAXED);
    __atomic_store_n(&context->bad_index[1], index, __ATOMIC_RELAXED);
    __atomic_store_n(&context->bad_index[0], 1, __ATOMIC_RELAXED);
}

#define BODY "loss.c"
#include "each_float.h"

static int64_t loss_grain(int64_t n) { return n >= 4096 ? 1 : 4096 / (n + 1) + 1; }

/* The classifier in float32. */
static int widen_classifier(const pg_context *context, int dtype, const pg_classifier *c, pg_classifier *wide) {
    *wide = *c;
    wide->logits = widened(context, dtype, c->rows > 0 ? (c->rows - 1) * c->row_stride + c->classes : 0, c->logits);
    if (c->probabilities) wide->probabilities = widened(context, dtype, c->rows * c->classes, c->probabilities);
    if (c->weight) wide->weight = widened(context, dtype, c->classes, c->weight);
    return wide->logits && (wide->probabilities || !c->probabilities) && (wide->weight || !c->weight);
}

int PG_K(cross_entropy)(const pg_context *context, int dtype, const pg_classifier *c, void *loss, void *lse, void *row_weight) {
    if (c->rows <= 0) return PG_KERNEL_OK;
    if (is_half(dtype)) {
        pg_classifier wide;
        if (!widen_classifier(context, dtype, c, &wide)) return PG_KERNEL_NO_SCRATCH;
        return PG_K(cross_entropy)(context, PG_K_FLOAT32, &wide, loss, lse, row_weight);
    }
    loss_arg arg = {.context = context, .c = c, .loss = loss, .lse = lse, .row_weight = row_weight};
    if (dtype == PG_K_FLOAT32) parallel(context, c->rows, loss_grain(c->classes), loss_f32, &arg);
    else if (dtype == PG_K_FLOAT64) parallel(context, c->rows, loss_grain(c->classes), loss_f64, &arg);
    else return PG_KERNEL_UNSUPPORTED;
    return context->bad_index[0] ? PG_KERNEL_BAD_INDEX : PG_KERNEL_OK;
}

int PG_K(cross_entropy_backward)(const pg_context *context, int dtype, const pg_classifier *c, const void *lse,
                                 const void *grad_rows, int64_t grad_stride, void *dlogits) {
    if (c->rows <= 0) return PG_KERNEL_OK;
    if (is_half(dtype)) {
        pg_classifier wide;
        float *d = context->scratch(context, (size_t)(c->rows * c->classes) * sizeof *d);
        if (!widen_classifier(context, dtype, c, &wide) || !d) return PG_KERNEL_NO_SCRATCH;
        const int status = PG_K(cross_entropy_backward)(context, PG_K_FLOAT32, &wide, lse, grad_rows, grad_stride, d);
        return status ? status : narrowed(context, dtype, c->rows * c->classes, d, dlogits);
    }
    loss_arg arg = {.context = context, .c = c, .saved = lse, .grad = grad_rows, .grad_stride = grad_stride, .dlogits = dlogits};
    if (dtype == PG_K_FLOAT32) parallel(context, c->rows, loss_grain(c->classes), loss_backward_f32, &arg);
    else if (dtype == PG_K_FLOAT64) parallel(context, c->rows, loss_grain(c->classes), loss_backward_f64, &arg);
    else return PG_KERNEL_UNSUPPORTED;
    return context->bad_index[0] ? PG_KERNEL_BAD_INDEX : PG_KERNEL_OK;
}

#else

static void F(loss)(void *arg, int64_t begin, int64_t end, int worker) {
    const loss_arg *a = arg;
    const pg_classifier *c = a->c;
    const int64_t n = c->classes;
    const T *w = c->weight;
    const T smoothing = (T)c->label_smoothing, spread = smoothing / (T)n;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const T *x = (const T *)c->logits + r * c->row_stride;
        const int64_t target = c->target ? c->target[r] : 0;
        if (c->target && (target < 0 || target >= n) && target != c->ignore_index) {
            bad_index(a->context, target, n);
            return;
        }
        const T top = F(row_max)(n, x), shift = top == (T)-INFINITY ? 0 : top;
        T term[512], sum = 0;
        for (int64_t i = 0; i < n; i += 512) {
            const int64_t m = n - i < 512 ? n - i : 512;
            F(row_exp)(m, x + i, shift, term);
            sum += F(row_sum)(m, term);
        }
        const T lse = shift + (T)log((double)sum);
        ((T *)a->lse)[r] = lse;
        T loss = 0, weight = 1;
        if (c->target && target == c->ignore_index) {
            weight = 0;
        } else if (c->target) {
            weight = w ? w[target] : 1;
            loss = (1 - smoothing) * weight * (lse - x[target]);
            if (smoothing != 0) {
                T rest = 0;
                for (int64_t i = 0; i < n; i++) rest += (w ? w[i] : 1) * (lse - x[i]);
                loss += spread * rest;
            }
        } else {
            const T *t = (const T *)c->probabilities + r * n;
            for (int64_t i = 0; i < n; i++) {
                const T q = (w ? w[i] : 1) * ((1 - smoothing) * t[i] + spread);
                loss += q != 0 ? q * (lse - x[i]) : 0;
            }
        }
        ((T *)a->loss)[r] = loss;
        ((T *)a->row_weight)[r] = weight;
    }
}

static void F(loss_backward)(void *arg, int64_t begin, int64_t end, int worker) {
    const loss_arg *a = arg;
    const pg_classifier *c = a->c;
    const int64_t n = c->classes;
    const T *w = c->weight;
    const T smoothing = (T)c->label_smoothing, spread = smoothing / (T)n;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const T *x = (const T *)c->logits + r * c->row_stride;
        const T lse = ((const T *)a->saved)[r], g = ((const T *)a->grad)[r * a->grad_stride];
        const int64_t target = c->target ? c->target[r] : 0;
        T *dx = (T *)a->dlogits + r * n;
        if (c->target && target == c->ignore_index) {
            memset(dx, 0, (size_t)n * sizeof(T));
            continue;
        }
        if (c->target && (target < 0 || target >= n)) {
            bad_index(a->context, target, n);
            return;
        }
        if (c->target && smoothing == 0) {
            const T scale = g * (w ? w[target] : 1);
            for (int64_t i = 0; i < n; i++) dx[i] = scale * F(exp)(x[i] - lse);
            dx[target] -= scale;
            continue;
        }
        const T *t = c->target ? NULL : (const T *)c->probabilities + r * n;
        T mass = 0;
        for (int64_t i = 0; i < n; i++)
            mass += t ? (w ? w[i] : 1) * ((1 - smoothing) * t[i] + spread) : spread * (w ? w[i] : 1);
        if (!t) mass += (1 - smoothing) * (w ? w[target] : 1);
        for (int64_t i = 0; i < n; i++) {
            const T q = (w ? w[i] : 1) * (t ? (1 - smoothing) * t[i] + spread : spread);
            dx[i] = g * (F(exp)(x[i] - lse) * mass - q);
        }
        if (!t) dx[target] -= g * (1 - smoothing) * (w ? w[target] : 1);
    }
}

#endif
