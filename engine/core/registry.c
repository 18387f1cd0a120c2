/* registry.c: ops by name: finding rows, reading boxes. */
#include "registry.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

int pg_op_count(void) { return pg_op_rows_n; }

const char *pg_op_signature(int row)
{
    return row >= 0 && row < pg_op_rows_n ? pg_op_rows[row].signature : NULL;
}

const char *pg_op_symbol(int row)
{
    return row >= 0 && row < pg_op_rows_n ? pg_op_rows[row].symbol : NULL;
}

int pg_op_find(const char *symbol)
{
    for (int k = 0; k < pg_op_rows_n; k++) {
        if (strcmp(pg_op_rows[k].symbol, symbol) == 0) return k;
    }
    return -1;
}

int pg_call(const char *symbol, pg_boxed *args, int n)
{
    if (!symbol) return pg_fail("pg_call: expected the symbol of an op, got NULL");
    int row = pg_op_find(symbol);
    if (row < 0) return pg_fail("pg_call: no op has the symbol '%s'", symbol);
    if (n < 0 || (n > 0 && !args)) return pg_fail("pg_call: %s: expected an array of %d boxes", symbol, n);
    return pg_op_rows[row].invoke(args, n);
}

static const char *box_name(int kind)
{
    static const char *const names[] = {"nothing", "a tensor", "tensors", "a tensor list", "a number", "an integer",
                                        "integers", "a float", "a boolean", "a string"};
    return kind >= 0 && kind < (int)(sizeof names / sizeof *names) ? names[kind] : "an unknown box";
}

pg_unbox pg_unbox_begin(const char *op, pg_boxed *args, int n, int limit)
{
    pg_unbox u = {op, args, n, PG_OK};
    if (n > limit) u.status = pg_fail("%s: takes %d boxes, got %d", op, limit, n);
    return u;
}

static int kind_of(const pg_unbox *u, int k) { return k < u->n ? u->args[k].kind : PG_BOX_NONE; }

static void wrong(pg_unbox *u, int k, const char *name, const char *expected)
{
    if (u->status >= 0) u->status = pg_fail("%s: %s: expected %s, got %s", u->op, name, expected, box_name(kind_of(u, k)));
}

pg_tensor *pg_unbox_out(pg_unbox *u, int k, const char *name)
{
    if (kind_of(u, k) == PG_BOX_TENSOR) return u->args[k].as.tensor;
    wrong(u, k, name, "a tensor handle for the result");
    return NULL;
}

pg_tensor_list *pg_unbox_out_list(pg_unbox *u, int k, const char *name)
{
    if (kind_of(u, k) == PG_BOX_LIST) return u->args[k].as.list;
    wrong(u, k, name, "a tensor list for the result");
    return NULL;
}

pg_number *pg_unbox_out_number(pg_unbox *u, int k, const char *name)
{
    if (k >= u->n) {
        wrong(u, k, name, "a box for the result");
        return NULL;
    }
    u->args[k].kind = PG_BOX_NUMBER;
    return &u->args[k].as.number;
}

int64_t *pg_unbox_out_int(pg_unbox *u, int k, const char *name)
{
    if (k >= u->n) {
        wrong(u, k, name, "a box for the result");
        return NULL;
    }
    u->args[k].kind = PG_BOX_INT;
    return &u->args[k].as.i;
}

bool *pg_unbox_out_bool(pg_unbox *u, int k, const char *name)
{
    if (k >= u->n) {
        wrong(u, k, name, "a box for the result");
        return NULL;
    }
    u->args[k].kind = PG_BOX_BOOL;
    return &u->args[k].as.b;
}

pg_tensor *pg_unbox_tensor(pg_unbox *u, int k, const char *name, int optional)
{
    int kind = kind_of(u, k);
    if (kind == PG_BOX_TENSOR) return u->args[k].as.tensor;
    if (kind != PG_BOX_NONE || !optional) wrong(u, k, name, "a tensor");
    return NULL;
}

const pg_tensor *const *pg_unbox_tensors(pg_unbox *u, int k, const char *name, int optional, int *count)
{
    int kind = kind_of(u, k);
    *count = 0;
    if (kind == PG_BOX_TENSORS) {
        *count = u->args[k].n;
        return u->args[k].as.tensors;
    }
    if (kind != PG_BOX_NONE || !optional) wrong(u, k, name, "tensors");
    return NULL;
}

pg_tensor *pg_unbox_tensor_or_number(pg_unbox *u, int k)
{
    return kind_of(u, k) == PG_BOX_TENSOR ? u->args[k].as.tensor : NULL;
}

const pg_number *pg_unbox_number(pg_unbox *u, int k, const char *name, int optional, pg_number *box, const pg_number *fallback)
{
    switch (kind_of(u, k)) {
    case PG_BOX_NUMBER: return &u->args[k].as.number;
    case PG_BOX_INT: *box = (pg_number){PG_NUMBER_INT, u->args[k].as.i, (double)u->args[k].as.i}; return box;
    case PG_BOX_FLOAT: *box = (pg_number){PG_NUMBER_FLOAT, 0, u->args[k].as.f}; return box;
    case PG_BOX_BOOL: *box = (pg_number){PG_NUMBER_BOOL, u->args[k].as.b, u->args[k].as.b}; return box;
    case PG_BOX_NONE:
        if (optional) return fallback;
        break;
    default: break;
    }
    wrong(u, k, name, "a number");
    return NULL;
}

