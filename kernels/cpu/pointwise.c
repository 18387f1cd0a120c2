/* pointwise.c: one output element from the elements at the same place of up to three inputs.
 *
 * An op is one line below: its name in kernels.h and an expression in a, b, c (the operands), p0 and p1.
 * From each line and dtype comes one dense loop, which the compiler vectorises. Everything else is the
 * driver's: operands that are not dense are gathered into blocks, constants stand in a block of their own,
 * float16 and bfloat16 are widened to float32 and narrowed again, large outputs are written past the caches.
 */
#include "convert.h"
#include "walk.h"

typedef void (*loop)(int64_t n, void *out, const void *in1, const void *in2, const void *in3,
                     const double *p);

/* NaN wins. */
#define MAX2(a, b) ((((a) > (b)) | ((a) != (a))) ? (a) : (b))
#define MIN2(a, b) ((((a) < (b)) | ((a) != (a))) ? (a) : (b))

#define FLOAT_OPS(O1, O2, O3, O1P, O2P, O3P) \
    O2(ADD, a + b) \
    O2(SUB, a - b) \
    O2(MUL, a * b) \
    O2(DIV, a / b) \
    O2(POW, F(pow)(a, b)) \
    O2(MAXIMUM, MAX2(a, b)) \
    O2(MINIMUM, MIN2(a, b)) \
    O2(FLOOR_DIVIDE, F(floor_divide)(a, b)) \
    O2(REMAINDER, F(remainder)(a, b)) \
    O2(FMOD, F(fmod)(a, b)) \
    O2(ATAN2, F(atan2)(a, b)) \
    O3P(ADDCMUL, a + p0 * b * c) \
    O3(LERP, c < (T)0.5 ? a + c * (b - a) : b - (b - a) * (1 - c)) \
    O2P(ADD_SCALED, a + p0 * b) \
    O1(NEG, -a) \
    O1(ABS, F(abs)(a)) \
    O1(SIGN, (a > 0 ? (T)1 : (T)0) - (a < 0 ? (T)1 : (T)0)) \
    O1(SQUARE, a * a) \
    O1(RECIPROCAL, 1 / a) \
    O1(EXP, F(exp)(a)) \
    O1(EXPM1, F(expm1)(a)) \
    O1(EXP2, F(exp2)(a)) \
    O1(LOG, F(log)(a)) \
    O1(LOG1P, F(log1p)(a)) \
    O1(LOG2, F(log2)(a)) \
    O1(LOG10, F(log10)(a)) \
    O1(SQRT, F(sqrt)(a)) \
    O1(RSQRT, 1 / F(sqrt)(a)) \
    O1(SIN, F(sin)(a)) \
    O1(COS, F(cos)(a)) \
    O1(TAN, F(tan)(a)) \
    O1(SINH, F(sinh)(a)) \
    O1(COSH, F(cosh)(a)) \
    O1(TANH, F(tanh)(a)) \
    O1(SIGMOID, F(sigmoid)(a)) \
    O1(ERF, F(erf)(a)) \
    O1(FLOOR, F(floor)(a)) \
    O1(CEIL, F(ceil)(a)) \
    O1(ROUND, F(round)(a)) \
    O1(TRUNC, F(trunc)(a)) \
    O1(RELU, a < 0 ? 0 : a) \
    O1(GELU, F(gelu)(a)) \
    O1(GELU_TANH, F(gelu_tanh)(a)) \
    O1(SILU, F(silu)(a)) \
    O1P(SOFTPLUS, F(softplus)(a, p0, p1)) \
    O1P(LEAKY_RELU, a > 0 ? a : a * p0) \
    O3(CLAMP, MIN2(MAX2(a, b), c)) \
    O2(RELU_BACKWARD, b <= 0 ? 0 : a) \
    O2(GELU_BACKWARD, a * F(gelu_slope)(b)) \
    O2(GELU_TANH_BACKWARD, a * F(gelu_tanh_slope)(b)) \
    O2(SILU_BACKWARD, a * F(silu_slope)(b)) \
    O2P(SOFTPLUS_BACKWARD, b * p0 > p1 ? a : a * F(sigmoid)(b * p0)) \
    O2P(LEAKY_RELU_BACKWARD, b > 0 ? a : a * p0) \
    O2(TANH_BACKWARD, a * (1 - b * b)) \
    O2(SIGMOID_BACKWARD, a * (1 - b) * b)

