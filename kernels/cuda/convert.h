/* convert.h: between dtypes, as the CPU's convert.h does. */
#ifndef PG_CUDA_CONVERT_H
#define PG_CUDA_CONVERT_H

#include "cuda.h"

/* Truncated; NaN gives 0; out of range the nearest. */
static __device__ __forceinline__ int32_t f64_to_i32(double x) {
    const double c = x == x ? x : 0.0;
    return c >= 2147483647.0 ? INT32_MAX : c <= -2147483648.0 ? INT32_MIN : (int32_t)c;
}
static __device__ __forceinline__ int64_t f64_to_i64(double x) {
    const double c = x == x ? x : 0.0;
    return c >= 9223372036854775808.0 ? INT64_MAX : c <= -9223372036854775808.0 ? INT64_MIN : (int64_t)c;
}

/* To bool, whether it is not zero; to narrower integers the low bits; to half types through float. */
template <class T> static __device__ __forceinline__ T from_integer(int64_t x) {
    if constexpr (std::is_same_v<T, bool>) return x != 0;
    else if constexpr (std::is_integral_v<T>) return (T)x;
    else return store_as<T>((compute_t<T>)x);
}
template <class T> static __device__ __forceinline__ T from_double(double x) {
    if constexpr (std::is_same_v<T, bool>) return x != 0;
    else if constexpr (std::is_same_v<T, int64_t>) return f64_to_i64(x);
    else if constexpr (std::is_integral_v<T>) return (T)f64_to_i32(x);
    else return store_as<T>((compute_t<T>)x);
}

#endif
