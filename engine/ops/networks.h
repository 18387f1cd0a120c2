/* networks.h: shorthands for rules and ops composed of others. All take a pool and answer a temporary (core/pool.h). */
#ifndef PG_NETWORKS_H
#define PG_NETWORKS_H

#include "pointwise.h"

#define PG_ONE ((pg_number){PG_NUMBER_INT, 1, 1})

static inline pg_tensor *x_plus(pg_pool *p, const pg_tensor *a, const pg_tensor *b) {
    return x_add(p, a, b, NULL, &PG_ONE);
}
static inline pg_tensor *x_minus(pg_pool *p, const pg_tensor *a, const pg_tensor *b) {
    return x_add(p, a, b, NULL, &(pg_number){PG_NUMBER_INT, -1, -1});
}
static inline pg_tensor *x_times(pg_pool *p, const pg_tensor *a, const pg_tensor *b) { return x_mul(p, a, b, NULL); }
static inline pg_tensor *x_scaled(pg_pool *p, const pg_tensor *a, double factor) {
    return x_mul(p, a, NULL, &(pg_number){PG_NUMBER_FLOAT, 0, factor});
}
static inline pg_tensor *x_shifted(pg_pool *p, const pg_tensor *a, double term) {
    return x_add(p, a, NULL, &(pg_number){PG_NUMBER_FLOAT, 0, term}, &PG_ONE);
}
/* a == value, as bools without history. */
static inline pg_tensor *x_equals(pg_pool *p, const pg_tensor *a, const pg_number *value) {
    pg_tensor *out = pg_pool_new(p);
    const pg_operand operands[] = {{a, NULL}, {NULL, value}};
    if (p->status >= 0) pg_pool_note(p, pg_pointwise(out, PG_K_EQ, a->impl->dtype, PG_BOOL, 2, operands, -1, NULL));
    return out;
}
static inline pg_tensor *x_sum_last(pg_pool *p, const pg_tensor *a) { return x_sum(p, a, (const int64_t[]){-1}, 1, true, -1); }
static inline pg_tensor *x_swapped(pg_pool *p, const pg_tensor *a) { return x_transpose(p, a, -2, -1); }

enum { PG_REDUCTION_NONE, PG_REDUCTION_MEAN, PG_REDUCTION_SUM };
/* A loss per element reduced as PyTorch's reduction says. */
pg_tensor *pg_reduced(pg_pool *p, const pg_tensor *loss, int reduction);

/* out (batch..., m, n) = a b (transposed where asked) on the last two dimensions, any strides, batches broadcast; no history. A
 * vector is a row on the left and a column on the right, and its dimension is left out of out. */
int pg_product_of(pg_tensor *out, const pg_tensor *a, bool ta, const pg_tensor *b, bool tb);
static inline pg_tensor *pg_product_in(pg_pool *p, const pg_tensor *a, bool ta, const pg_tensor *b, bool tb) {
    pg_tensor *out = pg_pool_new(p);
    if (p->status >= 0) pg_pool_note(p, pg_product_of(out, a, ta, b, tb));
    return out;
}

/* A matrix in memory of its own, elements undefined, whose rows begin at multiples of 64 elements: vectors of 16 bytes do not cross
 * from one row into the next, however many columns there are. */
int pg_new_padded(pg_tensor *out, const pg_device *device, int dtype, int64_t rows, int64_t columns);
/* input (N, in) @ weight (C, in)^T + bias (C) or NULL as such a matrix (N, C); no history. The shapes are the caller's to check. */
int pg_padded_linear(pg_tensor *out, const pg_tensor *input, const pg_tensor *weight, const pg_tensor *bias);

/* Dimension dim last, dense, of dtype: (rows, n) for kernels over rows. */
int pg_rows_of(pg_tensor *out, const pg_tensor *x, int dim, int dtype);
/* The way back: rows, which has x's sizes with dim last, becomes out with dim in its place (no history). */
int pg_rows_back(pg_tensor *out, const pg_tensor *rows, int ndim, int dim);

#endif