/* Integers wrap: sums and products in the unsigned type W. Divisions by zero give 0, and the driver reports
 * them. */
#define INTEGER_OPS(O1, O2, O3, O1P, O2P, O3P) \
    O2(ADD, (W)a + (W)b) \
    O2(SUB, (W)a - (W)b) \
    O2(MUL, (W)a * (W)b) \
    O2(POW, integer_power(a, b)) \
    O2(MAXIMUM, a > b ? a : b) \
    O2(MINIMUM, a < b ? a : b) \
    O2(FLOOR_DIVIDE, integer_floor_divide(a, b)) \
    O2(REMAINDER, integer_remainder(a, b)) \
    O2(FMOD, integer_fmod(a, b)) \
    O3P(ADDCMUL, (W)a + (W)p0 * (W)b * (W)c) \
    O2P(ADD_SCALED, (W)a + (W)p0 * (W)b) \
    O1(NEG, (W)0 - (W)a) \
    O1(ABS, a > 0 ? (W)a : (W)0 - (W)a) \
    O1(SIGN, a > 0 ? 1 : a == 0 ? 0 : -1) \
    O1(SQUARE, (W)a * (W)a) \
    O1(FLOOR, a) \
    O1(CEIL, a) \
    O1(ROUND, a) \
    O1(TRUNC, a) \
    O1(RELU, a > 0 ? a : 0) \
    O3(CLAMP, (a < b ? b : a) < c ? (a < b ? b : a) : c) \
    O2(BITWISE_AND, a & b) \
    O2(BITWISE_OR, a | b) \
    O2(BITWISE_XOR, a ^ b) \
    O1(BITWISE_NOT, ~a)

/* Sums are or, products and. */
#define BOOL_OPS(O1, O2, O3, O1P, O2P, O3P) \
    O2(ADD, a | b) \
    O2(MUL, a & b) \
    O2(MAXIMUM, a | b) \
    O2(MINIMUM, a & b) \
    O2(BITWISE_AND, a & b) \
    O2(BITWISE_OR, a | b) \
    O2(BITWISE_XOR, a ^ b) \
    O1(BITWISE_NOT, a ^ 1)

#define COMPARISONS(Q1, Q2) \
    Q2(EQ, a == b) \
    Q2(NE, a != b) \
    Q2(LT, a < b) \
    Q2(LE, a <= b) \
    Q2(GT, a > b) \
    Q2(GE, a >= b) \
    Q2(LOGICAL_AND, (a != 0) & (b != 0)) \
    Q2(LOGICAL_OR, (a != 0) | (b != 0)) \
    Q2(LOGICAL_XOR, (a != 0) ^ (b != 0)) \
    Q1(LOGICAL_NOT, a == 0)
#define FLOAT_PREDICATES(Q1, Q2) COMPARISONS(Q1, Q2) \
    Q1(ISNAN, a != a) \
    Q1(ISINF, F(abs)(a) == (T)INFINITY) \
    Q1(ISFINITE, F(abs)(a) < (T)INFINITY)
#define INTEGER_PREDICATES(Q1, Q2) COMPARISONS(Q1, Q2) \
    Q1(ISNAN, a & 0) \
    Q1(ISINF, a & 0) \
    Q1(ISFINITE, a == a)

static inline int64_t integer_power(int64_t base, int64_t exponent) {
    if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;
    uint64_t result = 1, square = (uint64_t)base;
    for (; exponent; exponent >>= 1, square *= square)
        if (exponent & 1) result *= square;
    return (int64_t)result;
}
static inline int64_t integer_floor_divide(int64_t a, int64_t b) {
    if (b == 0) return 0;
    if (b == -1) return (int64_t)(0 - (uint64_t)a);
    int64_t q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}
