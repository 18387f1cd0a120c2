/* reduce.cu: reductions. */
#include "cuda.h"

extern "C" int PG_K(reduce)(const pg_context *, int, int, const pg_reduction *) { return PG_KERNEL_UNSUPPORTED; }
