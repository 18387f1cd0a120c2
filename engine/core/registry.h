/* registry.h: every op by name, with boxed arguments. The table and its entries are generated from the op table. */
#ifndef PG_REGISTRY_H
#define PG_REGISTRY_H

#include "core/door.h"

typedef struct pg_op_row {
    const char *name;       /* as Lua has it, with its namespace */
    const char *symbol;     /* pg_add: unique, the key of the registry */
    const char *signature;
    int autocast;           /* PG_AUTOCAST_* */
    /* args: the results in order, then the parameters in the signature's order; what is missing or PG_BOX_NONE takes its
     * default. Calls the public entry. */
    int (*invoke)(pg_boxed *args, int n);
} pg_op_row;

/* In the order of the op table. */
extern const pg_op_row pg_op_rows[];
extern const int pg_op_rows_n;

/* The row number of a symbol, -1 where there is none. */
int pg_op_find(const char *symbol);

/* Reading boxes: the first mismatch sets status and the message, and what is read then is empty. */
typedef struct pg_unbox {
    const char *op;
    pg_boxed *args;
    int n, status;
} pg_unbox;

pg_unbox pg_unbox_begin(const char *op, pg_boxed *args, int n, int limit);
pg_tensor *pg_unbox_out(pg_unbox *u, int k, const char *name);
pg_tensor_list *pg_unbox_out_list(pg_unbox *u, int k, const char *name);
pg_number *pg_unbox_out_number(pg_unbox *u, int k, const char *name);
int64_t *pg_unbox_out_int(pg_unbox *u, int k, const char *name);
bool *pg_unbox_out_bool(pg_unbox *u, int k, const char *name);
pg_tensor *pg_unbox_tensor(pg_unbox *u, int k, const char *name, int optional);
const pg_tensor *const *pg_unbox_tensors(pg_unbox *u, int k, const char *name, int optional, int *count);
/* The tensor, or NULL where the box holds a number (or nothing). */
pg_tensor *pg_unbox_tensor_or_number(pg_unbox *u, int k);
const pg_number *pg_unbox_number(pg_unbox *u, int k, const char *name, int optional, pg_number *box, const pg_number *fallback);
int64_t pg_unbox_int(pg_unbox *u, int k, const char *name, int optional, int64_t fallback);
const int64_t *pg_unbox_int_or_none(pg_unbox *u, int k, const char *name, int64_t *box);
/* *count comes holding the default's count (-1-k: the k-th word) and goes with the result's. */
const int64_t *pg_unbox_ints(pg_unbox *u, int k, const char *name, int optional, const char *const *words, int *count,
                             const int64_t *fallback);
double pg_unbox_float(pg_unbox *u, int k, const char *name, int optional, double fallback);
const double *pg_unbox_float_or_none(pg_unbox *u, int k, const char *name, double *box);
int pg_unbox_bool(pg_unbox *u, int k, const char *name, int optional, int fallback);
int pg_unbox_dtype(pg_unbox *u, int k, const char *name, int optional, int fallback);
int pg_unbox_word(pg_unbox *u, int k, const char *name, int optional, const char *const *words, int fallback);
/* The word's number, or -1 where the box holds a number; fallback where it holds nothing. */
int pg_unbox_word_of_number(pg_unbox *u, int k, const char *name, const char *const *words, int fallback);
const char *pg_unbox_string(pg_unbox *u, int k, const char *name, int optional, const char *fallback);

#endif
