/* dtype.h: what the ten dtypes are and how they promote (PyTorch's torch.result_type). */
#ifndef PG_DTYPE_H
#define PG_DTYPE_H

#include "error.h"

static inline bool pg_is_float(int dtype) { return dtype >= PG_FLOAT16; }
static inline bool pg_is_integer(int dtype) { return dtype >= PG_UINT8 && dtype <= PG_INT64; }
static inline int pg_size_of(int dtype) {
    static const unsigned char size[PG_DTYPES] = {1, 1, 1, 2, 4, 8, 2, 2, 4, 8};
    return size[dtype];
}
/* float32 unless the user chose another. */
int pg_default_dtype(void);
/* The dtype that an op for floats computes x in: x itself if floating, else the default. */
static inline int pg_float_dtype(int dtype) { return pg_is_float(dtype) ? dtype : pg_default_dtype(); }
/* float32 for the 16-bit floats, else dtype: what sums, statistics and optimizer states are kept in. */
static inline int pg_accumulate_dtype(int dtype) {
    return dtype == PG_FLOAT16 || dtype == PG_BFLOAT16 ? PG_FLOAT32 : dtype;
}

/* PyTorch's result type: tensors with dimensions rule over 0-dim tensors, those over numbers, within one category
 * (bool < integer < float). Start from PG_RESULT, add operands, ask. */
typedef struct pg_result_type { signed char dim, zero, number; } pg_result_type;
#define PG_RESULT ((pg_result_type){-1, -1, -1})
void pg_result_add(pg_result_type *r, const pg_tensor *t);
void pg_result_add_number(pg_result_type *r, const pg_number *n);
int pg_result(const pg_result_type *r);

#endif
