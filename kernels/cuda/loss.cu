#include "cuda.h"

extern "C" int PG_K(cross_entropy)(const pg_context *, int, const pg_classifier *, void *, void *, void *) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(cross_entropy_backward)(const pg_context *, int, const pg_classifier *, const void *, const void *, int64_t, void *) { return PG_KERNEL_UNSUPPORTED; }
