/* reduce.c: reductions, in an order that the shape alone decides.
 *
 * The reduced elements of one output, in row-major order, are cut into pieces of PIECE. A piece is folded in
 * LANES parallel accumulators that are combined pairwise; pieces are combined pairwise as well (a binary
 * counter, in double), so rounding errors grow with the logarithm of the number of elements. Threads divide
 * outputs, or, where outputs are few, pieces: the tree is the same.
 *
 * Across memory (outputs dense, the reduced dimension strided) rows are folded into a row of accumulators,
 * CHUNK rows at a time, and the chunks pairwise. What has no such form is gathered, GROUP outputs at a time.
 * float16 and bfloat16 are computed in float32, integers in int64. */
#include "convert.h"
#include "walk.h"

/* How many bytes ahead a fold asks for memory: its four rows are no order that a processor follows by itself. A sum of 16M elements
 * takes 0.6 of the time on one thread. */
enum { AHEAD = 8192 };
enum { PIECE = 2048, LANES = 64, CHUNK = 64, LEVELS = 64, GROUP = 16, GROUP_PIECE = 256, COLUMNS = 512 };

/* What pieces come to. a: sum, product, extreme, mean (VAR), sum of exponentials; b: VAR's sum of squared
 * deviations, LOGSUMEXP's shift; i: the value of integers; index: of the extreme, in the order of the
 * reduced elements; n: how many elements. */
typedef struct partial { double a, b; int64_t i, index, n; } partial;

#define PLUS(x, y) ((x) + (y))
#define TIMES(x, y) ((x) * (y))
#define LARGER(x, y) ((((y) > (x)) | ((y) != (y))) ? (y) : (x))      /* NaN wins */
#define SMALLER(x, y) ((((y) < (x)) | ((y) != (y))) ? (y) : (x))
#define MORE(x, y) ((y) > (x) ? (y) : (x))                            /* y is not NaN, or loses */
#define LESS(x, y) ((y) < (x) ? (y) : (x))

/* op over e(v, q) of n dense elements, four rows of LANES at a time: (0 with 1) with (2 with 3), then with
 * what there is. */
#define DEFINE_FOLD(NAME, T, A, op, identity, e) \
    static A NAME(int64_t n, const T *x, A q) { \
        A lane[LANES]; \
        int64_t i = 0; \
        (void)q; \
        for (int k = 0; k < LANES; k++) lane[k] = identity; \
        for (; i + 4 * LANES <= n; i += 4 * LANES) { \
            for (int k = 0; k < 4 * LANES; k += 64 / (int)sizeof(T)) __builtin_prefetch((const char *)(x + i + k) + AHEAD); \
            for (int k = 0; k < LANES; k++) { \
                const A v0 = (A)x[i + k], v1 = (A)x[i + LANES + k], v2 = (A)x[i + 2 * LANES + k], \
                    v3 = (A)x[i + 3 * LANES + k]; \
                const A e0 = e(v0, q), e1 = e(v1, q), e2 = e(v2, q), e3 = e(v3, q); \
                const A left = op(e0, e1), right = op(e2, e3), all = op(left, right); \
                lane[k] = op(lane[k], all); \
            } \
        } \
        for (; i < n; i += LANES) { \
            int64_t m = min64(LANES, n - i); \
            for (int64_t k = 0; k < m; k++) { \
                const A v = (A)x[i + k], ev = e(v, q); \
                lane[k] = op(lane[k], ev); \
            } \
        } \
        for (int width = LANES / 2; width > 0; width /= 2) \
            for (int k = 0; k < width; k++) lane[k] = op(lane[k], lane[k + width]); \
        return lane[0]; \
    }
#define ITSELF(v, q) (v)
#define DEVIATION(v, q) (((v) - (q)) * ((v) - (q)))
#define SQUARED(v, q) ((v) * (v))
#define ABSOLUTE_f32(v, q) abs_f32(v)
#define ABSOLUTE_f64(v, q) abs_f64(v)
#define NONZERO(v, q) ((v) != 0 ? 1 : 0)
#define POWER_f32(v, q) pow_f32(abs_f32(v), q)
#define POWER_f64(v, q) pow_f64(abs_f64(v), q)
#define EXPONENTIAL_f32(v, q) exp_f32((v) - (q))
#define EXPONENTIAL_f64(v, q) exp_f64((v) - (q))
/* The first element that equals value (any NaN where value is one). */
#define DEFINE_FIND(NAME, T) \
    static int64_t NAME(int64_t n, const T *x, T value) { \
        int64_t i = 0; \
        bool nan = value != value; \
        for (; i + LANES <= n; i += LANES) { \
            int hit = 0; \
            if (nan) for (int k = 0; k < LANES; k++) hit |= x[i + k] != x[i + k]; \
            else for (int k = 0; k < LANES; k++) hit |= x[i + k] == value; \
            if (hit) break; \
        } \
        while (i < n && !(nan ? x[i] != x[i] : x[i] == value)) i++; \
        return i; \
    }
