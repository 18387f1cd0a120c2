/* loss.c: cross entropy, fused from logits: what a row needs is its maximum and the sum of its exponentials, and the gradient is
 * written in one pass from the saved log of that sum, over the logits where that is asked. Halves are taken through float32 a row
 * at a time.
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
    int dtype;
    float *scratch;          /* halves: for each worker a row of logits and, where there are any, one of probabilities */
    void *loss, *lse, *row_weight;
    const void *saved, *grad;
    int64_t grad_stride, dlogits_stride;
    void *dlogits;
} loss_arg;

enum { PIECE = 512 };        /* of a row, whose exponentials stay in the first cache */

static void bad_index(const pg_context *context, int64_t index, int64_t size) {
    __atomic_store_n(&context->bad_index[2], size, __ATOMIC_RELAXED);
    __atomic_store_n(&context->bad_index[1], index, __ATOMIC_RELAXED);
    __atomic_store_n(&context->bad_index[0], 1, __ATOMIC_RELAXED);
}

/* Elements [at, at + classes) of rows, in the type of the arithmetic: where they lie, or widened into this worker's `part`. */
static const void *row_of(const loss_arg *a, const void *rows, int64_t at, int worker, int part) {
    const int64_t n = a->c->classes;
    if (!is_half(a->dtype)) return (const char *)rows + at * (a->dtype == PG_K_FLOAT64 ? 8 : 4);
    float *to = a->scratch + ((int64_t)worker * (a->c->probabilities ? 2 : 1) + part) * n;
    widen(a->dtype, n, (const uint16_t *)rows + at, to);
    return to;
}

#define BODY "loss.c"
#include "each_float.h"

static int over_rows(loss_arg *a, pg_body f32, pg_body f64) {
    const pg_context *context = a->context;
    const int64_t n = a->c->classes, grain = n >= 4096 ? 1 : 4096 / (n + 1) + 1;
    if (is_half(a->dtype)) {
        const int64_t rows = context->threads * (a->c->probabilities ? 2 : 1);
        a->scratch = context->scratch(context, (size_t)(rows * n + 1) * sizeof *a->scratch);
        if (!a->scratch) return PG_KERNEL_NO_SCRATCH;
    }
    if (is_half(a->dtype) || a->dtype == PG_K_FLOAT32) parallel(context, a->c->rows, grain, f32, a);
    else if (a->dtype == PG_K_FLOAT64) parallel(context, a->c->rows, grain, f64, a);
    else return PG_KERNEL_UNSUPPORTED;
    return context->bad_index[0] ? PG_KERNEL_BAD_INDEX : PG_KERNEL_OK;
}

int PG_K(cross_entropy)(const pg_context *context, int dtype, const pg_classifier *c, void *loss, void *lse, void *row_weight) {
    if (c->rows <= 0) return PG_KERNEL_OK;
    loss_arg arg = {.context = context, .c = c, .dtype = dtype, .loss = loss, .lse = lse, .row_weight = row_weight};
    return over_rows(&arg, loss_f32, loss_f64);
}

int PG_K(cross_entropy_backward)(const pg_context *context, int dtype, const pg_classifier *c, const void *lse,
                                 const void *grad_rows, int64_t grad_stride, void *dlogits, int64_t dlogits_stride) {
    if (c->rows <= 0) return PG_KERNEL_OK;
    loss_arg arg = {.context = context, .c = c, .dtype = dtype, .saved = lse, .grad = grad_rows, .grad_stride = grad_stride,
                    .dlogits = dlogits, .dlogits_stride = dlogits_stride};
    return over_rows(&arg, loss_backward_f32, loss_backward_f64);
}

#else

