/* random.cu: draws of the counter-based generator (philox.h), and dropout. */
#include "cuda.h"

extern "C" int PG_K(random)(const pg_context *, int, int, int64_t, pg_value, pg_value, const pg_philox *, void *) {
    return PG_KERNEL_UNSUPPORTED;
}
extern "C" int PG_K(dropout)(const pg_context *, int, int64_t, double, const pg_philox *, const void *, void *, bool *) {
    return PG_KERNEL_UNSUPPORTED;
}
