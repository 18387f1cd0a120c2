/* pointwise.cu: one output element from the elements at the same place of up to three inputs.
 *
 * An op is one line below: its name in kernels.h, how many operands it has and an expression in a, b, c,
 * p0 and p1 of the type R that it is computed in. elementwise.h makes kernels of it.
 *
 * HOT ops have a kernel each for float32, float16 and bfloat16, bound by memory: each operand and the output
 * once (float32, two operands: 12 bytes an element), at most some 25 instructions an element besides. RARE
 * ones, everything in float64, integers and predicates share one kernel a dtype, in which all threads take
 * the same branch: that keeps the library small, and costs some ten instructions an element. */
#include "elementwise.h"
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

/* ---- functors ---- */

#define UNUSED (void)a, (void)b, (void)c, (void)p0, (void)p1
#define X(NAME, inputs, e) \
    template <class R> struct line_##NAME { \
        static __device__ __forceinline__ R value(R a, R b, R c, R p0, R p1) { \
            UNUSED; \
            return e; \
        } \
    }; \
    template <class T> struct op_##NAME : operands<inputs, T> { \
        typedef compute_t<T> R; \
        R p0, p1; \
        __device__ __forceinline__ R operator()(R a, R b, R c) const { \
            return line_##NAME<R>::value(a, b, c, p0, p1); \
        } \
    };
HOT_FLOAT_OPS(X) RARE_FLOAT_OPS(X)
X(CUBE, 1, a * a * a)      /* POW with the constant 3 */
#undef X

template <class Line, class R> static __device__ __noinline__ R called(R a, R b, R c, R p0, R p1) {
    return Line::value(a, b, c, p0, p1);
}

/* Any of the ops that have no kernel of their own. */
template <class T> struct any_float : operands<3, T> {
    typedef compute_t<T> R;
    static const int VALUES = smaller_of(4, operands<3, T>::VALUES);
    int op;
    R p0, p1;
    __device__ __forceinline__ R operator()(R a, R b, R c) const {
#define X(NAME, inputs, e) case PG_K_##NAME: return called<line_##NAME<R>>(a, b, c, p0, p1);
        switch (op) {
        RARE_FLOAT_OPS(X)
        default:
            if constexpr (std::is_same_v<T, double>) {
                switch (op) {
                HOT_FLOAT_OPS(X)
                default: return called<line_CUBE<R>>(a, b, c, p0, p1);
                }
            } else {
                return 0;
            }
        }
#undef X
    }
};

template <class T> struct float_predicate : operands<2, bool, T> {
    typedef compute_t<T> R;
    int op;
    __device__ __forceinline__ bool operator()(R a, R b, bool) const {
        switch (op) {
#define X(NAME, e) case PG_K_##NAME: return e;
        FLOAT_PREDICATES(X)
#undef X
        default: return false;
        }
    }
};

template <class T> struct integer_op : operands<3, T> {
    typedef std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t> W;
    typedef std::conditional_t<sizeof(T) == 8, int64_t, int32_t> S;
    static const int VALUES = smaller_of(4, operands<3, T>::VALUES);
    int op;
    int64_t p0;
    int64_t *slot;
    const char *name;
    __device__ __forceinline__ S divides_by(S b) const {
        if (b == 0) report(slot, PG_KERNEL_ZERO_DIVISION, 0, 0, name);
        return b;
    }
    __device__ __forceinline__ T operator()(S a, S b, S c) const {
        switch (op) {
#define X(NAME, e) case PG_K_##NAME: return (T)(e);
        INTEGER_OPS(X)
#undef X
        default: return 0;
        }
    }
};

template <class T> struct integer_predicate : operands<2, bool, T> {
    static const int VALUES = smaller_of(4, operands<2, bool, T>::VALUES);
    int op;
    __device__ __forceinline__ bool operator()(T a, T b, bool) const {
        switch (op) {
#define X(NAME, e) case PG_K_##NAME: return e;
        INTEGER_PREDICATES(X)
#undef X
        default: return false;
        }
    }
};

/* Elements by size alone, so that their bits stay as they are. */
template <class T> struct where_op : operands<3, T, bool, T, T> {
    typedef compute_t<T> R;
    __device__ __forceinline__ R operator()(bool condition, R a, R b) const { return condition ? a : b; }
};

/* ---- launching ---- */

#define ROW(NAME, inputs, kinds) inputs,
static const unsigned char arities[] = {PG_POINTWISE(ROW) PG_PREDICATES(ROW)};
#undef ROW
static const int FIRST_PREDICATE = PG_K_EQ, CUBE = -1;      /* CUBE: a power with the constant exponent 3 */

template <class T>
static int run_float(const pg_context *c, int op, const pg_strided *s, double p0, double p1) {
    typedef compute_t<T> R;
    if (op >= FIRST_PREDICATE && op < PG_K_POINTWISE_COUNT) {
        float_predicate<T> f = {};
        f.op = op;
        return each(c, s, f);
    }
    if constexpr (!std::is_same_v<T, double>) {
        switch (op) {
#define X(NAME, inputs, e) \
        case PG_K_##NAME: { op_##NAME<T> f = {}; f.p0 = (R)p0; f.p1 = (R)p1; return each(c, s, f); }
        HOT_FLOAT_OPS(X)
#undef X
        case CUBE: { op_CUBE<T> f = {}; return each(c, s, f); }
        default: break;
        }
    }
    any_float<T> f = {};
    f.op = op;
    f.p0 = (R)p0;
    f.p1 = (R)p1;
    return each(c, s, f);
}

