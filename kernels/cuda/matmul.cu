#include "cuda.h"

extern "C" int PG_K(gemm)(const pg_context *, int, const pg_gemm *) { return PG_KERNEL_UNSUPPORTED; }