static inline int64_t integer_fmod(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
static inline int64_t integer_remainder(int64_t a, int64_t b) {
    int64_t r = integer_fmod(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

#define F(name) name##_f32
#define T float
#define TAG f32
#define OPS FLOAT_OPS
#define PREDICATES FLOAT_PREDICATES
#include "pointwise_type.h"
#undef F
#define F(name) name##_f64
#define T double
#define TAG f64
#define OPS FLOAT_OPS
#define PREDICATES FLOAT_PREDICATES
#include "pointwise_type.h"
#undef F
#define W uint64_t
#define T int64_t
#define TAG i64
#define OPS INTEGER_OPS
#define PREDICATES INTEGER_PREDICATES
#include "pointwise_type.h"
#undef W
#define W uint32_t
#define T int32_t
#define TAG i32
#define OPS INTEGER_OPS
#define PREDICATES INTEGER_PREDICATES
#include "pointwise_type.h"
#define T int16_t
#define TAG i16
#define OPS INTEGER_OPS
#define PREDICATES INTEGER_PREDICATES
#include "pointwise_type.h"
#define T int8_t
#define TAG i8
#define OPS INTEGER_OPS
#define PREDICATES INTEGER_PREDICATES
#include "pointwise_type.h"
#define T uint8_t
#define TAG u8
#define OPS INTEGER_OPS
#define PREDICATES INTEGER_PREDICATES
#include "pointwise_type.h"
#define T uint8_t
#define TAG b8
#define OPS BOOL_OPS
#define PREDICATES INTEGER_PREDICATES
#include "pointwise_type.h"
#undef W

/* in1 bool, in2 and in3 of one size. */
#define WHERE(T) \
    static void where_##T(int64_t n, void *out, const void *in1, const void *in2, const void *in3, \
                          const double *p) { \
        (void)p; \
        T *o = out; const uint8_t *c = in1; const T *a = in2, *b = in3; \
        INDEPENDENT for (int64_t i = 0; i < n; i++) { const T x = a[i], y = b[i]; o[i] = c[i] ? x : y; } \
    }
WHERE(uint8_t) WHERE(uint16_t) WHERE(uint32_t) WHERE(uint64_t)

/* Rows with PG_K_FLOAT16 and PG_K_BFLOAT16 are computed by float32's loops. */
static const loop *const tables[] = {
    table_b8, table_u8, table_i8, table_i16, table_i32, table_i64, table_f32, table_f32, table_f32, table_f64
};
#define ARITY(NAME, arity, kinds) [PG_K_##NAME] = arity,
static const uint8_t arities[] = {PG_POINTWISE(ARITY) PG_PREDICATES(ARITY)};
enum { FIRST_PREDICATE = PG_K_EQ };

typedef struct job {
    const pg_strided *s;
    loop run;
    const double *p;
    int inputs;
    /* PG_K_FLOAT16 or PG_K_BFLOAT16 where operands are widened, else -1 */
    int half;
    bool whole;                          /* every operand is dense and read as it lies: no blocks */
    bool streams, flat, check_zero, zero_division;
    int dtype[4], item[4];               /* in memory, per operand */
    bool widened[4], dense[4], constant[4];
} job;

typedef union block {
    uint64_t u64[BLOCK];
    uint32_t u32[BLOCK];
    uint16_t u16[BLOCK];
    uint8_t u8[BLOCK];
    float f32[BLOCK];
} block;

static void repeat(int item, const void *value, int64_t n, void *to) {
    switch (item) {
    case 1: memset(to, *(const uint8_t *)value, (size_t)n); break;
    case 2: gather_run_2(to, value, 0, n); break;
    case 4: gather_run_4(to, value, 0, n); break;
    default: gather_run_8(to, value, 0, n); break;
    }
}

static bool has_zero(int item, int64_t n, const void *data) {
    bool found = false;
#define FIND(T) { const T *a = data; for (int64_t i = 0; i < n; i++) found |= a[i] == 0; } break
    switch (item) {
    case 1: FIND(uint8_t);
    case 2: FIND(uint16_t);
    case 4: FIND(uint32_t);
    default: FIND(uint64_t);
    }
#undef FIND
    return found;
}

/* A constant operand's value, repeated, as the loop reads it. */
static const void *constant_block(const job *j, int k, int64_t n, block *to) {
    uint64_t element = 0;
    const void *value = j->s->data[k];
    if (!value) {
        store_value(j->dtype[k], j->s->scalar[k], &element);
        value = &element;
    }
    if (j->widened[k]) {
        float wide;
        widen(j->half, 1, value, &wide);
        repeat(4, &wide, n, to);
    } else {
        repeat(j->item[k], value, n, to);
    }
    return to;
}

static void run_range(void *arg, int64_t begin, int64_t end, int worker) {
    job *j = arg;
    (void)worker;
    const pg_strided *s = j->s;
    if (j->whole) {
        const char *in[4] = {0};
        for (int k = 1; k <= j->inputs; k++) in[k] = (const char *)s->data[k] + begin * j->item[k];
        j->run(end - begin, (char *)s->data[0] + begin * j->item[0], in[1], in[2], in[3], j->p);
        return;
    }
    _Alignas(64) block raw[4];
    _Alignas(64) block wide[4];
    const void *in[4] = {0};
    for (int k = 1; k <= j->inputs; k++)
        if (j->constant[k]) in[k] = constant_block(j, k, min64(end - begin, BLOCK), &raw[k]);
    walk w = {0};
    int last = s->ndim - 1;
    /* Long rows are taken one at a time, so that an operand that is dense along them is read where it
     * lies. */
    bool by_row = !j->flat && s->shape[last] >= 64;
    if (!j->flat) walk_to(&w, s->ndim, s->shape, begin);
    for (int64_t i = begin, m; i < end; i += m) {
        m = min64(end - i, BLOCK);
        if (by_row) m = min64(m, s->shape[last] - w.at[last]);
        if (j->streams && i == begin) {          /* from then on every block starts on a cache line */
            int64_t ahead = (int64_t)(-(uintptr_t)((char *)s->data[0] + i * j->item[0]) & 63) / j->item[0];
            if (ahead) m = min64(m, ahead);
        }
        for (int k = 1; k <= j->inputs; k++) {
            if (j->constant[k]) continue;
            const char *base = s->data[k];
            if (j->dense[k]) {
                in[k] = base + i * j->item[k];
            } else if (by_row && s->stride[k][last] == 1) {
                in[k] = base + walk_offset(&w, s->stride[k]) * j->item[k];
            } else {
                gather(j->item[k], &raw[k], base, &w, s->stride[k], m);
                in[k] = &raw[k];
            }
            if (j->widened[k]) {
                widen(j->half, m, in[k], wide[k].f32);
                in[k] = &wide[k];
            }
        }
        if (j->check_zero && has_zero(j->item[2], m, in[2]))
            __atomic_store_n(&j->zero_division, true, __ATOMIC_RELAXED);
        char *direct = j->dense[0] ? (char *)s->data[0] + i * j->item[0]
                     : by_row && s->stride[0][last] == 1
                         ? (char *)s->data[0] + walk_offset(&w, s->stride[0]) * j->item[0]
                     : NULL;
        void *to = direct && !j->streams ? direct : (char *)&raw[0];
        if (j->widened[0]) {
            j->run(m, &wide[0], in[1], in[2], in[3], j->p);
            narrow(j->half, m, wide[0].f32, to);
        } else {
            j->run(m, to, in[1], in[2], in[3], j->p);
        }
        if (j->streams) {
            if (((uintptr_t)direct & 63) == 0) stream(direct, to, m * j->item[0]);
            else memcpy(direct, to, (size_t)(m * j->item[0]));
        } else if (!direct) {
            scatter(j->item[0], s->data[0], to, &w, s->stride[0], m);
        }
        if (by_row) walk_on(&w, m);
        else if (!j->flat) walk_to(&w, s->ndim, s->shape, i + m);
    }
    if (j->streams) stream_end();
}

/* Elements below which another thread costs more than it saves. */
static int64_t grain_of(int op) {
    switch (op) {
    case PG_K_POW: case PG_K_FLOOR_DIVIDE: case PG_K_REMAINDER: case PG_K_FMOD: case PG_K_ATAN2:
    case PG_K_SIN: case PG_K_COS: case PG_K_TAN: case PG_K_SINH: case PG_K_COSH: case PG_K_LOG2:
    case PG_K_LOG10:
        return 2048;
    case PG_K_EXP: case PG_K_EXPM1: case PG_K_EXP2: case PG_K_LOG: case PG_K_LOG1P: case PG_K_TANH:
    case PG_K_SIGMOID: case PG_K_ERF: case PG_K_GELU: case PG_K_GELU_TANH: case PG_K_SILU:
    case PG_K_SOFTPLUS: case PG_K_GELU_BACKWARD: case PG_K_GELU_TANH_BACKWARD: case PG_K_SILU_BACKWARD:
    case PG_K_SOFTPLUS_BACKWARD:
        return 8192;
    default:
        return 32768;
    }
}

/* sin, cos, tan of float32 beyond the vector code's reach: one at a time through the C library. */
static void big_angles(int op, int64_t n, float *out, const float *in) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(in[i]) < SINCOS_LIMIT))
            out[i] = (float)(op == PG_K_SIN ? sin((double)in[i]) : op == PG_K_COS ? cos((double)in[i])
                             : tan((double)in[i]));
}
#define ANGLES(NAME, name) \
    static void angles_##name(int64_t n, void *out, const void *in1, const void *in2, const void *in3, \
                              const double *p) { \
        float keep[BLOCK]; \
        const float *in = in1; \
        for (int64_t i = 0, m; i < n; i += m) { \
            m = min64(n - i, BLOCK); \
            int big = 0; \
            for (int64_t k = 0; k < m; k++) big |= !(fabsf(in[i + k]) < SINCOS_LIMIT); \
            if (big) memcpy(keep, in + i, (size_t)m * sizeof(float)); \
            NAME##_f32(m, (float *)out + i, in + i, in2, in3, p); \
            if (big) big_angles(PG_K_##NAME, m, (float *)out + i, keep); \
        } \
    }
ANGLES(SIN, sin) ANGLES(COS, cos) ANGLES(TAN, tan)

static loop loop_of(int op, int dtype) {
    static const loop wheres[] = {[1] = where_uint8_t, [2] = where_uint16_t, [4] = where_uint32_t,
                                  [8] = where_uint64_t};
    if (op == PG_K_WHERE) return wheres[item_size(dtype)];
    if (dtype >= PG_K_FLOAT16 && dtype <= PG_K_FLOAT32) {
        if (op == PG_K_SIN) return angles_sin;
        if (op == PG_K_COS) return angles_cos;
        if (op == PG_K_TAN) return angles_tan;
    }
    return tables[dtype][op];
}

#define CUBE(T) \
    static void cube_##T(int64_t n, void *out, const void *in1, const void *in2, const void *in3, \
                         const double *p) { \
        (void)in2; (void)in3; (void)p; \
        T *o = out; const T *x = in1; \
        INDEPENDENT for (int64_t i = 0; i < n; i++) { const T a = x[i]; o[i] = a * a * a; } \
    }
