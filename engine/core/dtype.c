#include "dtype.h"

#include <string.h>

#include "tensor.h"

static const char *const names[PG_DTYPES] = {
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
};

static int default_dtype = PG_FLOAT32;

const char *pg_dtype_name(int dtype) { return dtype >= 0 && dtype < PG_DTYPES ? names[dtype] : NULL; }

int pg_dtype_parse(const char *name) {
    if (!name) return -1;
    for (int i = 0; i < PG_DTYPES; i++)
        if (strcmp(name, names[i]) == 0) return i;
    return -1;
}

int pg_dtype_size(int dtype) { return dtype >= 0 && dtype < PG_DTYPES ? pg_size_of(dtype) : -1; }

int pg_default_dtype(void) { return default_dtype; }
int pg_get_default_dtype(void) { return default_dtype; }

int pg_set_default_dtype(int dtype) {
    if (dtype < 0 || dtype >= PG_DTYPES || !pg_is_float(dtype))
        return pg_fail("set_default_dtype: only floating-point types are supported, got %s",
                       dtype >= 0 && dtype < PG_DTYPES ? names[dtype] : "no dtype");
    default_dtype = dtype;
    return PG_OK;
}

int pg_promote_types(int a, int b) {
    if (a < 0 || a >= PG_DTYPES || b < 0 || b >= PG_DTYPES) return -1;
    if (a > b) { int t = a; a = b; b = t; }
    if (a == b || a == PG_BOOL) return b;
    if (a == PG_UINT8 && b == PG_INT8) return PG_INT16;
    if (a == PG_FLOAT16 && b == PG_BFLOAT16) return PG_FLOAT32;
    return b;
}

static signed char join(int have, int dtype) { return (signed char)(have < 0 ? dtype : pg_promote_types(have, dtype)); }

void pg_result_add(pg_result_type *r, const pg_tensor *t) {
    if (t->impl->ndim > 0) r->dim = join(r->dim, t->impl->dtype);
    else r->zero = join(r->zero, t->impl->dtype);
}

void pg_result_add_number(pg_result_type *r, const pg_number *n) {
    int dtype = n->kind == PG_NUMBER_BOOL ? PG_BOOL : n->kind == PG_NUMBER_INT ? PG_INT64 : default_dtype;
    r->number = join(r->number, dtype);
}

static int category(int dtype) { return dtype < 0 ? -1 : dtype == PG_BOOL ? 0 : pg_is_integer(dtype) ? 1 : 2; }

/* The stronger group rules unless the weaker one is of a higher category. */
static int combine(int strong, int weak) {
    if (category(weak) > category(strong)) return strong < 0 ? weak : pg_promote_types(strong, weak);
    return strong;
}

int pg_result(const pg_result_type *r) { return combine(combine(r->dim, r->zero), r->number); }
