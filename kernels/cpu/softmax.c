/* softmax.c: softmax and log_softmax over dense rows: each row is read from memory once and written once. */
#ifndef T

#include "halves.h"
#include "rows.h"

#define BODY "softmax.c"
#include "each_float.h"

static int64_t rows_grain(int64_t n) { return n >= 8192 ? 1 : 8192 / (n + 1) + 1; }

int PG_K(softmax)(const pg_context *context, int dtype, int64_t rows, int64_t n, const void *in, void *out, bool log) {
    if (rows <= 0 || n <= 0) return PG_KERNEL_OK;
    if (is_half(dtype)) {
        float *x = widened(context, dtype, rows * n, in);
        if (!x) return PG_KERNEL_NO_SCRATCH;
        const int status = PG_K(softmax)(context, PG_K_FLOAT32, rows, n, x, x, log);
        return status ? status : narrowed(context, dtype, rows * n, x, out);
    }
    softmax_arg arg = {n, in, NULL, out, log};
    switch (dtype) {
    case PG_K_FLOAT32: parallel(context, rows, rows_grain(n), softmax_f32, &arg); return PG_KERNEL_OK;
    case PG_K_FLOAT64: parallel(context, rows, rows_grain(n), softmax_f64, &arg); return PG_KERNEL_OK;
    default: return PG_KERNEL_UNSUPPORTED;
    }
}

int PG_K(softmax_backward)(const pg_context *context, int dtype, int64_t rows, int64_t n, const void *grad, const void *result,
                           void *out, bool log) {
    if (rows <= 0 || n <= 0) return PG_KERNEL_OK;
    if (is_half(dtype)) {
        float *g = widened(context, dtype, rows * n, grad), *r = widened(context, dtype, rows * n, result);
        if (!g || !r) return PG_KERNEL_NO_SCRATCH;
        const int status = PG_K(softmax_backward)(context, PG_K_FLOAT32, rows, n, g, r, g, log);
        return status ? status : narrowed(context, dtype, rows * n, g, out);
    }
    softmax_arg arg = {n, grad, result, out, log};
    switch (dtype) {
    case PG_K_FLOAT32: parallel(context, rows, rows_grain(n), softmax_backward_f32, &arg); return PG_KERNEL_OK;
    case PG_K_FLOAT64: parallel(context, rows, rows_grain(n), softmax_backward_f64, &arg); return PG_KERNEL_OK;
    default: return PG_KERNEL_UNSUPPORTED;
    }
}

#else

#ifndef SOFTMAX_ARG
#define SOFTMAX_ARG
typedef struct softmax_arg { int64_t n; const void *in, *result; void *out; bool log; } softmax_arg;
#endif

static void F(softmax)(void *arg, int64_t begin, int64_t end, int worker) {
    const softmax_arg *s = arg;
    const int64_t n = s->n;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const T *x = (const T *)s->in + r * n;
        T *y = (T *)s->out + r * n;
        const T top = F(row_max)(n, x);
        if (!s->log) {
            F(row_exp)(n, x, top, y);
            const T scale = 1 / F(row_sum)(n, y);
            for (int64_t i = 0; i < n; i++) y[i] *= scale;
        } else {
            /* The terms go through a buffer of one block, so that x may be y. */
            T term[512], sum = 0;
            for (int64_t i = 0; i < n; i += 512) {
                const int64_t m = n - i < 512 ? n - i : 512;
                F(row_exp)(m, x + i, top, term);
                sum += F(row_sum)(m, term);
            }
            const T shift = (T)log((double)sum);
            for (int64_t i = 0; i < n; i++) y[i] = x[i] - top - shift;
        }
    }
}

/* softmax: dx = y * (g - sum(g y)); log_softmax: dx = g - exp(y) * sum(g). */
static void F(softmax_backward)(void *arg, int64_t begin, int64_t end, int worker) {
    const softmax_arg *s = arg;
    const int64_t n = s->n;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const T *g = (const T *)s->in + r * n, *y = (const T *)s->result + r * n;
        T *dx = (T *)s->out + r * n;
        if (!s->log) {
            const T dot = F(row_dot)(n, g, y);
            for (int64_t i = 0; i < n; i++) dx[i] = y[i] * (g[i] - dot);
        } else {
            const T sum = F(row_sum)(n, g);
            for (int64_t i = 0; i < n; i++) dx[i] = g[i] - F(exp)(y[i]) * sum;
        }
    }
}

#endif