CUBE(float) CUBE(double)

/* A constant exponent that is a cheaper op (as in PyTorch). */
static int cheaper_power(int dtype, const pg_strided *s) {
    if (s->data[2]) return PG_K_POW;
    if (dtype < PG_K_FLOAT16) return s->scalar[2].i == 2 ? PG_K_SQUARE : PG_K_POW;
    double e = s->scalar[2].d;
    return e == 2.0 ? PG_K_SQUARE : e == 0.5 ? PG_K_SQRT : e == -0.5 ? PG_K_RSQRT
         : e == -1.0 ? PG_K_RECIPROCAL : PG_K_POW;
}

enum { SMALL = 64 };
/* Dense operands and constants, up to SMALL elements. */
static void run_small(loop run, int op, int dtype, int inputs, int64_t n, const pg_strided *s,
                      const double *p) {
    uint64_t room[3][SMALL];
    const void *in[4] = {0};
    for (int k = 1; k <= inputs; k++) {
        in[k] = s->data[k];
        if (in[k]) continue;
        uint64_t element = 0;
        int kind = k == 1 && op == PG_K_WHERE ? PG_K_BOOL : dtype;
        store_value(kind, s->scalar[k], &element);
        repeat(item_size(kind), &element, n, room[k - 1]);
        in[k] = room[k - 1];
    }
    run(n, s->data[0], in[1], in[2], in[3], p);
}

