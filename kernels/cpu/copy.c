/* copy.c: elements from one layout and dtype to another, and fill.
 *
 * Conversions: to bool, whether it is not zero; between integers, the low bits; floats to integers as
 * convert.h says; wider floats to float16 and bfloat16 through float32. */
#include "convert.h"
#include "walk.h"

typedef void (*converter)(int64_t n, void *to, const void *from);

#define CONVERT(FROM, F, TO, O, e) \
    static void convert_##F##_##O(int64_t n, void *to, const void *from) { \
        TO *o = to; const FROM *x = from; \
        INDEPENDENT for (int64_t i = 0; i < n; i++) { const FROM a = x[i]; o[i] = (TO)(e); } \
    }
#define FROM_INTEGER(FROM, F) \
    CONVERT(FROM, F, uint8_t, b8, a != 0) CONVERT(FROM, F, uint8_t, u8, a) CONVERT(FROM, F, int8_t, i8, a) \
    CONVERT(FROM, F, int16_t, i16, a) CONVERT(FROM, F, int32_t, i32, a) CONVERT(FROM, F, int64_t, i64, a) \
    CONVERT(FROM, F, float, f32, a) CONVERT(FROM, F, double, f64, a)
#define FROM_FLOAT(FROM, F) \
    CONVERT(FROM, F, uint8_t, b8, a != 0) CONVERT(FROM, F, uint8_t, u8, F##_to_i32(a)) \
    CONVERT(FROM, F, int8_t, i8, F##_to_i32(a)) \
    CONVERT(FROM, F, int16_t, i16, F##_to_i32(a)) CONVERT(FROM, F, int32_t, i32, F##_to_i32(a)) \
    CONVERT(FROM, F, int64_t, i64, F##_to_i64(a)) \
    CONVERT(FROM, F, float, f32, a) CONVERT(FROM, F, double, f64, a)
FROM_INTEGER(uint8_t, u8) FROM_INTEGER(int8_t, i8) FROM_INTEGER(int16_t, i16) FROM_INTEGER(int32_t, i32)
FROM_INTEGER(int64_t, i64) FROM_FLOAT(float, f32) FROM_FLOAT(double, f64)

/* By PG_K_ numbers; the rows and columns of float16 and bfloat16 are float32's, with blocks widened before
 * and narrowed after. */
#define ROW(F) {convert_##F##_b8, convert_##F##_u8, convert_##F##_i8, convert_##F##_i16, convert_##F##_i32, \
                convert_##F##_i64, \
                convert_##F##_f32, convert_##F##_f32, convert_##F##_f32, convert_##F##_f64}
static const converter converters[10][10] = {   /* [from][to] */
    ROW(u8), ROW(u8), ROW(i8), ROW(i16), ROW(i32), ROW(i64), ROW(f32), ROW(f32), ROW(f32), ROW(f64)
};

typedef struct job {
    const pg_strided *s;
    converter convert;                  /* NULL: the same dtype */
    int from, to, from_item, to_item;
    bool from_dense, to_dense, constant, streams;
} job;

static bool is_half(int dtype) { return dtype == PG_K_FLOAT16 || dtype == PG_K_BFLOAT16; }

/* in -> out, n elements, through halves' float32 where there is one. */
static void convert_block(const job *j, int64_t n, void *out, const void *in, float *wide_in,
                          float *wide_out) {
    if (!j->convert) {
        memcpy(out, in, (size_t)(n * j->to_item));
        return;
    }
    if (is_half(j->from)) {
        widen(j->from, n, in, wide_in);
        in = wide_in;
    }
    if (is_half(j->to)) {
        if (j->from >= PG_K_FLOAT16 && j->from <= PG_K_FLOAT32) {
            narrow(j->to, n, in, out);
            return;
        }
        j->convert(n, wide_out, in);
        narrow(j->to, n, wide_out, out);
        return;
    }
    j->convert(n, out, in);
}

static void copy_range(void *arg, int64_t begin, int64_t end, int worker) {
    const job *j = arg;
    (void)worker;
    const pg_strided *s = j->s;
    char *to = s->data[0];
    const char *from = s->data[1];
    bool flat = j->to_dense && j->from_dense;
    if (flat && !j->convert && !j->streams) {
        memcpy(to + begin * j->to_item, from + begin * j->from_item, (size_t)((end - begin) * j->to_item));
        return;
    }
    _Alignas(64) uint64_t in_block[BLOCK], out_block[BLOCK];
    _Alignas(64) float wide_in[BLOCK], wide_out[BLOCK];
    walk w = {0};
    int last = s->ndim - 1;
    bool by_row = !flat && s->shape[last] >= 32;
    if (!flat) walk_to(&w, s->ndim, s->shape, begin);
    for (int64_t i = begin, m; i < end; i += m) {
        m = min64(end - i, BLOCK);
        if (by_row) m = min64(m, s->shape[last] - w.at[last]);
        if (j->streams && i == begin) {
            int64_t ahead = (int64_t)(-(uintptr_t)(to + i * j->to_item) & 63) / j->to_item;
            if (ahead) m = min64(m, ahead);
        }
        const char *in = j->from_dense ? from + i * j->from_item
                       : by_row && s->stride[1][last] == 1
                           ? from + walk_offset(&w, s->stride[1]) * j->from_item : NULL;
        char *direct = j->to_dense ? to + i * j->to_item
                     : by_row && s->stride[0][last] == 1
                         ? to + walk_offset(&w, s->stride[0]) * j->to_item : NULL;
        if (!in && !j->convert && direct && !j->streams) {
            gather(j->from_item, direct, from, &w, s->stride[1], m);
        } else {
            if (!in) {
                gather(j->from_item, in_block, from, &w, s->stride[1], m);
                in = (const char *)in_block;
            }
            if (direct && j->streams) {
                const void *result = in;
                if (j->convert) {
                    convert_block(j, m, out_block, in, wide_in, wide_out);
                    result = out_block;
                }
                if (((uintptr_t)direct & 63) == 0) stream(direct, result, m * j->to_item);
                else memcpy(direct, result, (size_t)(m * j->to_item));
            } else if (direct) {
                convert_block(j, m, direct, in, wide_in, wide_out);
            } else if (j->convert) {
                convert_block(j, m, out_block, in, wide_in, wide_out);
                scatter(j->to_item, to, out_block, &w, s->stride[0], m);
            } else {
                scatter(j->to_item, to, in, &w, s->stride[0], m);
            }
        }
        if (by_row) walk_on(&w, m);
        else if (!flat) walk_to(&w, s->ndim, s->shape, i + m);
    }
    if (j->streams) stream_end();
}

/* ---- transposed: the input is dense along one dimension, the output along another ---- */

/* Lanes of the two vectors of a butterfly at distance D in a W x W transpose. */
#define LOW_LANE(l) (((l) & D) ? W + (l) - D : (l))
#define HIGH_LANE(l) (((l) & D) ? W + (l) : (l) + D)
#define LANES2(f) f(0), f(1)
#define LANES4(f) f(0), f(1), f(2), f(3)
#define LANES8(f) LANES4(f), f(4), f(5), f(6), f(7)
#define LANES16(f) LANES8(f), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15)
#define STAGE(LANES) \
    for (int i = 0; i < W; i++) \
        if (!(i & D)) { \
            vector a = r[i], b = r[i + D]; \
            r[i] = __builtin_shufflevector(a, b, LANES(LOW_LANE)); \
            r[i + D] = __builtin_shufflevector(a, b, LANES(HIGH_LANE)); \
        }

#if defined(__AVX512F__)
#define W4 16
#elif defined(__AVX__)
#define W4 8
#else
#define W4 4
#endif

/* One W x W tile, one vector a row. streams: every output row is a whole aligned vector. */
static void tile_4(bytes_4 *to, int64_t to_stride, const bytes_4 *from, int64_t from_stride, bool streams) {
    enum { W = W4 };
    typedef uint32_t vector __attribute__((vector_size(4 * W)));
    vector r[W];
    for (int i = 0; i < W; i++) memcpy(&r[i], from + i * from_stride, sizeof r[i]);
#if W4 == 16
    { enum { D = 8 }; STAGE(LANES16) }
    { enum { D = 4 }; STAGE(LANES16) }
    { enum { D = 2 }; STAGE(LANES16) }
    { enum { D = 1 }; STAGE(LANES16) }
#elif W4 == 8
    { enum { D = 4 }; STAGE(LANES8) }
    { enum { D = 2 }; STAGE(LANES8) }
    { enum { D = 1 }; STAGE(LANES8) }
#else
    { enum { D = 2 }; STAGE(LANES4) }
    { enum { D = 1 }; STAGE(LANES4) }
#endif
    if (streams) for (int i = 0; i < W; i++) stream(to + i * to_stride, &r[i], sizeof r[i]);
    else for (int i = 0; i < W; i++) memcpy(to + i * to_stride, &r[i], sizeof r[i]);
}
static void tile_8(bytes_8 *to, int64_t to_stride, const bytes_8 *from, int64_t from_stride, bool streams) {
    enum { W = W4 / 2 };
    typedef uint64_t vector __attribute__((vector_size(8 * W)));
    vector r[W];
    for (int i = 0; i < W; i++) memcpy(&r[i], from + i * from_stride, sizeof r[i]);
#if W4 == 16
    { enum { D = 4 }; STAGE(LANES8) }
    { enum { D = 2 }; STAGE(LANES8) }
    { enum { D = 1 }; STAGE(LANES8) }
#elif W4 == 8
    { enum { D = 2 }; STAGE(LANES4) }
    { enum { D = 1 }; STAGE(LANES4) }
#else
    { enum { D = 1 }; STAGE(LANES2) }
#endif
    if (streams) for (int i = 0; i < W; i++) stream(to + i * to_stride, &r[i], sizeof r[i]);
    else for (int i = 0; i < W; i++) memcpy(to + i * to_stride, &r[i], sizeof r[i]);
}

/* to[p][q] = from[q][p] for p < np, q < nq; the second index of each has stride 1. */
#define DEFINE_TRANSPOSE(T, NAME, W, TILE) \
    static void transpose_##NAME(T *to, int64_t to_stride, const T *from, int64_t from_stride, int64_t np, \
                                 int64_t nq, bool streams) { \
        (void)streams; \
        int64_t q = 0; \
        for (; q + (W) <= nq; q += (W)) { \
            int64_t p = 0; \
            for (; p + (W) <= np; p += (W)) TILE; \
            for (; p < np; p++) \
                for (int64_t i = q; i < q + (W); i++) to[p * to_stride + i] = from[i * from_stride + p]; \
        } \
        for (int64_t p = 0; p < np; p++) \
            for (int64_t i = q; i < nq; i++) to[p * to_stride + i] = from[i * from_stride + p]; \
    }
DEFINE_TRANSPOSE(bytes_4, 4, W4, tile_4(to + p * to_stride + q, to_stride, from + q * from_stride + p,
                                        from_stride, streams))
DEFINE_TRANSPOSE(bytes_8, 8, W4 / 2, tile_8(to + p * to_stride + q, to_stride, from + q * from_stride + p,
                                            from_stride, streams))
#define SCALAR_TILE \
    for (int64_t a = p; a < p + 32; a++) \
        for (int64_t b = q; b < q + 32; b++) to[a * to_stride + b] = from[b * from_stride + a]
DEFINE_TRANSPOSE(bytes_2, 2, 32, SCALAR_TILE)
DEFINE_TRANSPOSE(bytes_1, 1, 32, SCALAR_TILE)

enum { P_BLOCK = 256, Q_BLOCK = 1024 };    /* output rows in one block: as many pages as the TLB holds */
typedef struct transposed {
    const pg_strided *s;
    int item, p, q;                        /* dimensions in which the input and the output are dense */
    int outer_n;
    int64_t outer_shape[PG_K_DIMS], outer_stride[2][PG_K_DIMS];
    int64_t p_blocks, q_blocks;
    bool streams;
} transposed;

static void transpose_range(void *arg, int64_t begin, int64_t end, int worker) {
    const transposed *t = arg;
    (void)worker;
    const pg_strided *s = t->s;
    int64_t np = s->shape[t->p], nq = s->shape[t->q], to_stride = s->stride[0][t->p],
        from_stride = s->stride[1][t->q];
    for (int64_t i = begin; i < end; i++) {
        walk w;
        walk_to(&w, t->outer_n, t->outer_shape, i / (t->p_blocks * t->q_blocks));
        int64_t p = i / t->q_blocks % t->p_blocks * P_BLOCK, q = i % t->q_blocks * Q_BLOCK;
        int64_t m = min64(P_BLOCK, np - p), n = min64(Q_BLOCK, nq - q);
        char *to = (char *)s->data[0] + (walk_offset(&w, t->outer_stride[0]) + p * to_stride + q) * t->item;
        const char *from = (const char *)s->data[1]
            + (walk_offset(&w, t->outer_stride[1]) + q * from_stride + p) * t->item;
        switch (t->item) {
        case 1: transpose_1((bytes_1 *)to, to_stride, (const bytes_1 *)from, from_stride, m, n, false); break;
        case 2: transpose_2((bytes_2 *)to, to_stride, (const bytes_2 *)from, from_stride, m, n, false); break;
        case 4:
            transpose_4((bytes_4 *)to, to_stride, (const bytes_4 *)from, from_stride, m, n, t->streams);
            break;
        default:
            transpose_8((bytes_8 *)to, to_stride, (const bytes_8 *)from, from_stride, m, n, t->streams);
            break;
        }
    }
    if (t->streams) stream_end();
}

static bool find_transpose(transposed *t, const pg_strided *s, int item) {
    t->s = s;
    t->item = item;
    t->p = t->q = -1;
    for (int d = 0; d < s->ndim; d++) {
        if (s->shape[d] < 4) continue;
        if (s->stride[1][d] == 1 && s->stride[0][d] != 1) t->p = d;
        if (s->stride[0][d] == 1 && s->stride[1][d] != 1 && s->stride[1][d] != 0) t->q = d;
    }
    if (t->p < 0 || t->q < 0 || s->shape[t->p] * s->shape[t->q] < 256) return false;
    t->outer_n = 0;
    bool aligned = (uintptr_t)s->data[0] % 64 == 0;
    for (int d = 0; d < s->ndim; d++) {
        if (d != t->q && s->shape[d] > 1) aligned &= s->stride[0][d] * item % 64 == 0;
        if (d == t->p || d == t->q) continue;
        t->outer_shape[t->outer_n] = s->shape[d];
        for (int k = 0; k < 2; k++) t->outer_stride[k][t->outer_n] = s->stride[k][d];
        t->outer_n++;
    }
    t->p_blocks = (s->shape[t->p] + P_BLOCK - 1) / P_BLOCK;
    t->q_blocks = (s->shape[t->q] + Q_BLOCK - 1) / Q_BLOCK;
    t->streams = aligned && W4 == 16 && count_of(s->ndim, s->shape) * item >= STREAM_BYTES;
    return true;
}

int PG_K(copy)(const pg_context *c, int to, int from, const pg_strided *s) {
    if ((unsigned)to > PG_K_FLOAT64 || (unsigned)from > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    int64_t n = count_of(s->ndim, s->shape);
    if (n == 0) return PG_KERNEL_OK;
    job j = {.s = s, .from = from, .to = to, .from_item = item_size(from), .to_item = item_size(to)};
    if (to != from) j.convert = converters[from][to];
    j.to_dense = is_dense(s->ndim, s->shape, s->stride[0]);
    j.from_dense = is_dense(s->ndim, s->shape, s->stride[1]);
    if (to == from && !(j.to_dense && j.from_dense)) {
        transposed t;
        if (find_transpose(&t, s, j.to_item)) {
            parallel(c, count_of(t.outer_n, t.outer_shape) * t.p_blocks * t.q_blocks,
                     max64(1, 32768 / min64(n, P_BLOCK * Q_BLOCK)), transpose_range, &t);
            return PG_KERNEL_OK;
        }
    }
    j.streams = j.to_dense && n * j.to_item >= STREAM_BYTES;
    parallel(c, n, 32768, copy_range, &j);
    return PG_KERNEL_OK;
}

/* ---- fill ---- */

typedef struct filling { const pg_strided *s; int item; bool dense; uint64_t value; } filling;

static void fill_run(int item, void *to, int64_t stride, int64_t n, uint64_t value) {
#define FILL(T) { T *o = to; T v = (T)value; if (stride == 1) for (int64_t i = 0; i < n; i++) o[i] = v; \
                  else for (int64_t i = 0; i < n; i++) o[i * stride] = v; } break
    switch (item) {
    case 1: FILL(bytes_1);
    case 2: FILL(bytes_2);
    case 4: FILL(bytes_4);
    default: FILL(bytes_8);
    }
#undef FILL
}

static void fill_range(void *arg, int64_t begin, int64_t end, int worker) {
    const filling *f = arg;
    (void)worker;
    const pg_strided *s = f->s;
    char *to = s->data[0];
    if (f->dense) {
        if (f->value == 0) memset(to + begin * f->item, 0, (size_t)((end - begin) * f->item));
        else fill_run(f->item, to + begin * f->item, 1, end - begin, f->value);
        return;
    }
    walk w;
    walk_to(&w, s->ndim, s->shape, begin);
    int last = s->ndim - 1;
    for (int64_t i = begin, m; i < end; i += m) {
        m = min64(end - i, s->shape[last] - w.at[last]);
        fill_run(f->item, to + walk_offset(&w, s->stride[0]) * f->item, s->stride[0][last], m, f->value);
        walk_on(&w, m);
    }
}

int PG_K(fill)(const pg_context *c, int dtype, const pg_strided *s, pg_value value) {
    if ((unsigned)dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    int64_t n = count_of(s->ndim, s->shape);
    if (n == 0) return PG_KERNEL_OK;
    filling f = {.s = s, .item = item_size(dtype), .dense = is_dense(s->ndim, s->shape, s->stride[0])};
    store_value(dtype, value, &f.value);
    parallel(c, n, 65536, fill_range, &f);
    return PG_KERNEL_OK;
}