static int read_int(pg_unbox *u, int k, const char *name, int64_t *value)
{
    switch (kind_of(u, k)) {
    case PG_BOX_INT: *value = u->args[k].as.i; return 1;
    case PG_BOX_NUMBER:
        if (u->args[k].as.number.kind == PG_NUMBER_INT) {
            *value = u->args[k].as.number.i;
            return 1;
        }
        break;
    default: break;
    }
    wrong(u, k, name, "an integer");
    return 0;
}

int64_t pg_unbox_int(pg_unbox *u, int k, const char *name, int optional, int64_t fallback)
{
    if (kind_of(u, k) == PG_BOX_NONE && optional) return fallback;
    int64_t value = 0;
    read_int(u, k, name, &value);
    return value;
}

const int64_t *pg_unbox_int_or_none(pg_unbox *u, int k, const char *name, int64_t *box)
{
    if (kind_of(u, k) == PG_BOX_NONE) return NULL;
    return read_int(u, k, name, box) ? box : NULL;
}

static int word_number(pg_unbox *u, int k, const char *name, const char *const *words)
{
    const char *word = u->args[k].as.string;
    for (int j = 0; word && words[j]; j++) {
        if (strcmp(words[j], word) == 0) return j;
    }
    char known[160];
    size_t used = 0;
    known[0] = 0;
    for (int j = 0; words[j] && used < sizeof known; j++) {
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", j ? ", " : "", words[j]);
    }
    if (u->status >= 0) {
        u->status = pg_fail("%s: %s: expected one of %s, got '%s'", u->op, name, known, word ? word : "NULL");
    }
    return -1;
}

const int64_t *pg_unbox_ints(pg_unbox *u, int k, const char *name, int optional, const char *const *words, int *count,
                             const int64_t *fallback)
{
    switch (kind_of(u, k)) {
    case PG_BOX_INTS: *count = u->args[k].n; return u->args[k].as.ints;
    case PG_BOX_INT: *count = 1; return &u->args[k].as.i;
    case PG_BOX_STRING:
        if (words) {
            *count = -1 - word_number(u, k, name, words);
            return NULL;
        }
        break;
    case PG_BOX_NONE:
        if (optional) return fallback;
        break;
    default: break;
    }
    wrong(u, k, name, "integers");
    return NULL;
}

static int read_float(pg_unbox *u, int k, const char *name, double *value)
{
    switch (kind_of(u, k)) {
    case PG_BOX_FLOAT: *value = u->args[k].as.f; return 1;
    case PG_BOX_INT: *value = (double)u->args[k].as.i; return 1;
    case PG_BOX_NUMBER: {
        const pg_number *number = &u->args[k].as.number;
        *value = number->kind == PG_NUMBER_FLOAT ? number->d : (double)number->i;
        return 1;
    }
    default: break;
    }
    wrong(u, k, name, "a number");
    return 0;
}

double pg_unbox_float(pg_unbox *u, int k, const char *name, int optional, double fallback)
{
    if (kind_of(u, k) == PG_BOX_NONE && optional) return fallback;
    double value = 0;
    read_float(u, k, name, &value);
    return value;
}

const double *pg_unbox_float_or_none(pg_unbox *u, int k, const char *name, double *box)
{
    if (kind_of(u, k) == PG_BOX_NONE) return NULL;
    return read_float(u, k, name, box) ? box : NULL;
}

int pg_unbox_bool(pg_unbox *u, int k, const char *name, int optional, int fallback)
{
    int kind = kind_of(u, k);
    if (kind == PG_BOX_BOOL) return u->args[k].as.b;
    if (kind != PG_BOX_NONE || !optional) wrong(u, k, name, "a boolean");
    return fallback;
}

int pg_unbox_dtype(pg_unbox *u, int k, const char *name, int optional, int fallback)
{
    int kind = kind_of(u, k);
    if (kind == PG_BOX_NONE && optional) return fallback;
    if (kind == PG_BOX_INT && u->args[k].as.i >= 0 && u->args[k].as.i < PG_DTYPES) return (int)u->args[k].as.i;
    wrong(u, k, name, "a dtype's number");
    return fallback;
}

int pg_unbox_word(pg_unbox *u, int k, const char *name, int optional, const char *const *words, int fallback)
{
    int kind = kind_of(u, k);
    if (kind == PG_BOX_STRING) return word_number(u, k, name, words);
    if (kind != PG_BOX_NONE || !optional) wrong(u, k, name, "a word");
    return fallback;
}

int pg_unbox_word_of_number(pg_unbox *u, int k, const char *name, const char *const *words, int fallback)
{
    int kind = kind_of(u, k);
    if (kind == PG_BOX_STRING) return word_number(u, k, name, words);
    return kind == PG_BOX_NONE ? fallback : -1;
}

const char *pg_unbox_string(pg_unbox *u, int k, const char *name, int optional, const char *fallback)
{
    int kind = kind_of(u, k);
    if (kind == PG_BOX_STRING && u->args[k].as.string) return u->args[k].as.string;
    if (kind != PG_BOX_NONE || !optional) wrong(u, k, name, "a string");
    return fallback;
}
