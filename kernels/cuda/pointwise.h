/* pointwise.h: the pointwise ops. An op is one line: its name in kernels.h, how many operands it has and an
 * expression in a, b, c, p0 and p1 of the type R that it is computed in. pointwise.cu makes a kernel of a
 * line, chain.cu one of several. */
#ifndef PG_CUDA_POINTWISE_H
#define PG_CUDA_POINTWISE_H

#include "cuda.h"
#include "gelu.h"

/* NaN wins. */
#define MAX2(a, b) ((a) > (b) || (a) != (a) ? (a) : (b))
#define MIN2(a, b) ((a) < (b) || (a) != (a) ? (a) : (b))

#define HOT_FLOAT_OPS(X) \
    X(ADD, 2, a + b) \
    X(SUB, 2, a - b) \
    X(MUL, 2, a * b) \
    X(DIV, 2, a / b) \
    X(MAXIMUM, 2, MAX2(a, b)) \
    X(MINIMUM, 2, MIN2(a, b)) \
    X(ADDCMUL, 3, a + p0 * b * c) \
    X(ADD_SCALED, 2, a + p0 * b) \
    X(NEG, 1, -a) \
    X(ABS, 1, fabs(a)) \
    X(SQUARE, 1, a * a) \
    X(RECIPROCAL, 1, 1 / a) \
    X(EXP, 1, exp(a)) \
    X(LOG, 1, log(a)) \
    X(SQRT, 1, sqrt(a)) \
    X(RSQRT, 1, 1 / sqrt(a)) \
    X(TANH, 1, tanh(a)) \
    X(SIGMOID, 1, sigmoid(a)) \
    X(RELU, 1, a < 0 ? 0 : a) \
    X(GELU, 1, gelu(a)) \
    X(GELU_TANH, 1, gelu_tanh(a)) \
    X(SILU, 1, a / (1 + exp(-a))) \
    X(LEAKY_RELU, 1, a > 0 ? a : a * p0) \
    X(CLAMP, 3, MIN2(MAX2(a, b), c)) \
    X(RELU_BACKWARD, 2, b <= 0 ? 0 : a) \
    X(GELU_BACKWARD, 2, a * gelu_slope(b)) \
    X(GELU_TANH_BACKWARD, 2, a * gelu_tanh_slope(b)) \
    X(SILU_BACKWARD, 2, a * silu_slope(b)) \
    X(LEAKY_RELU_BACKWARD, 2, b > 0 ? a : a * p0) \
    X(TANH_BACKWARD, 2, a * (1 - b * b)) \
    X(SIGMOID_BACKWARD, 2, a * (1 - b) * b)

#define RARE_FLOAT_OPS(X) \
    X(POW, 2, pow(a, b)) \
    X(FLOOR_DIVIDE, 2, floor_divide(a, b)) \
    X(REMAINDER, 2, floor_remainder(a, b)) \
    X(FMOD, 2, fmod(a, b)) \
    X(ATAN2, 2, atan2(a, b)) \
    X(LERP, 3, c < R(0.5) ? a + c * (b - a) : b - (b - a) * (1 - c)) \
    X(SIGN, 1, (a > 0 ? R(1) : R(0)) - (a < 0 ? R(1) : R(0))) \
    X(EXPM1, 1, expm1(a)) \
    X(EXP2, 1, exp2(a)) \
    X(LOG1P, 1, log1p(a)) \
    X(LOG2, 1, log2(a)) \
    X(LOG10, 1, log10(a)) \
    X(SIN, 1, sin(a)) \
    X(COS, 1, cos(a)) \
    X(TAN, 1, tan(a)) \
    X(SINH, 1, sinh(a)) \
    X(COSH, 1, cosh(a)) \
    X(ERF, 1, erf(a)) \
    X(FLOOR, 1, floor(a)) \
    X(CEIL, 1, ceil(a)) \
    X(ROUND, 1, rint(a)) \
    X(TRUNC, 1, trunc(a)) \
    X(SOFTPLUS, 1, a * p0 > p1 ? a : log1p(exp(a * p0)) / p0) \
    X(SOFTPLUS_BACKWARD, 2, b * p0 > p1 ? a : a * sigmoid(b * p0))

/* Integers wrap: sums and products in the unsigned type W. A division by zero gives 0 and is reported. */
#define INTEGER_OPS(X) \
    X(ADD, (W)a + (W)b) \
    X(SUB, (W)a - (W)b) \
    X(MUL, (W)a * (W)b) \
    X(POW, integer_power(a, b)) \
    X(MAXIMUM, a > b ? a : b) \
    X(MINIMUM, a < b ? a : b) \
    X(FLOOR_DIVIDE, integer_floor_divide(a, divides_by(b))) \
    X(REMAINDER, integer_remainder(a, divides_by(b))) \
    X(FMOD, integer_fmod(a, divides_by(b))) \
    X(ADDCMUL, (W)a + (W)p0 * (W)b * (W)c) \
    X(ADD_SCALED, (W)a + (W)p0 * (W)b) \
    X(NEG, (W)0 - (W)a) \
    X(ABS, a > 0 ? (W)a : (W)0 - (W)a) \
    X(SIGN, a > 0 ? 1 : a == 0 ? 0 : -1) \
    X(SQUARE, (W)a * (W)a) \
    X(FLOOR, a) \
    X(CEIL, a) \
    X(ROUND, a) \
    X(TRUNC, a) \
    X(RELU, a > 0 ? a : 0) \
    X(CLAMP, (a < b ? b : a) < c ? (a < b ? b : a) : c) \
    X(BITWISE_AND, a & b) \
    X(BITWISE_OR, a | b) \
    X(BITWISE_XOR, a ^ b) \
    X(BITWISE_NOT, ~a)