#define DEFINE_FLOAT_FOLDS(T, S) \
    DEFINE_FOLD(sum_##S, T, T, PLUS, 0, ITSELF) \
    DEFINE_FOLD(product_##S, T, T, TIMES, 1, ITSELF) \
    DEFINE_FOLD(most_##S, T, T, MORE, -(T)INFINITY, ITSELF) \
    DEFINE_FOLD(least_##S, T, T, LESS, (T)INFINITY, ITSELF) \
    static bool any_nan_##S(int64_t n, const T *x) { \
        int hit = 0; \
        for (int64_t i = 0; i < n; i++) hit |= x[i] != x[i]; \
        return hit; \
    } \
    static T largest_##S(int64_t n, const T *x) { return any_nan_##S(n, x) ? (T)NAN : most_##S(n, x, 0); } \
    static T smallest_##S(int64_t n, const T *x) { return any_nan_##S(n, x) ? (T)NAN : least_##S(n, x, 0); } \
    DEFINE_FOLD(deviations_##S, T, T, PLUS, 0, DEVIATION) \
    DEFINE_FOLD(squares_##S, T, T, PLUS, 0, SQUARED) \
    DEFINE_FOLD(absolutes_##S, T, T, PLUS, 0, ABSOLUTE_##S) \
    DEFINE_FOLD(nonzeros_##S, T, T, PLUS, 0, NONZERO) \
    DEFINE_FOLD(most_absolute_##S, T, T, MORE, 0, ABSOLUTE_##S) \
    DEFINE_FOLD(least_absolute_##S, T, T, LESS, (T)INFINITY, ABSOLUTE_##S) \
    DEFINE_FOLD(powers_##S, T, T, PLUS, 0, POWER_##S) \
    DEFINE_FOLD(exponentials_##S, T, T, PLUS, 0, EXPONENTIAL_##S) \
    DEFINE_FIND(find_##S, T)
DEFINE_FLOAT_FOLDS(float, f32)
DEFINE_FLOAT_FOLDS(double, f64)
DEFINE_FOLD(sum_i64, uint64_t, uint64_t, PLUS, 0, ITSELF)
DEFINE_FOLD(product_i64, uint64_t, uint64_t, TIMES, 1, ITSELF)
DEFINE_FOLD(largest_i64, int64_t, int64_t, MORE, INT64_MIN, ITSELF)
DEFINE_FOLD(smallest_i64, int64_t, int64_t, LESS, INT64_MAX, ITSELF)
DEFINE_FOLD(nonzeros_i64, int64_t, int64_t, PLUS, 0, NONZERO)
DEFINE_FIND(find_i64, int64_t)

static int64_t nonzero_bytes(int64_t n, const uint8_t *x) {
    int64_t count = 0;
    for (int64_t i = 0, m; i < n; i += m) {
        m = min64(n - i, 4096);
        int32_t c = 0;
        for (int64_t k = 0; k < m; k++) c += x[i + k] != 0;
        count += c;
    }
    return count;
}

/* One piece. NORM's orders: any real, 0 counts, +-inf the extreme. */
#define DEFINE_PIECE(T, S) \
    static void piece_##S(int op, double p0, int64_t n, const T *x, partial *t) { \
        t->n = n; \
        switch (op) { \
        case PG_K_REDUCE_SUM: case PG_K_REDUCE_MEAN: t->a = (double)sum_##S(n, x, 0); break; \
        case PG_K_REDUCE_PROD: t->a = (double)product_##S(n, x, 0); break; \
        case PG_K_REDUCE_AMAX: t->a = (double)largest_##S(n, x); break; \
        case PG_K_REDUCE_AMIN: t->a = (double)smallest_##S(n, x); break; \
        case PG_K_REDUCE_MAX: case PG_K_REDUCE_ARGMAX: { \
            T v = largest_##S(n, x); t->a = (double)v; t->index = find_##S(n, x, v); break; } \
        case PG_K_REDUCE_MIN: case PG_K_REDUCE_ARGMIN: { \
            T v = smallest_##S(n, x); t->a = (double)v; t->index = find_##S(n, x, v); break; } \
        case PG_K_REDUCE_ALL: case PG_K_REDUCE_ANY: t->i = (int64_t)nonzeros_##S(n, x, 0); break; \
        case PG_K_REDUCE_VAR: { \
            T mean = sum_##S(n, x, 0) / (T)n; t->a = (double)mean; \
            t->b = (double)deviations_##S(n, x, mean); break; } \
        case PG_K_REDUCE_NORM: \
            t->a = (double)(p0 == 2 ? squares_##S(n, x, 0) : p0 == 1 ? absolutes_##S(n, x, 0) \
                            : p0 == 0 ? nonzeros_##S(n, x, 0) \
                            : p0 != p0 || (p0 - p0 != 0 && any_nan_##S(n, x)) ? (T)NAN \
                            : p0 == (double)INFINITY ? most_absolute_##S(n, x, 0) \
                            : p0 == -(double)INFINITY ? least_absolute_##S(n, x, 0) \
                            : powers_##S(n, x, (T)p0)); \
            break; \
        default: {    /* LOGSUMEXP: an infinite maximum is not subtracted: inf - inf */ \
            T v = largest_##S(n, x), shift = v - v == 0 ? v : 0; \
            t->b = (double)shift; t->a = (double)exponentials_##S(n, x, shift); } \
        } \
    }
DEFINE_PIECE(float, f32)
DEFINE_PIECE(double, f64)

static void piece_i64(int op, int64_t n, const int64_t *x, partial *t) {
    t->n = n;
    switch (op) {
    case PG_K_REDUCE_SUM: t->i = (int64_t)sum_i64(n, (const uint64_t *)x, 0); break;
    case PG_K_REDUCE_PROD: t->i = (int64_t)product_i64(n, (const uint64_t *)x, 0); break;
    case PG_K_REDUCE_AMAX: case PG_K_REDUCE_MAX: case PG_K_REDUCE_ARGMAX:
        t->i = largest_i64(n, x, 0);
        if (op != PG_K_REDUCE_AMAX) t->index = find_i64(n, x, t->i);
        break;
    case PG_K_REDUCE_AMIN: case PG_K_REDUCE_MIN: case PG_K_REDUCE_ARGMIN:
        t->i = smallest_i64(n, x, 0);
        if (op != PG_K_REDUCE_AMIN) t->index = find_i64(n, x, t->i);
        break;
    default: t->i = nonzeros_i64(n, x, 0); break;
    }
}

typedef enum { F32, F64, I64, BYTES } class;     /* what pieces are computed in */

/* t and then u, which comes after it. */
static void combine(int op, class c, double p0, partial *t, const partial *u) {
    bool take = false;
    switch (op) {
    case PG_K_REDUCE_SUM: case PG_K_REDUCE_MEAN: case PG_K_REDUCE_ALL: case PG_K_REDUCE_ANY:
        t->a += u->a;
        t->i = (int64_t)((uint64_t)t->i + (uint64_t)u->i);
        break;
    case PG_K_REDUCE_PROD:
        t->a *= u->a;
        t->i = (int64_t)((uint64_t)t->i * (uint64_t)u->i);
        break;
    case PG_K_REDUCE_AMAX: case PG_K_REDUCE_MAX: case PG_K_REDUCE_ARGMAX:
        take = c == I64 ? u->i > t->i : u->a > t->a || (u->a != u->a && t->a == t->a);
        break;
    case PG_K_REDUCE_AMIN: case PG_K_REDUCE_MIN: case PG_K_REDUCE_ARGMIN:
        take = c == I64 ? u->i < t->i : u->a < t->a || (u->a != u->a && t->a == t->a);
        break;
    case PG_K_REDUCE_VAR: {      /* Chan et al. 1979 */
        double n = (double)t->n + (double)u->n, d = u->a - t->a;
        t->a += d * ((double)u->n / n);
        t->b += u->b + d * d * ((double)t->n * (double)u->n / n);
        break;
    }
    case PG_K_REDUCE_NORM:
        if (p0 == (double)INFINITY) t->a = LARGER(t->a, u->a);
        else if (p0 == -(double)INFINITY) t->a = SMALLER(t->a, u->a);
        else t->a += u->a;
        break;
    default:
        if (t->a == 0) { t->a = u->a; t->b = u->b; }
        else if (u->a != 0) {
            double shift = LARGER(t->b, u->b);
            t->a = t->a * exp_f64(t->b - shift) + u->a * exp_f64(u->b - shift);
            t->b = shift;
        }
    }
    if (take) { t->a = u->a; t->i = u->i; t->index = u->index; }
    t->n += u->n;
}

/* Pieces pairwise, in order: level k holds 2^k pieces. */
typedef struct tree { int64_t count; partial level[LEVELS]; } tree;

static void tree_add(tree *s, int op, class c, double p0, const partial *t) {
    int depth = 0;
    partial u = *t;
    for (int64_t bits = s->count; bits & 1; bits >>= 1, depth++) {
        partial left = s->level[depth];
        combine(op, c, p0, &left, &u);
        u = left;
    }
    s->level[depth] = u;
    s->count++;
}
static partial tree_result(const tree *s, int op, class c, double p0) {
    partial result = {0};
    bool any = false;
    int depth = 0;
    for (int64_t bits = s->count; bits; bits >>= 1, depth++) {
        if (!(bits & 1)) continue;
        partial left = s->level[depth];
        if (any) combine(op, c, p0, &left, &result);
        result = left;
        any = true;
    }
    return result;
}

typedef struct job {
    const pg_reduction *r;
    int op, dtype, item;
    class class;
    int64_t outputs, reduced, pieces;
    bool dense;                                  /* the reduced elements lie side by side */
    /* outputs gathered together: 1, or GROUP where outputs are dense */
    int64_t group;
    partial *partials;                           /* (outputs, pieces), where threads divide pieces */
} job;

static void store(const job *j, const partial *t, int64_t k) {
    const pg_reduction *r = j->r;
    double a = t->a;
    switch (j->op) {
    case PG_K_REDUCE_ALL: ((uint8_t *)r->out)[k] = t->i == t->n; return;
    case PG_K_REDUCE_ANY: ((uint8_t *)r->out)[k] = t->i != 0; return;
    case PG_K_REDUCE_ARGMAX: case PG_K_REDUCE_ARGMIN: ((int64_t *)r->out)[k] = t->index; return;
    case PG_K_REDUCE_MAX: case PG_K_REDUCE_MIN: if (r->out2) ((int64_t *)r->out2)[k] = t->index; break;
    case PG_K_REDUCE_MEAN: a /= (double)t->n; break;
    case PG_K_REDUCE_VAR: {
        double freedom = (double)t->n - r->p0;
        if (r->out2) store_value(j->dtype, (pg_value){.d = t->a}, (char *)r->out2 + k * j->item);
        a = t->b / (freedom > 0 ? freedom : 0);
        break;
    }
    case PG_K_REDUCE_NORM:
        if (r->p0 == 2) a = sqrt(a);
        else if (r->p0 != 0 && r->p0 != 1 && r->p0 - r->p0 == 0) a = pow(a, 1 / r->p0);
        break;
    case PG_K_REDUCE_LOGSUMEXP: a = t->b + log_f64(a); break;
    default: break;
    }
    store_value(j->dtype, (pg_value){.i = t->i, .d = a}, (char *)r->out + k * j->item);
}

/* n elements as they lie in memory -> the class's type, in place where they are that already. */
static const void *as_class(const job *j, int64_t n, const void *x, void *block) {
#define TO_I64(T) { const T *a = x; int64_t *o = block; \
                    for (int64_t i = 0; i < n; i++) o[i] = a[i]; } return block
    switch (j->class == BYTES ? PG_K_INT64 : j->dtype) {
    case PG_K_BOOL: case PG_K_UINT8: TO_I64(uint8_t);
    case PG_K_INT8: TO_I64(int8_t);
    case PG_K_INT16: TO_I64(int16_t);
    case PG_K_INT32: TO_I64(int32_t);
    case PG_K_FLOAT16: case PG_K_BFLOAT16: widen(j->dtype, n, x, block); return block;
    default: return x;
    }
#undef TO_I64
}

static void piece_of(const job *j, int64_t n, const void *x, partial *t) {
    uint64_t block[PIECE];
    memset(t, 0, sizeof *t);
    x = as_class(j, n, x, block);
    switch (j->class) {
    case F32: piece_f32(j->op, j->r->p0, n, x, t); break;
    case F64: piece_f64(j->op, j->r->p0, n, x, t); break;
    case I64: piece_i64(j->op, n, x, t); break;
    default: t->n = n; t->i = nonzero_bytes(n, x); break;
    }
}

/* Piece k of the output whose first element is base. */
static void fetch_piece(const job *j, const char *base, int64_t k, partial *t) {
    const pg_reduction *r = j->r;
    int64_t first = k * PIECE, n = min64(PIECE, j->reduced - first);
    if (j->dense) {
        piece_of(j, n, base + first * j->item, t);
    } else {
        uint64_t block[PIECE];
        walk w;
        walk_to(&w, r->reduced_n, r->reduced_shape, first);
        gather(j->item, block, base, &w, r->reduced_stride, n);
        piece_of(j, n, block, t);
    }
    t->index += first;
}

static const char *base_of(const job *j, int64_t output) {
    walk w;
    walk_to(&w, j->r->kept_n, j->r->kept_shape, output);
    return (const char *)j->r->in + walk_offset(&w, j->r->kept_stride) * j->item;
}

static void outputs_range(void *arg, int64_t begin, int64_t end, int worker) {
    const job *j = arg;
    (void)worker;
    for (int64_t k = begin; k < end; k++) {
        const char *base = base_of(j, k);
        partial t;
        if (j->pieces == 1) {
            fetch_piece(j, base, 0, &t);
        } else {
            tree s;
            s.count = 0;
            for (int64_t i = 0; i < j->pieces; i++) {
                fetch_piece(j, base, i, &t);
                tree_add(&s, j->op, j->class, j->r->p0, &t);
            }
            t = tree_result(&s, j->op, j->class, j->r->p0);
        }
        store(j, &t, k);
    }
}

static void pieces_range(void *arg, int64_t begin, int64_t end, int worker) {
    const job *j = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++)
        fetch_piece(j, base_of(j, i / j->pieces), i % j->pieces, &j->partials[i]);
}

/* Outputs that lie side by side while their elements do not: GROUP of them, GROUP_PIECE elements each,
 * transposed into blocks. */
#define DEFINE_SPREAD(T, NAME) \
    static void spread_##NAME(T *to, const T *from, int64_t lanes, int64_t at) { \
        for (int64_t g = 0; g < lanes; g++) to[g * GROUP_PIECE + at] = from[g]; \
    }
DEFINE_SPREAD(bytes_1, 1) DEFINE_SPREAD(bytes_2, 2) DEFINE_SPREAD(bytes_4, 4) DEFINE_SPREAD(bytes_8, 8)

static void groups_range(void *arg, int64_t begin, int64_t end, int worker) {
    const job *j = arg;
    (void)worker;
    const pg_reduction *r = j->r;
    int last = r->kept_n - 1;
    int64_t width = r->kept_shape[last], per_row = (width + GROUP - 1) / GROUP;
    uint64_t block[GROUP * GROUP_PIECE];
    for (int64_t u = begin; u < end; u++) {
        int64_t output = u / per_row * width + u % per_row * GROUP,
            lanes = min64(GROUP, width - u % per_row * GROUP);
        const char *base = base_of(j, output);
        tree s[GROUP];
        walk w;
        walk_to(&w, r->reduced_n, r->reduced_shape, 0);
        for (int g = 0; g < GROUP; g++) s[g].count = 0;
        for (int64_t first = 0; first < j->reduced; first += GROUP_PIECE) {
            int64_t n = min64(GROUP_PIECE, j->reduced - first);
            for (int64_t i = 0; i < n; i++, walk_on(&w, 1)) {
                const char *from = base + walk_offset(&w, r->reduced_stride) * j->item;
                switch (j->item) {
                case 1: spread_1((bytes_1 *)block, (const bytes_1 *)from, lanes, i); break;
                case 2: spread_2((bytes_2 *)block, (const bytes_2 *)from, lanes, i); break;
                case 4: spread_4((bytes_4 *)block, (const bytes_4 *)from, lanes, i); break;
                default: spread_8((bytes_8 *)block, (const bytes_8 *)from, lanes, i); break;
                }
            }
            for (int64_t g = 0; g < lanes; g++) {
                partial t;
                piece_of(j, n, (char *)block + g * GROUP_PIECE * j->item, &t);
                t.index += first;
                tree_add(&s[g], j->op, j->class, r->p0, &t);
            }
        }
        for (int64_t g = 0; g < lanes; g++) {
            partial t = tree_result(&s[g], j->op, j->class, r->p0);
            store(j, &t, output + g);
        }
    }
}

/* ---- across memory: rows of accumulators ---- */

typedef struct columns {
    const pg_reduction *r;
    int op, item;
    int64_t outer, width, rows, chunks, tiles;   /* outputs are (outer, width); tiles of COLUMNS */
    char *out;                                   /* (outer, chunks, width) */
    double divide;                               /* MEAN: the count, else 0 */
} columns;

#define DEFINE_ROWS(T, S) \
    static void fold_rows_##S(int op, int64_t n, T *sums, const T *x) { \
        switch (op) { \
        case PG_K_REDUCE_SUM: case PG_K_REDUCE_MEAN: \
            INDEPENDENT for (int64_t i = 0; i < n; i++) sums[i] = sums[i] + x[i]; \
            break; \
        case PG_K_REDUCE_PROD: INDEPENDENT for (int64_t i = 0; i < n; i++) sums[i] = sums[i] * x[i]; break; \
        case PG_K_REDUCE_AMAX: \
            INDEPENDENT for (int64_t i = 0; i < n; i++) sums[i] = LARGER(sums[i], x[i]); \
            break; \
        default: INDEPENDENT for (int64_t i = 0; i < n; i++) sums[i] = SMALLER(sums[i], x[i]); break; \
        } \
    } \
    /* four rows at once: the accumulators are read and written a quarter as often */ \
    static void fold_four_##S(int64_t n, T *sums, const T *a, const T *b, const T *c, const T *d) { \
        INDEPENDENT for (int64_t i = 0; i < n; i++) sums[i] = sums[i] + ((a[i] + b[i]) + (c[i] + d[i])); \
    } \
    static void columns_##S(void *arg, int64_t begin, int64_t end, int worker) { \
        const columns *m = arg; \
        const pg_reduction *r = m->r; \
        (void)worker; \
        bool sums = m->op == PG_K_REDUCE_SUM || m->op == PG_K_REDUCE_MEAN; \
        for (int64_t u = begin; u < end; u++) { \
            int64_t tile = u % m->tiles, chunk = u / m->tiles % m->chunks, outer = u / m->tiles / m->chunks; \
            int64_t first = tile * COLUMNS, n = min64(COLUMNS, m->width - first); \
            int64_t row = chunk * CHUNK, rows = min64(CHUNK, m->rows - row), i = 1; \
            walk k, w; \
            walk_to(&k, r->kept_n - 1, r->kept_shape, outer); \
            walk_to(&w, r->reduced_n, r->reduced_shape, row); \
            const T *base = (const T *)r->in + walk_offset(&k, r->kept_stride) + first; \
            T *to = (T *)(void *)m->out + (outer * m->chunks + chunk) * m->width + first; \
            memcpy(to, base + walk_offset(&w, r->reduced_stride), (size_t)n * sizeof(T)); \
            walk_on(&w, 1); \
            if (sums) \
                for (; i + 4 <= rows; i += 4) { \
                    const T *x[4]; \
                    for (int q = 0; q < 4; q++, walk_on(&w, 1)) \
                        x[q] = base + walk_offset(&w, r->reduced_stride); \
                    fold_four_##S(n, to, x[0], x[1], x[2], x[3]); \
                } \
            for (; i < rows; i++, walk_on(&w, 1)) \
                fold_rows_##S(m->op, n, to, base + walk_offset(&w, r->reduced_stride)); \
        } \
    } \
    /* chunks pairwise, in place: chunk i takes chunk i + step */ \
    static void chunks_##S(void *arg, int64_t begin, int64_t end, int worker) { \
        const columns *m = arg; \
        (void)worker; \
        for (int64_t u = begin; u < end; u++) { \
            int64_t first = u % m->tiles * COLUMNS, n = min64(COLUMNS, m->width - first), \
                outer = u / m->tiles; \
            T *rows = (T *)(void *)m->out + outer * m->chunks * m->width + first; \
            for (int64_t step = 1; step < m->chunks; step *= 2) \
                for (int64_t i = 0; i + step < m->chunks; i += 2 * step) \
                    fold_rows_##S(m->op, n, rows + i * m->width, rows + (i + step) * m->width); \
            T *to = (T *)r_out(m) + outer * m->width + first; \
            if (m->divide != 0) for (int64_t i = 0; i < n; i++) to[i] = (T)((double)rows[i] / m->divide); \
            else if (to != rows) memcpy(to, rows, (size_t)n * sizeof(T)); \
        } \
    }
static void *r_out(const columns *m) { return m->r->out; }
DEFINE_ROWS(float, f32)
DEFINE_ROWS(double, f64)
DEFINE_ROWS(uint64_t, u64)

static int reduce_columns(const pg_context *c, int op, int dtype, const pg_reduction *r, int64_t outputs,
                          int64_t reduced) {
    columns m = {.r = r, .op = op, .item = item_size(dtype), .width = r->kept_shape[r->kept_n - 1],
                 .rows = reduced};
    m.outer = outputs / m.width;
    m.chunks = (reduced + CHUNK - 1) / CHUNK;
    m.tiles = (m.width + COLUMNS - 1) / COLUMNS;
    m.divide = op == PG_K_REDUCE_MEAN ? (double)reduced : 0;
    m.out = m.chunks == 1 ? r->out : c->scratch(c, (size_t)(outputs * m.chunks * m.item));
    if (!m.out) return PG_KERNEL_NO_SCRATCH;
    pg_body fold = dtype == PG_K_FLOAT32 ? columns_f32 : dtype == PG_K_FLOAT64 ? columns_f64 : columns_u64;
    pg_body join = dtype == PG_K_FLOAT32 ? chunks_f32 : dtype == PG_K_FLOAT64 ? chunks_f64 : chunks_u64;
    int64_t unit = min64(m.width, COLUMNS) * min64(CHUNK, reduced);
    parallel(c, m.outer * m.chunks * m.tiles, max64(1, 65536 / unit), fold, &m);
    if (m.chunks > 1 || m.divide != 0)
        parallel(c, m.outer * m.tiles, max64(1, 65536 / (min64(m.width, COLUMNS) * m.chunks)), join, &m);
    return PG_KERNEL_OK;
}

/* A tall dense matrix of few columns (rows, width): `fold` rows are taken as one wide row, whose parts are
 * folded last. */
static int reduce_tall(const pg_context *c, int op, int dtype, const pg_reduction *r) {
    int64_t width = r->kept_shape[0], rows = r->reduced_shape[0], fold = 1, item = item_size(dtype);
    while (fold * width < 128) fold *= 2;
    int64_t wide_rows = rows / fold, wide = fold * width, rest = rows % fold;
    int64_t chunks = (wide_rows + CHUNK - 1) / CHUNK;
    char *scratch = c->scratch(c, (size_t)((chunks + 1) * wide * item));
    if (!scratch) return PG_KERNEL_NO_SCRATCH;
    pg_reduction v = {.kept_n = 1, .reduced_n = 1, .kept_shape = {wide}, .kept_stride = {1},
                      .reduced_shape = {wide_rows}, .reduced_stride = {wide}, .in = r->in, .out = scratch};
    int plain = op == PG_K_REDUCE_MEAN ? PG_K_REDUCE_SUM : op;
    columns m = {.r = &v, .op = plain, .item = (int)item, .width = wide, .rows = wide_rows, .outer = 1,
                 .chunks = chunks, .tiles = 1, .out = scratch + wide * item};
    bool f32 = dtype == PG_K_FLOAT32, f64 = dtype == PG_K_FLOAT64;
    parallel(c, chunks, max64(1, 65536 / (wide * CHUNK)), f32 ? columns_f32 : f64 ? columns_f64 : columns_u64,
             &m);
    (f32 ? chunks_f32 : f64 ? chunks_f64 : chunks_u64)(&m, 0, 1, 0);
#define FOLD(T, S) { \
        T *x = (T *)(void *)scratch; \
        const T *tail = (const T *)r->in + (rows - rest) * width; \
        for (int64_t i = 0; i < rest; i++) fold_rows_##S(plain, width, x + i * width, tail + i * width); \
        for (int64_t half = fold / 2; half > 0; half /= 2) \
            fold_rows_##S(plain, half * width, x, x + half * width); \
        T *o = r->out; \
        for (int64_t i = 0; i < width; i++) \
            o[i] = op == PG_K_REDUCE_MEAN ? (T)((double)x[i] / (double)rows) : x[i]; \
    }
    if (f32) FOLD(float, f32) else if (f64) FOLD(double, f64) else FOLD(uint64_t, u64)
#undef FOLD
    return PG_KERNEL_OK;
}

int PG_K(reduce)(const pg_context *c, int op, int dtype, const pg_reduction *r) {
    if ((unsigned)op >= PG_K_REDUCE_COUNT || (unsigned)dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    bool floating = dtype >= PG_K_FLOAT16;
    if (!floating && (op == PG_K_REDUCE_MEAN || op == PG_K_REDUCE_VAR || op == PG_K_REDUCE_NORM
                      || op == PG_K_REDUCE_LOGSUMEXP))
        return PG_KERNEL_UNSUPPORTED;
    job j = {.r = r, .op = op, .dtype = dtype, .item = item_size(dtype),
        .outputs = count_of(r->kept_n, r->kept_shape), .reduced = count_of(r->reduced_n, r->reduced_shape)};
    if (j.outputs == 0) return PG_KERNEL_OK;
    bool truth = op == PG_K_REDUCE_ALL || op == PG_K_REDUCE_ANY;
    j.class = dtype == PG_K_FLOAT64 ? F64 : floating ? F32 : truth && j.item == 1 ? BYTES : I64;
    if (j.reduced == 0) {                        /* identities; VAR, MEAN: NaN */
        partial none = {0};
        if (op == PG_K_REDUCE_PROD) { none.a = 1; none.i = 1; }
        for (int64_t k = 0; k < j.outputs; k++) store(&j, &none, k);
        return PG_KERNEL_OK;
    }
    int last = r->kept_n - 1;
    bool across = last >= 0 && r->kept_stride[last] == 1 && r->kept_shape[last] > 1
               && r->reduced_n > 0 && r->reduced_stride[r->reduced_n - 1] != 1;
    bool folds = op == PG_K_REDUCE_SUM || op == PG_K_REDUCE_MEAN || op == PG_K_REDUCE_PROD
              || (floating && (op == PG_K_REDUCE_AMAX || op == PG_K_REDUCE_AMIN));
    bool native = dtype == PG_K_FLOAT32 || dtype == PG_K_FLOAT64 || dtype == PG_K_INT64;
    if (across && folds && native) {
        if (r->kept_n == 1 && r->reduced_n == 1 && r->kept_shape[0] < 64
            && r->reduced_stride[0] == r->kept_shape[0]
            && j.reduced >= 4096)
            return reduce_tall(c, op, dtype, r);
        return reduce_columns(c, op, dtype, r, j.outputs, j.reduced);
    }
    if (across && j.reduced > 1) {
        int64_t groups = j.outputs / r->kept_shape[last] * ((r->kept_shape[last] + GROUP - 1) / GROUP);
        parallel(c, groups, max64(1, 16384 / (GROUP * j.reduced)), groups_range, &j);
        return PG_KERNEL_OK;
    }
    j.dense = is_dense(r->reduced_n, r->reduced_shape, r->reduced_stride);
    j.pieces = (j.reduced + PIECE - 1) / PIECE;
    if (j.outputs >= 16 || j.pieces < 16 || c->threads == 1) {
        parallel(c, j.outputs, max64(1, 65536 / j.reduced), outputs_range, &j);
        return PG_KERNEL_OK;
    }
    j.partials = c->scratch(c, (size_t)(j.outputs * j.pieces) * sizeof(partial));
    if (!j.partials) return PG_KERNEL_NO_SCRATCH;
    parallel(c, j.outputs * j.pieces, 32, pieces_range, &j);
    for (int64_t k = 0; k < j.outputs; k++) {
        tree s;
        s.count = 0;
        for (int64_t i = 0; i < j.pieces; i++)
            tree_add(&s, op, j.class, r->p0, &j.partials[k * j.pieces + i]);
        partial t = tree_result(&s, op, j.class, r->p0);
        store(&j, &t, k);
    }
    return PG_KERNEL_OK;
}
