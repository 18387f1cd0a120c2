/* copy.cu: copies that convert, and fill. */
#include "cuda.h"

extern "C" int PG_K(copy)(const pg_context *, int, int, const pg_strided *) { return PG_KERNEL_UNSUPPORTED; }
extern "C" int PG_K(fill)(const pg_context *, int, const pg_strided *, pg_value) { return PG_KERNEL_UNSUPPORTED; }