template <class T> static int run_integer(const pg_context *c, int op, const pg_strided *s, double p0) {
    if (op >= FIRST_PREDICATE) {
        integer_predicate<T> f = {};
        f.op = op;
        return each(c, s, f);
    }
    integer_op<T> f = {};
    f.op = op;
    f.p0 = (int64_t)p0;
    f.slot = c->bad_index;
    f.name = c->op;
    return each(c, s, f);
}

static int run_where(const pg_context *c, int dtype, const pg_strided *s) {
    switch (dtype) {
    case PG_K_INT64: return each(c, s, where_op<int64_t>());
    case PG_K_FLOAT64: return each(c, s, where_op<double>());
    case PG_K_INT32: return each(c, s, where_op<int32_t>());
    case PG_K_FLOAT32: return each(c, s, where_op<float>());
    case PG_K_INT16: return each(c, s, where_op<int16_t>());
    case PG_K_BOOL: return each(c, s, where_op<bool>());
    case PG_K_FLOAT16: return each(c, s, where_op<__half>());
    case PG_K_BFLOAT16: return each(c, s, where_op<__nv_bfloat16>());
    default: return each(c, s, where_op<uint8_t>());
    }
}

/* A constant exponent that is a cheaper op, as on the CPU. */
static int cheaper_power(int dtype, const pg_strided *s) {
    if (s->data[2]) return PG_K_POW;
    if (dtype < PG_K_FLOAT16) return s->scalar[2].i == 2 ? PG_K_SQUARE : PG_K_POW;
    const double e = s->scalar[2].d;
    return e == 2.0 ? PG_K_SQUARE : e == 3.0 ? CUBE : e == 0.5 ? PG_K_SQRT : e == -0.5 ? PG_K_RSQRT
         : e == -1.0 ? PG_K_RECIPROCAL : PG_K_POW;
}

static bool integers_have(int op) {
    switch (op) {
#define X(NAME, e) case PG_K_##NAME:
    INTEGER_OPS(X)
#undef X
        return true;
    default: return op >= FIRST_PREDICATE;
    }
}
static bool floats_have(int op) {
    switch (op) {
#define X(NAME, inputs, e) case PG_K_##NAME:
    HOT_FLOAT_OPS(X) RARE_FLOAT_OPS(X)
#undef X
        return true;
    default: return op >= FIRST_PREDICATE;
    }
}

/* Of bools sums and maxima are or, products and minima and. */
static int bool_op(int op) {
    switch (op) {
    case PG_K_ADD: case PG_K_MAXIMUM: case PG_K_BITWISE_OR: return PG_K_BITWISE_OR;
    case PG_K_MUL: case PG_K_MINIMUM: case PG_K_BITWISE_AND: return PG_K_BITWISE_AND;
    case PG_K_BITWISE_XOR: return PG_K_BITWISE_XOR;
    case PG_K_BITWISE_NOT: return PG_K_LOGICAL_NOT;
    default: return op >= FIRST_PREDICATE ? op : -1;
    }
}

extern "C" int PG_K(pointwise)(const pg_context *c, int op, int dtype, const pg_strided *given,
                               const double *p) {
    if ((unsigned)op >= PG_K_POINTWISE_COUNT || (unsigned)dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    if (op == PG_K_WHERE) return run_where(c, dtype, given);
    pg_strided s = *given;
    /* the others bring p0 alone, or none */
    const bool two = op == PG_K_SOFTPLUS || op == PG_K_SOFTPLUS_BACKWARD;
    const double p0 = p ? p[0] : 0, p1 = p && two ? p[1] : 0;
    if (op == PG_K_POW && dtype != PG_K_BOOL) op = cheaper_power(dtype, &s);
    /* operands that the op does not have: constants */
    for (int k = (op == CUBE ? 1 : arities[op]) + 1; k < 4; k++) {
        s.data[k] = NULL;
        s.scalar[k] = pg_value();
    }
    if (dtype == PG_K_BOOL) {
        op = bool_op(op);
        if (op < 0) return PG_KERNEL_UNSUPPORTED;
        for (int k = 1; k < 4; k++) s.scalar[k].i = s.scalar[k].i != 0;
        return run_integer<uint8_t>(c, op, &s, p0);
    }
    if (dtype < PG_K_FLOAT16 ? !integers_have(op) : op != CUBE && !floats_have(op))
        return PG_KERNEL_UNSUPPORTED;
    switch (dtype) {
    case PG_K_UINT8: return run_integer<uint8_t>(c, op, &s, p0);
    case PG_K_INT8: return run_integer<int8_t>(c, op, &s, p0);
    case PG_K_INT16: return run_integer<int16_t>(c, op, &s, p0);
    case PG_K_INT32: return run_integer<int32_t>(c, op, &s, p0);
    case PG_K_INT64: return run_integer<int64_t>(c, op, &s, p0);
    case PG_K_FLOAT16: return run_float<__half>(c, op, &s, p0, p1);
    case PG_K_BFLOAT16: return run_float<__nv_bfloat16>(c, op, &s, p0, p1);
    case PG_K_FLOAT32: return run_float<float>(c, op, &s, p0, p1);
    default: return run_float<double>(c, op, &s, p0, p1);
    }
}
