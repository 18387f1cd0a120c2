/* cuda_runtime.h: CUDA's language and runtime for g++: the part of them that this project's kernels and its
 * device library use.
 *
 * The kernels' files include <cuda_runtime.h>, <cuda_fp16.h> and <cuda_bf16.h>; here these names find the
 * emulator's own headers. Names, sizes, alignments and values are those of NVIDIA's toolkit, and a spec
 * compares the two where the toolkit is installed.
 */
#ifndef PG_ON_CPU_CUDA_RUNTIME_H
#define PG_ON_CPU_CUDA_RUNTIME_H

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__      /* the standard library writes it within __attribute__ */
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

#include "on_cpu/vector_types.h"

#include "on_cpu/runtime_api.h"

#include "on_cpu/thread.h"

#include "on_cpu/atomics.h"
#include "on_cpu/device_functions.h"
#include "on_cpu/warp.h"

#endif
