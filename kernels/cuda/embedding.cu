#include "cuda.h"

extern "C" int PG_K(index_select)(const pg_context *, int, const pg_rows *, const void *, void *) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(index_add)(const pg_context *, int, const pg_rows *, const void *, double, void *) { return PG_KERNEL_UNSUPPORTED; }
