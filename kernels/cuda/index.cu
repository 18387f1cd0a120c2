#include "cuda.h"

extern "C" int PG_K(gather)(const pg_context *, int, const pg_gathering *) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(scatter_add)(const pg_context *, int, const pg_gathering *) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(scatter)(const pg_context *, int, const pg_gathering *) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(index_get)(const pg_context *, int, const pg_advanced *) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(index_put)(const pg_context *, int, const pg_advanced *, bool) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(nonzero)(const pg_context *, int64_t, const bool *, int64_t *, int64_t *) { return PG_KERNEL_UNSUPPORTED; }

