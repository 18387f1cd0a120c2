/* norm.c: layer_norm over dense rows (Ba et al. 2016): a row is read from memory once, worked on in the first cache, and written
 * once. */
#ifndef T

#include "halves.h"
#include "rows.h"

/* dweight and dbias are sums over rows: each block of rows sums its own, and the blocks are added in order. */
enum { BLOCKS = 64, BLOCK_ROWS = 16 };

typedef struct norm_arg {
    int64_t rows, n, block;
    const void *x, *residual, *weight, *bias, *grad, *grad_sum, *mean, *rstd;
    void *y, *sum, *mean_out, *rstd_out, *dx, *dweight, *dbias;
    void *partial_weight, *partial_bias;   /* (blocks, n), or NULL */
    double eps;
} norm_arg;

#define BODY "norm.c"
#include "each_float.h"

static int64_t norm_grain(int64_t n) { return n >= 8192 ? 1 : 8192 / (n + 1) + 1; }

int PG_K(layer_norm)(const pg_context *context, int dtype, int64_t rows, int64_t n, const void *x, const void *residual,
                     const void *weight, const void *bias, double eps, void *y, void *sum, void *mean, void *rstd) {
    if (rows <= 0 || n <= 0) return PG_KERNEL_OK;
    if (is_half(dtype)) {
        float *wide = widened(context, dtype, rows * n, x), *more = residual ? widened(context, dtype, rows * n, residual) : NULL;
        const float *w = weight ? widened(context, dtype, n, weight) : NULL, *b = bias ? widened(context, dtype, n, bias) : NULL;
        if (!wide || (residual && !more) || (weight && !w) || (bias && !b)) return PG_KERNEL_NO_SCRATCH;
        if (residual) {
            /* the sum as it will be read again: rounded */
            for (int64_t i = 0; i < rows * n; i++) wide[i] += more[i];
            narrowed(context, dtype, rows * n, wide, sum);
            wide = widened(context, dtype, rows * n, sum);
            if (!wide) return PG_KERNEL_NO_SCRATCH;
        }
        const int status = PG_K(layer_norm)(context, PG_K_FLOAT32, rows, n, wide, NULL, w, b, eps, wide, NULL, mean, rstd);
        return status ? status : narrowed(context, dtype, rows * n, wide, y);
    }
    norm_arg arg = {.rows = rows, .n = n, .x = x, .residual = residual, .weight = weight, .bias = bias, .eps = eps, .y = y,
                    .sum = sum, .mean_out = mean, .rstd_out = rstd};
    switch (dtype) {
    case PG_K_FLOAT32: parallel(context, rows, norm_grain(n), norm_f32, &arg); return PG_KERNEL_OK;
    case PG_K_FLOAT64: parallel(context, rows, norm_grain(n), norm_f64, &arg); return PG_KERNEL_OK;
    default: return PG_KERNEL_UNSUPPORTED;
    }
}

int PG_K(layer_norm_backward)(const pg_context *context, int dtype, int64_t rows, int64_t n, const void *grad, const void *x,
                              const void *weight, const void *mean, const void *rstd, const void *grad_sum, void *dx,
                              void *dweight, void *dbias) {
    if (n <= 0) return PG_KERNEL_OK;
    if (is_half(dtype)) {
        float *g = widened(context, dtype, rows * n, grad), *wide = widened(context, dtype, rows * n, x);
        const float *w = weight ? widened(context, dtype, n, weight) : NULL;
        const float *more = grad_sum ? widened(context, dtype, rows * n, grad_sum) : NULL;
        float *sums = context->scratch(context, 2 * (size_t)n * sizeof *sums);
        if (!g || !wide || (weight && !w) || (grad_sum && !more) || !sums) return PG_KERNEL_NO_SCRATCH;
        const int status = PG_K(layer_norm_backward)(context, PG_K_FLOAT32, rows, n, g, wide, w, mean, rstd, more, dx ? g : NULL,
                                                     dweight ? sums : NULL, dbias ? sums + n : NULL);
        if (status) return status;
        if (dx) narrowed(context, dtype, rows * n, g, dx);
        if (dweight) narrowed(context, dtype, n, sums, dweight);
        if (dbias) narrowed(context, dtype, n, sums + n, dbias);
        return PG_KERNEL_OK;
    }
    if (dtype != PG_K_FLOAT32 && dtype != PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    const size_t size = dtype == PG_K_FLOAT32 ? sizeof(float) : sizeof(double);
    norm_arg arg = {.rows = rows, .n = n, .x = x, .weight = weight, .grad = grad, .grad_sum = grad_sum, .mean = mean, .rstd = rstd,
                    .dx = dx, .dweight = dweight, .dbias = dbias};
    arg.block = (rows + BLOCKS - 1) / BLOCKS > BLOCK_ROWS ? (rows + BLOCKS - 1) / BLOCKS : BLOCK_ROWS;
    const int64_t blocks = (rows + arg.block - 1) / arg.block;
    if (dweight || dbias) {
        char *partial = context->scratch(context, 2 * (size_t)(blocks + 1) * (size_t)n * size);
        if (!partial) return PG_KERNEL_NO_SCRATCH;
        arg.partial_weight = partial;
        arg.partial_bias = partial + (size_t)(blocks + 1) * (size_t)n * size;
    }
    const bool single = dtype == PG_K_FLOAT32;
    parallel(context, blocks, norm_grain(n * arg.block), single ? norm_backward_f32 : norm_backward_f64, &arg);
    if (dweight || dbias) parallel(context, n, 8192 / (blocks + 1) + 64, single ? norm_total_f32 : norm_total_f64, &arg);
    return PG_KERNEL_OK;
}

#else

static void F(norm)(void *arg, int64_t begin, int64_t end, int worker) {
    const norm_arg *a = arg;
    const int64_t n = a->n;
    const T *w = a->weight, *b = a->bias;
    const T inverse = (T)1 / (T)n;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const T *x = (const T *)a->x + r * n;
        T *y = (T *)a->y + r * n;
        if (a->residual) {
            const T *more = (const T *)a->residual + r * n;
            T *sum = (T *)a->sum + r * n;
            for (int64_t i = 0; i < n; i++) sum[i] = x[i] + more[i];
            x = sum;
        }
        const T mean = F(row_sum)(n, x) * inverse;
        const T rstd = (T)(1 / sqrt((double)(F(row_spread)(n, x, mean) * inverse) + a->eps));
        if (w && b)
            for (int64_t i = 0; i < n; i++) y[i] = F(fma)((x[i] - mean) * rstd, w[i], b[i]);
        else if (w)
            for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd * w[i];
        else if (b)
            for (int64_t i = 0; i < n; i++) y[i] = F(fma)(x[i] - mean, rstd, b[i]);
        else
            for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd;
        if (a->mean_out) ((T *)a->mean_out)[r] = mean;
        if (a->rstd_out) ((T *)a->rstd_out)[r] = rstd;
    }
}