static void F(loss)(void *arg, int64_t begin, int64_t end, int worker) {
    const loss_arg *a = arg;
    const pg_classifier *c = a->c;
    const int64_t n = c->classes;
    const T *w = c->weight;
    const T smoothing = (T)c->label_smoothing, spread = smoothing / (T)n;
    for (int64_t r = begin; r < end; r++) {
        const T *x = row_of(a, c->logits, r * c->row_stride, worker, 0);
        const int64_t target = c->target ? c->target[r] : 0;
        if (c->target && (target < 0 || target >= n) && target != c->ignore_index) {
            bad_index(a->context, target, n);
            return;
        }
        const T top = F(row_max)(n, x), shift = top == (T)-INFINITY ? 0 : top;
        T term[PIECE], sum = 0;
        for (int64_t i = 0; i < n; i += PIECE) {
            const int64_t m = n - i < PIECE ? n - i : PIECE;
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
            const T *t = row_of(a, c->probabilities, r * n, worker, 1);
            for (int64_t i = 0; i < n; i++) {
                const T q = (w ? w[i] : 1) * ((1 - smoothing) * t[i] + spread);
                loss += q != 0 ? q * (lse - x[i]) : 0;
            }
        }
        ((T *)a->loss)[r] = loss;
        ((T *)a->row_weight)[r] = weight;
    }
}

/* A row's gradient to dx, which may be x. */
static void F(row_gradient)(const pg_classifier *c, const T *x, const T *t, int64_t target, T lse, T g, T *dx) {
    const int64_t n = c->classes;
    const T *w = c->weight;
    const T smoothing = (T)c->label_smoothing, spread = smoothing / (T)n;
    const bool plain = !t && smoothing == 0;
    const T own = t ? 0 : (1 - smoothing) * (w ? w[target] : 1);   /* q of the target's class beside every class's share */
    T mass = 0;                                                    /* sum(q) */
    if (!plain)
        for (int64_t i = 0; i < n; i++) mass += (w ? w[i] : 1) * (t ? (1 - smoothing) * t[i] + spread : spread);
    mass += own;
    const T scale = g * mass;
    for (int64_t i = 0; i < n; i += PIECE) {
        const int64_t m = n - i < PIECE ? n - i : PIECE;
        T term[PIECE], *d = dx + i;
        F(row_exp)(m, x + i, lse, term);
        if (plain) {
            for (int64_t j = 0; j < m; j++) d[j] = scale * term[j];
        } else {
            for (int64_t j = 0; j < m; j++) {
                const T q = (w ? w[i + j] : 1) * (t ? (1 - smoothing) * t[i + j] + spread : spread);
                d[j] = g * (term[j] * mass - q);
            }
        }
    }
    if (!t) dx[target] -= g * own;
}

static void F(loss_backward)(void *arg, int64_t begin, int64_t end, int worker) {
    const loss_arg *a = arg;
    const pg_classifier *c = a->c;
    const int64_t n = c->classes;
    const bool half = is_half(a->dtype);
    for (int64_t r = begin; r < end; r++) {
        const T lse = ((const T *)a->saved)[r], g = ((const T *)a->grad)[r * a->grad_stride];
        const int64_t target = c->target ? c->target[r] : 0, to = r * a->dlogits_stride;
        if (c->target && target == c->ignore_index) {
            const size_t size = half ? sizeof(uint16_t) : sizeof(T);
            memset((char *)a->dlogits + (size_t)to * size, 0, (size_t)n * size);
            continue;
        }
        if (c->target && (target < 0 || target >= n)) {
            bad_index(a->context, target, n);
            return;
        }
        const T *x = row_of(a, c->logits, r * c->row_stride, worker, 0);
        const T *t = c->target ? NULL : row_of(a, c->probabilities, r * n, worker, 1);
        T *dx = half ? (T *)(uintptr_t)x : (T *)a->dlogits + to;
        F(row_gradient)(c, x, t, target, lse, g, dx);
        if (half) narrow(a->dtype, n, (const float *)(const void *)dx, (uint16_t *)a->dlogits + to);
    }
}

#endif