#define COMPARISONS(X) \
    X(EQ, a == b) \
    X(NE, a != b) \
    X(LT, a < b) \
    X(LE, a <= b) \
    X(GT, a > b) \
    X(GE, a >= b) \
    X(LOGICAL_AND, (a != 0) & (b != 0)) \
    X(LOGICAL_OR, (a != 0) | (b != 0)) \
    X(LOGICAL_XOR, (a != 0) ^ (b != 0)) \
    X(LOGICAL_NOT, a == 0)
#define FLOAT_PREDICATES(X) COMPARISONS(X) \
    X(ISNAN, a != a) \
    X(ISINF, fabs(a) == R(INFINITY)) \
    X(ISFINITE, fabs(a) < R(INFINITY))
#define INTEGER_PREDICATES(X) COMPARISONS(X) \
    X(ISNAN, false) \
    X(ISINF, false) \
    X(ISFINITE, true)

/* ---- what the lines are made of ---- */

template <class R> static __device__ __forceinline__ R sigmoid(R x) { return 1 / (1 + exp(-x)); }

template <class R> static __device__ __forceinline__ R gelu_slope(R x) {
    const R e = exp(R(-0.5) * x * x);
    return fma(x * R(0.39894228040143267794), e, normal_cdf(x, e));
}
/* s + x s (1 - s) du2/dx, s = sigmoid(u2); s (1 - s) = t / (1 + t)^2, t = e^-|u2|, keeps its digits where s
 * is nearly 1. */
template <class R> static __device__ __forceinline__ R gelu_tanh_slope(R x) {
    const R x2 = x * x, u2 = R(1.59576912160573071) * x * fma(R(0.044715), x2, R(1));
    const R t = exp(-fabs(u2)), r = 1 / (1 + t), s = u2 < 0 ? t * r : r;
    return fma(x * (t * r * r), R(1.59576912160573071) * fma(R(0.134145), x2, R(1)), s);
}
template <class R> static __device__ __forceinline__ R silu_slope(R x) {
    const R s = sigmoid(x);
    return s * fma(x, 1 - s, R(1));
}

/* Python's % and //: the remainder has the divisor's sign. */
template <class R> static __device__ __forceinline__ R floor_remainder(R a, R b) {
    const R m = fmod(a, b);
    return m != 0 && (b < 0) != (m < 0) ? m + b : m;
}
template <class R> static __device__ __forceinline__ R floor_divide(R a, R b) {
    if (b == 0) return a / b;
    const R m = fmod(a, b);
    R d = (a - m) / b;
    if (m != 0 && (b < 0) != (m < 0)) d -= 1;
    if (d == 0) return copysign(R(0), a / b);
    const R f = floor(d);
    return d - f > R(0.5) ? f + 1 : f;
}

static __device__ __forceinline__ int64_t integer_power(int64_t base, int64_t exponent) {
    if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;
    uint64_t result = 1, square = (uint64_t)base;
    for (; exponent; exponent >>= 1, square *= square)
        if (exponent & 1) result *= square;
    return (int64_t)result;
}
/* S is int32_t or int64_t. */
template <class S> static __device__ __forceinline__ S integer_fmod(S a, S b) {
    return b == 0 || b == -1 ? 0 : a % b;
}
template <class S> static __device__ __forceinline__ S integer_floor_divide(S a, S b) {
    if (b == 0) return 0;
    if (b == -1) return (S)(0 - (uint64_t)a);
    const S q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}
template <class S> static __device__ __forceinline__ S integer_remainder(S a, S b) {
    const S r = integer_fmod(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

/* ---- a line as a function ---- */

#define UNUSED (void)a, (void)b, (void)c, (void)p0, (void)p1
#define X(NAME, inputs, e) \
    template <class R> struct line_##NAME { \
        static __device__ __forceinline__ R value(R a, R b, R c, R p0, R p1) { \
            UNUSED; \
            return e; \
        } \
    };
HOT_FLOAT_OPS(X) RARE_FLOAT_OPS(X)
X(CUBE, 1, a * a * a)
#undef X

/* Where many lines meet in one kernel. */
template <class Line, class R> static __device__ __noinline__ R called(R a, R b, R c, R p0, R p1) {
    return Line::value(a, b, c, p0, p1);
}

/* CUBE: a power with the constant exponent 3. */
static const int FIRST_PREDICATE = PG_K_EQ, CUBE = -1;

/* A constant exponent that is a cheaper op, as on the CPU. */
static inline int cheaper_power(int dtype, pg_value exponent) {
    if (dtype < PG_K_FLOAT16) return exponent.i == 2 ? PG_K_SQUARE : PG_K_POW;
    const double e = exponent.d;
    return e == 2.0 ? PG_K_SQUARE : e == 3.0 ? CUBE : e == 0.5 ? PG_K_SQRT : e == -0.5 ? PG_K_RSQRT
         : e == -1.0 ? PG_K_RECIPROCAL : PG_K_POW;
}

/* Whether there is a line for floats. */
static inline bool floats_have(int op) {
    switch (op) {
#define X(NAME, inputs, e) case PG_K_##NAME:
    HOT_FLOAT_OPS(X) RARE_FLOAT_OPS(X)
#undef X
        return true;
    default: return op >= FIRST_PREDICATE;
    }
}

#endif
