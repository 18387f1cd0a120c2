/* each_float.h: includes BODY twice, for float and for double: T is the element, F(name) a name of its own, V the widest vector of
 * the instruction set with VL lanes, and the V macros its arithmetic. Where VMASKED is defined loads and stores can be masked.
 * Not guarded: each file that has a BODY includes it (after vector.h). */

/* ---- float ---- */
#define T float
#define F(name) name##_f32
#define VFMA1(a, b, c) fma32(a, b, c)
#if defined(__AVX512F__)
#define V __m512
#define VL 16
#define VMASKED
#define VMASK __mmask16
#define VMASK_OF(n) ((n) >= 16 ? (__mmask16)0xffff : (n) <= 0 ? (__mmask16)0 : (__mmask16)((1u << (n)) - 1))
#define VMLOAD(m, p) _mm512_maskz_loadu_ps(m, p)
#define VMSTORE(m, p, v) _mm512_mask_storeu_ps(p, m, v)
#define VZERO() _mm512_setzero_ps()
#define VLOAD(p) _mm512_loadu_ps(p)
#define VSTORE(p, v) _mm512_storeu_ps(p, v)
#define VSET1(x) _mm512_set1_ps(x)
#define VMUL(a, b) _mm512_mul_ps(a, b)
#define VFMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define VADD(a, b) _mm512_add_ps(a, b)
#define VMAX(a, b) _mm512_max_ps(b, a)
#define VSUM(a) _mm512_reduce_add_ps(a)
#define VTOP(a) _mm512_reduce_max_ps(a)
#define VTRANSPOSE(r) transpose16(r)
#elif defined(__AVX2__)
#define V __m256
#define VL 8
#define VZERO() _mm256_setzero_ps()
#define VLOAD(p) _mm256_loadu_ps(p)
#define VSTORE(p, v) _mm256_storeu_ps(p, v)
#define VSET1(x) _mm256_set1_ps(x)
#define VMUL(a, b) _mm256_mul_ps(a, b)
#define VFMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define VADD(a, b) _mm256_add_ps(a, b)
#define VMAX(a, b) _mm256_max_ps(b, a)
#define VSUM(a) sum8(a)
#define VTOP(a) max8(a)
#define VTRANSPOSE(r) transpose8(r)
#elif defined(__aarch64__)
#define V float32x4_t
#define VL 4
#define VZERO() vdupq_n_f32(0)
#define VLOAD(p) vld1q_f32(p)
#define VSTORE(p, v) vst1q_f32(p, v)
#define VSET1(x) vdupq_n_f32(x)
#define VMUL(a, b) vmulq_f32(a, b)
#define VFMA(a, b, c) vfmaq_f32(c, a, b)
#define VADD(a, b) vaddq_f32(a, b)
#define VMAX(a, b) vmaxq_f32(a, b)
#else
#define V four_floats
#define VL 4
#define VZERO() ((four_floats){0, 0, 0, 0})
#define VLOAD(p) ((four_floats)*(const four_anywhere *)(p))
#define VSTORE(p, v) (*(four_anywhere *)(p) = (v))
#define VSET1(x) ((four_floats){x, x, x, x})
#define VMUL(a, b) ((a) * (b))
#define VFMA(a, b, c) ((a) * (b) + (c))
#define VADD(a, b) ((a) + (b))
#define VMAX(a, b) max4(a, b)
#endif
#include BODY
#include "each_float_end.h"

/* ---- double ---- */
#define T double
#define F(name) name##_f64
#define VFMA1(a, b, c) fma64(a, b, c)
#if defined(__AVX512F__)
#define V __m512d
#define VL 8
#define VMASKED
#define VMASK __mmask8
#define VMASK_OF(n) ((n) >= 8 ? (__mmask8)0xff : (n) <= 0 ? (__mmask8)0 : (__mmask8)((1u << (n)) - 1))
#define VMLOAD(m, p) _mm512_maskz_loadu_pd(m, p)
#define VMSTORE(m, p, v) _mm512_mask_storeu_pd(p, m, v)
#define VZERO() _mm512_setzero_pd()
#define VLOAD(p) _mm512_loadu_pd(p)
#define VSTORE(p, v) _mm512_storeu_pd(p, v)
#define VSET1(x) _mm512_set1_pd(x)
#define VMUL(a, b) _mm512_mul_pd(a, b)
#define VFMA(a, b, c) _mm512_fmadd_pd(a, b, c)
#define VADD(a, b) _mm512_add_pd(a, b)
#define VMAX(a, b) _mm512_max_pd(b, a)
#define VSUM(a) _mm512_reduce_add_pd(a)
#define VTOP(a) _mm512_reduce_max_pd(a)
#elif defined(__AVX2__)
#define V __m256d
#define VL 4
#define VZERO() _mm256_setzero_pd()
#define VLOAD(p) _mm256_loadu_pd(p)
#define VSTORE(p, v) _mm256_storeu_pd(p, v)
#define VSET1(x) _mm256_set1_pd(x)
#define VMUL(a, b) _mm256_mul_pd(a, b)
#define VFMA(a, b, c) _mm256_fmadd_pd(a, b, c)
#define VADD(a, b) _mm256_add_pd(a, b)
#define VMAX(a, b) _mm256_max_pd(b, a)
#elif defined(__aarch64__)
#define V float64x2_t
#define VL 2
#define VZERO() vdupq_n_f64(0)
#define VLOAD(p) vld1q_f64(p)
#define VSTORE(p, v) vst1q_f64(p, v)
#define VSET1(x) vdupq_n_f64(x)
#define VMUL(a, b) vmulq_f64(a, b)
#define VFMA(a, b, c) vfmaq_f64(c, a, b)
#define VADD(a, b) vaddq_f64(a, b)
#define VMAX(a, b) vmaxq_f64(a, b)
#else
#define V two_doubles
#define VL 2
#define VZERO() ((two_doubles){0, 0})
#define VLOAD(p) ((two_doubles)*(const two_anywhere *)(p))
#define VSTORE(p, v) (*(two_anywhere *)(p) = (v))
#define VSET1(x) ((two_doubles){x, x})
#define VMUL(a, b) ((a) * (b))
#define VFMA(a, b, c) ((a) * (b) + (c))
#define VADD(a, b) ((a) + (b))
#define VMAX(a, b) max2(a, b)
#endif
#include BODY
#include "each_float_end.h"

#undef BODY
