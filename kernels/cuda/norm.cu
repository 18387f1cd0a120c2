#include "cuda.h"

extern "C" int PG_K(layer_norm)(const pg_context *, int, int64_t, int64_t, const void *, const void *, const void *, double, void *, void *, void *) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(layer_norm_backward)(const pg_context *, int, int64_t, int64_t, const void *, const void *, const void *, const void *, const void *, void *, void *, void *) { return PG_KERNEL_UNSUPPORTED; }
