/* pointwise.cu: one output element from the elements at the same place of up to three inputs. */
#include "cuda.h"

extern "C" int PG_K(pointwise)(const pg_context *, int, int, const pg_strided *, const double *) {
    return PG_KERNEL_UNSUPPORTED;
}
