#include "cuda.h"

extern "C" int PG_K(sort)(const pg_context *, int, int64_t, int64_t, const void *, void *, int64_t *, bool) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(topk)(const pg_context *, int, int64_t, int64_t, int64_t, const void *, void *, int64_t *, bool) { return PG_KERNEL_UNSUPPORTED; }
