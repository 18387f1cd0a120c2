/* scan.cu: running sums. */
#include "cuda.h"

extern "C" int PG_K(scan)(const pg_context *, int, int, int64_t, int64_t, int64_t, const void *, void *) {
    return PG_KERNEL_UNSUPPORTED;
}
