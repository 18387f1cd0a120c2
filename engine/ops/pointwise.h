/* pointwise.h: what the families of pointwise ops share: promotion, broadcasting, the kernel's call. No history is recorded here. */
#ifndef PG_POINTWISE_H
#define PG_POINTWISE_H

#include "ops.h"

/* An operand: a tensor, or a number where tensor is NULL. */
typedef struct pg_operand { const pg_tensor *tensor; const pg_number *number; } pg_operand;

/* out = op(operands...) over their broadcast shape, computed in `compute` (operands of other dtypes are converted first); the
 * result has dtype `result`: compute, or bool for predicates. At least one operand is a tensor. p: the kernel's constants or NULL.
 * keep: which operand stays as it is (a bool condition), or -1. */
int pg_pointwise(pg_tensor *out, int op, int compute, int result, int n, const pg_operand *operands, int keep, const double *p);

/* The common dtype of two operands (PyTorch's result_type). */
int pg_result_of(const pg_tensor *a, const pg_tensor *b, const pg_number *b_number);

#endif
