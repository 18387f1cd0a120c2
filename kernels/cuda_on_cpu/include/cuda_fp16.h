/* cuda_fp16.h: IEEE's 16-bit float and a pair of them, with the few conversions that the kernels are allowed
 * (no arithmetic, no implicit conversion: what computes with them by accident does not compile). Rounded to
 * nearest even; a NaN becomes 0x7fff as on the hardware. */
#ifndef PG_ON_CPU_CUDA_FP16_H
#define PG_ON_CPU_CUDA_FP16_H

#include "cuda_runtime.h"

struct __half_raw { unsigned short x; };
struct __half {
    unsigned short bits;
    __half() = default;
    constexpr __half(const __half_raw &raw) : bits(raw.x) {}
    constexpr operator __half_raw() const { return {bits}; }
};
typedef __half half;
struct __attribute__((aligned(4))) __half2 { __half x, y; };
typedef __half2 half2;

static inline __half __ushort_as_half(unsigned short bits) { return __half_raw{bits}; }
static inline unsigned short __half_as_ushort(__half x) { return x.bits; }

static inline float __half2float(__half x) {
    const unsigned sign = (x.bits & 0x8000u) << 16, rest = x.bits & 0x7fffu;
    if (rest > 0x7c00u) return __uint_as_float(0x7fffffffu);
    if (rest == 0x7c00u) return __uint_as_float(sign | 0x7f800000u);
    /* The exponent's bias moves from 15 to 127; the multiplication also makes subnormal halves normal. */
    return __uint_as_float(sign | __float_as_uint(__uint_as_float(rest << 13) * 0x1p112f));
}
static inline __half __float2half_rn(float x) {
    const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    unsigned half;
    if (rest > 0x7f800000u) {
        return __ushort_as_half(0x7fff);
    } else if (rest >= 0x47800000u) {
        /* 2^16 and beyond: infinity; between 65504 and 2^16 the last case's rounding decides. */
        half = 0x7c00u;
    } else if (rest < 0x38800000u) {
        /* Below 2^-14: adding 1/2 leaves units of 2^-24, the subnormals', rounded. */
        half = __float_as_uint(__uint_as_float(rest) + 0.5f) - 0x3f000000u;
    } else {
        half = (rest - 0x38000000u + 0xfffu + (rest >> 13 & 1u)) >> 13;
    }
    return __ushort_as_half((unsigned short)(sign | half));
}
static inline __half __float2half(float x) { return __float2half_rn(x); }

static inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
static inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
static inline __half2 __float22half2_rn(float2 x) { return __floats2half2_rn(x.x, x.y); }
static inline float2 __half22float2(__half2 x) { return {__half2float(x.x), __half2float(x.y)}; }
static inline __half __low2half(__half2 x) { return x.x; }
static inline __half __high2half(__half2 x) { return x.y; }

#endif
