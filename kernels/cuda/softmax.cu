#include "cuda.h"

extern "C" int PG_K(softmax)(const pg_context *, int, int64_t, int64_t, const void *, void *, bool) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(softmax_backward)(const pg_context *, int, int64_t, int64_t, const void *, const void *, void *, bool) { return PG_KERNEL_UNSUPPORTED; }
