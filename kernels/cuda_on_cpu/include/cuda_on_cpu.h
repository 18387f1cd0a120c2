/* cuda_on_cpu.h: how a kernel is launched and where its dynamic shared memory is, when g++ compiles it. */
#ifndef PG_ON_CPU_CUDA_ON_CPU_H
#define PG_ON_CPU_CUDA_ON_CPU_H

#include "cuda_runtime.h"

#include "on_cpu/launch.h"

/* kernel, in parentheses where its template arguments have commas, stands twice: as a pointer it gives the
 * parameters' types, to which the arguments are converted at the launch, and within the lambda it can be
 * inlined. */
#define PG_LAUNCH(kernel, grid, block, shared_bytes, context, ...)                                          \
    on_cpu::launch(kernel, [](auto &...arguments_) { (kernel)(arguments_...); }, #kernel, __FILE__,        \
                   __LINE__, grid, block, shared_bytes, (cudaStream_t)(context)->stream, ##__VA_ARGS__)
#define PG_SHARED(type, name) type *name = reinterpret_cast<type *>(on_cpu::grid.shared)

#endif