int PG_K(pointwise)(const pg_context *c, int op, int dtype, const pg_strided *s, const double *p) {
    static const double no_constants[2];
    if ((unsigned)op >= PG_K_POINTWISE_COUNT || (unsigned)dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    loop run = NULL;
    if (op == PG_K_POW) {
        op = cheaper_power(dtype, s);
        if (!s->data[2] && dtype >= PG_K_FLOAT16 && s->scalar[2].d == 3.0) {
            run = dtype == PG_K_FLOAT64 ? cube_double : cube_float;
            op = PG_K_SQUARE;            /* one operand */
        }
    }
    if (!run) run = loop_of(op, dtype);
    if (!run) return PG_KERNEL_UNSUPPORTED;
    if (!p) p = no_constants;
    int64_t n = count_of(s->ndim, s->shape);
    if (n == 0) return PG_KERNEL_OK;

    int inputs = arities[op];
    bool is_half = dtype == PG_K_FLOAT16 || dtype == PG_K_BFLOAT16;
    bool divides = dtype < PG_K_FLOAT16 && (op == PG_K_FLOOR_DIVIDE || op == PG_K_REMAINDER
                                            || op == PG_K_FMOD);
    if (s->ndim <= 1 && n <= 1024 && !is_half && !divides) {
        /* small and dense: straight into the loop */
        bool simple = true, constants = false;
        for (int k = 0; k <= inputs; k++) {
            constants |= !s->data[k];
            simple &= n == 1 || !s->data[k] || s->stride[k][0] == 1;
        }
        if (simple && !constants) {
            run(n, s->data[0], s->data[1], s->data[2], s->data[3], p);
            return PG_KERNEL_OK;
        }
        if (simple && n <= SMALL) {
            run_small(run, op, dtype, inputs, n, s, p);
            return PG_KERNEL_OK;
        }
    }

    job j = {.s = s, .run = run, .p = p, .inputs = inputs, .half = -1, .check_zero = divides, .flat = true};
    bool blocks = divides;
    if (is_half && op != PG_K_WHERE) j.half = dtype;
    for (int k = 0; k <= inputs; k++) {
        bool is_bool = (k == 0 && op >= FIRST_PREDICATE) || (k == 1 && op == PG_K_WHERE);
        j.dtype[k] = is_bool ? PG_K_BOOL : dtype;
        j.item[k] = item_size(j.dtype[k]);
        j.widened[k] = j.half >= 0 && !is_bool;
        j.constant[k] = k > 0 && (!s->data[k] || is_broadcast(s->ndim, s->shape, s->stride[k]));
        j.dense[k] = !j.constant[k] && is_dense(s->ndim, s->shape, s->stride[k]);
        j.flat &= j.dense[k] || j.constant[k];
        blocks |= j.widened[k] || j.constant[k];
    }
    j.streams = j.dense[0] && n * j.item[0] >= STREAM_BYTES;
    j.whole = j.flat && !blocks && !j.streams;
    parallel(c, n, grain_of(op), run_range, &j);
    return j.zero_division ? PG_KERNEL_ZERO_DIVISION : PG_KERNEL_OK;
}
