/* make.cu: tensors from nothing, and triangles. */
#include "cuda.h"

extern "C" int PG_K(arange)(const pg_context *, int, int64_t, pg_value, pg_value, void *) { return PG_KERNEL_UNSUPPORTED; }
extern "C" int PG_K(linspace)(const pg_context *, int, int64_t, double, double, void *) { return PG_KERNEL_UNSUPPORTED; }
extern "C" int PG_K(triangle)(const pg_context *, int, int64_t, int64_t, int64_t, int64_t, bool, const void *, void *) {
    return PG_KERNEL_UNSUPPORTED;
}
