/* device_functions.h: loads with hints, bits, and the mathematics that C's library lacks. */
#ifndef PG_ON_CPU_DEVICE_FUNCTIONS_H
#define PG_ON_CPU_DEVICE_FUNCTIONS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* ---- loads and stores with a hint for the caches ---- */

template <class T> static inline T __ldg(const T *p) { return *p; }
template <class T> static inline T __ldcg(const T *p) { return *p; }
template <class T> static inline T __ldcs(const T *p) { return *p; }
template <class T> static inline T __ldca(const T *p) { return *p; }
template <class T> static inline T __ldlu(const T *p) { return *p; }
template <class T> static inline T __ldcv(const T *p) { return *p; }
template <class T> static inline void __stcs(T *p, T x) { *p = x; }
template <class T> static inline void __stcg(T *p, T x) { *p = x; }
template <class T> static inline void __stwb(T *p, T x) { *p = x; }
template <class T> static inline void __stwt(T *p, T x) { *p = x; }

/* ---- bits ---- */

namespace on_cpu {
template <class To, class From> inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits need the same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
}   // namespace on_cpu
static inline int __float_as_int(float x) { return on_cpu::bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return on_cpu::bits<unsigned>(x); }
static inline float __int_as_float(int x) { return on_cpu::bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return on_cpu::bits<float>(x); }
static inline long long __double_as_longlong(double x) { return on_cpu::bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return on_cpu::bits<double>(x); }
static inline int __double2hiint(double x) { return (int)(on_cpu::bits<uint64_t>(x) >> 32); }
static inline int __double2loint(double x) { return (int)on_cpu::bits<uint64_t>(x); }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((uint64_t)high << 32 | low) << (shift & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((uint64_t)high << 32 | low) >> (shift & 31));
}
/* Four of the eight bytes of a (0 to 3) and b (4 to 7), chosen by the nibbles of `which`. */
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned which) {
    const uint64_t both = (uint64_t)b << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) result |= (unsigned)(both >> (which >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return result;
}
static inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

/* ---- mathematics; what NVIDIA's approximations give within a few ulp, these give rounded better ---- */

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
/* glibc has functions of its own by these names. */
#define __expf(x) expf(x)
#define __logf(x) logf(x)
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __saturatef(float x) { return x > 0.0f ? x < 1.0f ? x : 1.0f : 0.0f; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

/* CUDA's min and max of numbers: for two types the usual one; of floats the one that is no NaN. */
#define PG_MIN_MAX(type, a_type, b_type)                                                              \
    static inline type min(a_type a, b_type b) { return (type)a < (type)b ? (type)a : (type)b; }      \
    static inline type max(a_type a, b_type b) { return (type)a > (type)b ? (type)a : (type)b; }
PG_MIN_MAX(int, int, int)
PG_MIN_MAX(unsigned, unsigned, unsigned)
PG_MIN_MAX(unsigned, int, unsigned)
PG_MIN_MAX(unsigned, unsigned, int)
PG_MIN_MAX(long, long, long)
PG_MIN_MAX(unsigned long, unsigned long, unsigned long)
PG_MIN_MAX(unsigned long, long, unsigned long)
PG_MIN_MAX(unsigned long, unsigned long, long)
PG_MIN_MAX(long long, long long, long long)
PG_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
PG_MIN_MAX(unsigned long long, long long, unsigned long long)
PG_MIN_MAX(unsigned long long, unsigned long long, long long)
#undef PG_MIN_MAX
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline double min(float a, double b) { return fmin(a, b); }
static inline double max(float a, double b) { return fmax(a, b); }
static inline double min(double a, float b) { return fmin(a, b); }
static inline double max(double a, float b) { return fmax(a, b); }

#endif
