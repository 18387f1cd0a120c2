#include "cuda.h"

extern "C" int PG_K(attention)(const pg_context *, int, const pg_attention *) { return PG_KERNEL_UNSUPPORTED; }
extern "C" int PG_K(attention_backward)(const pg_context *, int, const pg_attention *) { return PG_KERNEL_UNSUPPORTED; }