/* With z = (x - mean) rstd and h = g w: dx = rstd (h - mean(h) - z mean(h z)); dweight = sum of g z; dbias = sum of g. */
static void F(norm_backward)(void *arg, int64_t begin, int64_t end, int worker) {
    const norm_arg *a = arg;
    const int64_t n = a->n;
    const T *w = a->weight;
    const T inverse = (T)1 / (T)n;
    (void)worker;
    for (int64_t block = begin; block < end; block++) {
        const int64_t first = block * a->block, last = first + a->block < a->rows ? first + a->block : a->rows;
        T *sw = a->dweight ? (T *)a->partial_weight + block * n : NULL, *sb = a->dbias ? (T *)a->partial_bias + block * n : NULL;
        if (sw) memset(sw, 0, (size_t)n * sizeof(T));
        if (sb) memset(sb, 0, (size_t)n * sizeof(T));
        for (int64_t r = first; r < last; r++) {
            const T *x = (const T *)a->x + r * n, *g = (const T *)a->grad + r * n;
            const T mean = ((const T *)a->mean)[r], rstd = ((const T *)a->rstd)[r];
            T sum = 0, dot = 0;
            if (a->dx) F(norm_sums)(n, g, w, x, mean, rstd, &sum, &dot);
            if (sw && sb)
                for (int64_t i = 0; i < n; i++) {
                    sw[i] = F(fma)(g[i], (x[i] - mean) * rstd, sw[i]);
                    sb[i] += g[i];
                }
            else if (sw)
                for (int64_t i = 0; i < n; i++) sw[i] = F(fma)(g[i], (x[i] - mean) * rstd, sw[i]);
            else if (sb)
                for (int64_t i = 0; i < n; i++) sb[i] += g[i];
            if (!a->dx) continue;
            T *dx = (T *)a->dx + r * n;
            const T m = sum * inverse, d = dot * inverse;
            if (w)
                for (int64_t i = 0; i < n; i++) dx[i] = rstd * (F(fma)(g[i], w[i], -m) - (x[i] - mean) * rstd * d);
            else
                for (int64_t i = 0; i < n; i++) dx[i] = rstd * (g[i] - m - (x[i] - mean) * rstd * d);
            if (!a->grad_sum) continue;
            const T *more = (const T *)a->grad_sum + r * n;
            for (int64_t i = 0; i < n; i++) dx[i] += more[i];
        }
    }
}

static void F(norm_total)(void *arg, int64_t begin, int64_t end, int worker) {
    const norm_arg *a = arg;
    const int64_t blocks = (a->rows + a->block - 1) / a->block;
    (void)worker;
    for (int which = 0; which < 2; which++) {
        T *out = which ? a->dbias : a->dweight;
        const T *partial = which ? a->partial_bias : a->partial_weight;
        if (!out) continue;
        memset(out + begin, 0, (size_t)(end - begin) * sizeof(T));
        for (int64_t block = 0; block < blocks; block++)
            for (int64_t i = begin; i < end; i++) out[i] += partial[block * a->n + i];
    }
}

#endif
