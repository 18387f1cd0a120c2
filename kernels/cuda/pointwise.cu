/* pointwise.cu: one output element from the elements at the same place of up to three inputs.
 *
 * The ops are pointwise.h's lines; elementwise.h makes kernels of them.
 *
 * HOT ops have a kernel each for float32, float16 and bfloat16, bound by memory: each operand and the output
 * once (float32, two operands: 12 bytes an element), at most some 25 instructions an element besides. RARE
 * ones, everything in float64, integers and predicates share one kernel a dtype, in which all threads take
 * the same branch: that keeps the library small, and costs some ten instructions an element. */
#include "elementwise.h"
#include "pointwise.h"

/* ---- functors ---- */

#define X(NAME, inputs, e) \
    template <class T> struct op_##NAME : operands<inputs, T> { \
        typedef compute_t<T> R; \
        R p0, p1; \
        __device__ __forceinline__ R operator()(R a, R b, R c) const { \
            return line_##NAME<R>::value(a, b, c, p0, p1); \
        } \
    };
HOT_FLOAT_OPS(X) RARE_FLOAT_OPS(X)
X(CUBE, 1, )
#undef X

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

static bool integers_have(int op) {
    switch (op) {
#define X(NAME, e) case PG_K_##NAME:
    INTEGER_OPS(X)
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

extern "C" int PG_K(pointwise)(const pg_context *c, int op, int dtype, const pg_strided *s, const double *p) {
    if ((unsigned)op >= PG_K_POINTWISE_COUNT || (unsigned)dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    if (op == PG_K_WHERE) return run_where(c, dtype, s);
    /* the others bring p0 alone, or none */
    const bool two = op == PG_K_SOFTPLUS || op == PG_K_SOFTPLUS_BACKWARD;
    const double p0 = p ? p[0] : 0, p1 = p && two ? p[1] : 0;
    if (op == PG_K_POW && dtype != PG_K_BOOL && !s->data[2]) op = cheaper_power(dtype, s->scalar[2]);
    if (dtype == PG_K_BOOL) {
        op = bool_op(op);
        if (op < 0) return PG_KERNEL_UNSUPPORTED;
        pg_strided flags = *s;
        for (int k = 1; k < s->n; k++) flags.scalar[k].i = flags.scalar[k].i != 0;
        return run_integer<uint8_t>(c, op, &flags, p0);
    }
    if (dtype < PG_K_FLOAT16 ? !integers_have(op) : op != CUBE && !floats_have(op))
        return PG_KERNEL_UNSUPPORTED;
    switch (dtype) {
    case PG_K_UINT8: return run_integer<uint8_t>(c, op, s, p0);
    case PG_K_INT8: return run_integer<int8_t>(c, op, s, p0);
    case PG_K_INT16: return run_integer<int16_t>(c, op, s, p0);
    case PG_K_INT32: return run_integer<int32_t>(c, op, s, p0);
    case PG_K_INT64: return run_integer<int64_t>(c, op, s, p0);
    case PG_K_FLOAT16: return run_float<__half>(c, op, s, p0, p1);
    case PG_K_BFLOAT16: return run_float<__nv_bfloat16>(c, op, s, p0, p1);
    case PG_K_FLOAT32: return run_float<float>(c, op, s, p0, p1);
    default: return run_float<double>(c, op, s, p0, p1);
    }
}
