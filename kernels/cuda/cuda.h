/* cuda.h: what every CUDA kernel file starts with. The files are plain CUDA C++ with two exceptions: a kernel is launched through
 * PG_LAUNCH, and dynamic shared memory is named through PG_SHARED. What exists as PTX alone stands in ptx.h. So the same files are
 * compiled by nvcc for a GPU, and by g++ against the headers of cuda_on_cpu, where each CUDA thread is a fiber.
 *
 * An entry checks nothing of what the engine has checked, launches on context->stream, does not wait, and returns a status. Memory
 * is the device's unless kernels.h says otherwise. Half types are stored as such and computed in float.
 */
#ifndef PG_CUDA_H
#define PG_CUDA_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <math.h>
#include <stdint.h>

#include <type_traits>

#include "../kernels.h"

/* The files' entries, gathered into one table by table.cu. */
#define PG_K(name) pg_##name##_cuda
#define X(name) extern "C" std::remove_pointer_t<decltype(pg_kernels::name)> PG_K(name);
PG_ENTRIES(X)
#undef X

#ifdef __CUDACC__
#define PG_LAUNCH(kernel, grid, block, shared_bytes, context, ...) \
    (kernel)<<<grid, block, shared_bytes, (cudaStream_t)(context)->stream>>>(__VA_ARGS__)
#define PG_SHARED(type, name)                                       \
    extern __shared__ __align__(128) unsigned char pg_shared_[];    \
    type *name = reinterpret_cast<type *>(pg_shared_)
#else
#include <cuda_on_cpu.h>   /* gives PG_LAUNCH and PG_SHARED their meaning there */
#endif

/* ---- dtypes: the stored type and the one that is computed with ---- */

template <class T> struct compute_of { typedef T type; };
template <> struct compute_of<__half> { typedef float type; };
template <> struct compute_of<__nv_bfloat16> { typedef float type; };
template <class T> using compute_t = typename compute_of<T>::type;

template <class T> static __device__ __forceinline__ compute_t<T> load_as(T x) { return x; }
template <> __device__ __forceinline__ float load_as<__half>(__half x) { return __half2float(x); }
template <> __device__ __forceinline__ float load_as<__nv_bfloat16>(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T> static __device__ __forceinline__ T store_as(compute_t<T> x) { return (T)x; }
template <> __device__ __forceinline__ __half store_as<__half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 store_as<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

/* Runs the statement with T as the dtype's type; where the dtype is none of them the function returns UNSUPPORTED. */
#define PG_CASE(number, type, ...) case number: { typedef type T; __VA_ARGS__; } break;
#define PG_CASES_FLOAT(...)                          \
    PG_CASE(PG_K_FLOAT32, float, __VA_ARGS__)        \
    PG_CASE(PG_K_FLOAT64, double, __VA_ARGS__)       \
    PG_CASE(PG_K_FLOAT16, __half, __VA_ARGS__)       \
    PG_CASE(PG_K_BFLOAT16, __nv_bfloat16, __VA_ARGS__)
#define PG_CASES_INTEGER(...)                        \
    PG_CASE(PG_K_INT64, int64_t, __VA_ARGS__)        \
    PG_CASE(PG_K_INT32, int32_t, __VA_ARGS__)        \
    PG_CASE(PG_K_INT16, int16_t, __VA_ARGS__)        \
    PG_CASE(PG_K_INT8, int8_t, __VA_ARGS__)          \
    PG_CASE(PG_K_UINT8, uint8_t, __VA_ARGS__)
#define PG_FOR_FLOATS(dtype, ...)                    \
    switch (dtype) {                                 \
        PG_CASES_FLOAT(__VA_ARGS__)                  \
    default: return PG_KERNEL_UNSUPPORTED;           \
    }
#define PG_FOR_NUMBERS(dtype, ...)                   \
    switch (dtype) {                                 \
        PG_CASES_FLOAT(__VA_ARGS__)                  \
        PG_CASES_INTEGER(__VA_ARGS__)                \
    default: return PG_KERNEL_UNSUPPORTED;           \
    }
#define PG_FOR_ALL(dtype, ...)                       \
    switch (dtype) {                                 \
        PG_CASES_FLOAT(__VA_ARGS__)                  \
        PG_CASES_INTEGER(__VA_ARGS__)                \
        PG_CASE(PG_K_BOOL, bool, __VA_ARGS__)        \
    default: return PG_KERNEL_UNSUPPORTED;           \
    }

/* ---- launching ---- */

/* What a launcher returns: whether the launch itself was accepted. */
static inline int launched(void) { return cudaPeekAtLastError() == cudaSuccess ? PG_KERNEL_OK : PG_KERNEL_FAILED; }

/* Blocks of `per_block` items each that cover n, at most `most`: kernels stride over what is beyond. */
static inline unsigned blocks_for(int64_t n, int64_t per_block, int64_t most = INT64_C(1) << 30) {
    const int64_t blocks = (n + per_block - 1) / per_block;
    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

/* Bytes of the host's memory that a kernel will read on the device: a list of offsets or of pointers. Valid until the launches that
 * follow in this entry have run; NULL where memory ran out, which the entry answers with PG_KERNEL_NO_SCRATCH. A random state is
 * brought up to date before each replay of a captured graph. */
static inline const void *on_device(const pg_context *c, const void *host, size_t bytes) { return c->constant(c, host, bytes); }
static inline const pg_philox *on_device(const pg_context *c, const pg_philox *state, size_t = sizeof(pg_philox)) {
    return c->random_state(c, state);
}

/* ---- what a kernel found wrong: read by the host when it next waits ---- */

static __device__ __forceinline__ void report(int64_t *slot, int64_t kind, int64_t value, int64_t size, const char *op) {
    if (atomicCAS((unsigned long long *)slot, 0ull, (unsigned long long)kind) == 0ull) {
        slot[1] = value;
        slot[2] = size;
        slot[3] = (int64_t)op;
    }
}

/* An index brought into [0, size), negative ones counted from the end where from_end; one out of range is reported and taken as -1. */
static __device__ __forceinline__ int64_t resolve(int64_t index, int64_t size, bool from_end, int64_t *slot, const char *op) {
    const int64_t at = from_end && index < 0 ? index + size : index;
    if (at >= 0 && at < size) return at;
    report(slot, PG_KERNEL_BAD_INDEX, index, size, op);
    return -1;
}

/* ---- 16 bytes at once ---- */

template <class T, int N = 16 / (int)sizeof(T)> struct alignas(sizeof(T) * N) pack { T v[N]; };
template <class T> static __device__ __forceinline__ pack<T> load_pack(const T *p) {
    pack<T> r;
    *reinterpret_cast<int4 *>(&r) = *reinterpret_cast<const int4 *>(p);
    return r;
}
template <class T> static __device__ __forceinline__ void store_pack(T *p, const pack<T> &x) {
    *reinterpret_cast<int4 *>(p) = *reinterpret_cast<const int4 *>(&x);
}
static inline bool aligned16(const void *p) { return ((uintptr_t)p & 15) == 0; }

#endif
