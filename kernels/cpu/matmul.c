/* matmul.c: matrix products. Large ones are cut into tiles that OpenBLAS multiplies, where it is there; all others, and all where
 * it is not, are this engine's own: one thread's product stands in gemm_tile.h.
 *
 * Both give the same bits at every number of threads. Our own makes an element of c by the same chain of operations whichever
 * part or worker computes it, so its cut follows the number of workers; a library's chain may depend on the sizes that it is given,
 * so the cut for it follows from the shape alone.
 *
 * One core, GF/s, own / OpenBLAS 0.3.21 whole / in these tiles, interleaved. AVX-512, Zen 5: 768x512x128 248 / 228 / -,
 * 512x512x512 227 / 229 / -, 256x2304x768 195 / 217 / -, 1024x3072x768 196 / 225 / 211, 2048x2048x2048 185 / 230 / 213. AVX2:
 * 512x512x512 115 / 116 / -, 1024x3072x768 116 / 119 / 113, 2048x2048x2048 113 / 117 / 115. So large products alone gain, and
 * only with AVX-512: our kernel reads rows of a where they lie, and where they are far apart they crowd each other out of the
 * first cache.
 */
#ifndef T

#include <limits.h>
#include <stdatomic.h>
#include <string.h>

#include "blas.h"
#include "gemm.h"
#include "halves.h"
#include "mathf.h"

enum {
    GRAIN = 1 << 17,   /* multiply-adds worth a worker of its own: about 1 us */
};

/* The library's tiles: a side is halved until it is shorter than TILE_SIDE. Fewer than TILES_MIN would leave workers idle. Smaller
 * products would not gain by it either, and its opening takes milliseconds. */
enum { TILE_SIDE = 768, TILES_MIN = 8, LIBRARY_SIDE = 192 };

/* How a product is cut: rows x columns parts, each about `height` x `width`. */
typedef struct cut { int64_t rows, columns, height, width; } cut;

static int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* The grid of at most `parts` parts that costs one worker least: the tiles it computes and the panels of b that it packs. */
static cut cut_of(int64_t m, int64_t n, int64_t parts, int mr, int nr) {
    cut best = {1, 1, m, n};
    double least = -1;
    for (int64_t rows = 1; rows <= parts; rows++) {
        const int64_t columns = parts / rows;
        const int64_t height = ceiling(ceiling(m, mr), rows) * mr, width = ceiling(ceiling(n, nr), columns) * nr;
        const double cost = (double)width * ((double)height + 16);
        if (least < 0 || cost < least) {
            least = cost;
            best = (cut){ceiling(m, height), ceiling(n, width), height, width};
        }
    }
    return best;
}

static int64_t tile_side(int64_t n) {
    int64_t parts = 1;
    while (ceiling(n, parts) >= TILE_SIDE) parts *= 2;
    return ceiling(ceiling(n, parts), 16) * 16;
}

/* A matrix as cblas takes it: rows no shorter than their distance, all sizes ints. */
static bool plain(int64_t rows, int64_t columns, int64_t ld) {
    return ld >= columns && ld <= INT_MAX && rows <= INT_MAX && columns <= INT_MAX;
}

/* The library, where this product is for it: decided by the shape alone. */
static const pg_blas *library_for(const pg_context *context, const pg_gemm *g) {
    if (g->m < LIBRARY_SIDE || g->n < LIBRARY_SIDE || g->k < LIBRARY_SIDE || g->alpha == 0) return NULL;
    if (ceiling(g->m, tile_side(g->m)) * ceiling(g->n, tile_side(g->n)) < TILES_MIN) return NULL;
    if (!plain(g->ta ? g->k : g->m, g->ta ? g->m : g->k, g->lda) || !plain(g->tb ? g->n : g->k, g->tb ? g->k : g->n, g->ldb) ||
        !plain(g->m, g->n, g->ldc))
        return NULL;
    return context->blas();
}

#define BODY "matmul.c"
#include "each_float.h"
#include "bf16.h"

/* Integers: no vectors, no blocking: they are for counting, not for training. Wraps around as the type does. */
typedef struct integers { const pg_gemm *g; int dtype; } integers;
#define INTEGER(type, utype)                                                                                           \
    for (int64_t r = begin; r < end; r++) {                                                                            \
        const int64_t at = r / g->m, i = r % g->m;                                                                     \
        const type *a = (const type *)g->a + (g->a_offset ? g->a_offset[at] : at * g->a_batch);                        \
        const type *b = (const type *)g->b + (g->b_offset ? g->b_offset[at] : at * g->b_batch);                        \
        type *c = (type *)g->c + at * g->c_batch + i * g->ldc;                                                         \
        const int64_t ra = g->ta ? 1 : g->lda, ca = g->ta ? g->lda : 1, rb = g->tb ? 1 : g->ldb, cb = g->tb ? g->ldb : 1; \
        const utype alpha = (utype)(int64_t)g->alpha, beta = (utype)(int64_t)g->beta;                                  \
        for (int64_t j = 0; j < g->n; j++) {                                                                           \
            utype sum = 0;                                                                                             \
            for (int64_t k = 0; k < g->k; k++) sum += (utype)a[i * ra + k * ca] * (utype)b[k * rb + j * cb];           \
            sum *= alpha;                                                                                              \
            if (beta) sum += beta * (utype)c[j];                                                                       \
            if (g->bias) sum += (utype)((const type *)g->bias)[j];                                                     \
            c[j] = (type)sum;                                                                                          \
        }                                                                                                              \
    }
static void integer_rows(void *arg, int64_t begin, int64_t end, int worker) {
    const pg_gemm *g = ((integers *)arg)->g;
    (void)worker;
    switch (((integers *)arg)->dtype) {
    case PG_K_UINT8: INTEGER(uint8_t, uint32_t) break;
    case PG_K_INT8: INTEGER(int8_t, uint32_t) break;
    case PG_K_INT16: INTEGER(int16_t, uint32_t) break;
    case PG_K_INT32: INTEGER(int32_t, uint32_t) break;
    case PG_K_INT64: INTEGER(int64_t, uint64_t) break;
    default: break;
    }
}

/* Halves: a, b and bias become float32, the product is made there, and c is rounded once. */
/* Elements from the first to one beyond the last that the batch touches. */
static int64_t extent(const pg_gemm *g, int64_t rows, int64_t columns, int64_t ld, int64_t batch, const int64_t *offset) {
    int64_t last = offset ? 0 : (g->batch - 1) * batch;
    for (int64_t i = 0; offset && i < g->batch; i++) last = offset[i] > last ? offset[i] : last;
    return last + (rows - 1) * ld + columns;
}
static int halves(const pg_context *context, int dtype, const pg_gemm *g) {
    pg_gemm f = *g;
    const int64_t a = g->k == 0 ? 0 : extent(g, g->ta ? g->k : g->m, g->ta ? g->m : g->k, g->lda, g->a_batch, g->a_offset);
    const int64_t b = g->k == 0 ? 0 : extent(g, g->tb ? g->n : g->k, g->tb ? g->k : g->n, g->ldb, g->b_batch, g->b_offset);
    const int64_t c = extent(g, g->m, g->n, g->ldc, g->c_batch, NULL);
    f.a = widened(context, dtype, a, g->a);
    f.b = widened(context, dtype, b, g->b);
    f.c = widened(context, dtype, c, g->c);
    if (g->bias) f.bias = widened(context, dtype, g->n, g->bias);
    if (g->aux) f.aux = widened(context, dtype, c, g->aux);
    if (!f.a || !f.b || !f.c || (g->bias && !f.bias) || (g->aux && !f.aux)) return PG_KERNEL_NO_SCRATCH;
    const int status = gemm_f32(context, &f);
    if (status != PG_KERNEL_OK) return status;
    if (g->aux) narrowed(context, dtype, c, f.aux, g->aux);
    return narrowed(context, dtype, c, f.c, g->c);
}

int PG_K(gemm)(const pg_context *context, int dtype, const pg_gemm *g) {
    if (g->batch <= 0 || g->m <= 0 || g->n <= 0) return PG_KERNEL_OK;
    switch (dtype) {
    case PG_K_FLOAT32: return gemm_f32(context, g);
    case PG_K_FLOAT64: return gemm_f64(context, g);
    case PG_K_BFLOAT16: return has_bf16() ? gemm_bf16(context, g) : halves(context, dtype, g);
    case PG_K_FLOAT16: return halves(context, dtype, g);
    case PG_K_UINT8:
    case PG_K_INT8:
    case PG_K_INT16:
    case PG_K_INT32:
    case PG_K_INT64: {
        if (g->activation != PG_K_ACT_NONE || g->aux) return PG_KERNEL_UNSUPPORTED;
        integers arg = {g, dtype};
        const int64_t row = g->n * g->k + 1;
        parallel(context, g->batch * g->m, GRAIN / row + 1, integer_rows, &arg);
        return PG_KERNEL_OK;
    }
    default: return PG_KERNEL_UNSUPPORTED;
    }
}

#else /* the body, once for float and once for double */

typedef struct F(job) {
    const pg_context *context;
    const pg_gemm *g;
    const pg_blas *blas;
    cut grid;
    int64_t ra, ca, rb, cb;
    T *scratch;
    size_t scratch_each;
} F(job);

/* What follows a product, on a part of one entry's c. */
typedef struct F(tail) { const pg_gemm *g; const T *bias; T *c, *aux; } F(tail);

static void F(activate)(int activation, int64_t n, T *c) {
    switch (activation) {
    case PG_K_ACT_RELU:
        for (int64_t j = 0; j < n; j++) c[j] = c[j] < 0 ? 0 : c[j];
        break;
    case PG_K_ACT_GELU:
        for (int64_t j = 0; j < n; j++) c[j] = F(gelu)(c[j]);
        break;
    case PG_K_ACT_GELU_TANH:
        for (int64_t j = 0; j < n; j++) c[j] = F(gelu_tanh)(c[j]);
        break;
    default: break;
    }
}
static void F(finish)(void *arg, int64_t i, int64_t j, int64_t m, int64_t n) {
    const F(tail) *t = arg;
    for (int64_t r = i; r < i + m; r++) {
        T *c = t->c + r * t->g->ldc + j;
        if (t->bias)
            for (int64_t q = 0; q < n; q++) c[q] += t->bias[j + q];
        if (t->aux) memcpy(t->aux + r * t->g->ldc + j, c, (size_t)n * sizeof(T));
        F(activate)(t->g->activation, n, c);
    }
}

/* Part r of all entries' grids: where its operands lie and what follows it. */
typedef struct F(region) { int64_t m, n; const T *a, *b; F(tail) tail; bool after; } F(region);
static F(region) F(region_of)(const F(job) *job, int64_t r) {
    const pg_gemm *g = job->g;
    const int64_t parts = job->grid.rows * job->grid.columns, at = r / parts, part = r % parts;
    const int64_t i = part / job->grid.columns * job->grid.height, j = part % job->grid.columns * job->grid.width;
    const int64_t to = at * g->c_batch + i * g->ldc + j;
    F(region) t = {.m = g->m - i < job->grid.height ? g->m - i : job->grid.height,
                   .n = g->n - j < job->grid.width ? g->n - j : job->grid.width};
    t.a = (const T *)g->a + (g->a_offset ? g->a_offset[at] : at * g->a_batch) + i * job->ra;
    t.b = (const T *)g->b + (g->b_offset ? g->b_offset[at] : at * g->b_batch) + j * job->cb;
    t.tail = (F(tail)){g, g->bias ? (const T *)g->bias + j : NULL, (T *)g->c + to, g->aux ? (T *)g->aux + to : NULL};
    t.after = g->bias || g->aux || g->activation != PG_K_ACT_NONE;
    return t;
}

static void F(part)(void *arg, int64_t begin, int64_t end, int worker) {
    const F(job) *job = arg;
    const pg_gemm *g = job->g;
    T *scratch = job->scratch + (size_t)worker * job->scratch_each;
    for (int64_t r = begin; r < end; r++) {
        if (*job->context->interrupt) return;
        F(region) t = F(region_of)(job, r);
        const int64_t m = t.m, n = t.n;
        T *c = t.tail.c;
        if (g->k == 0) {
            for (int64_t p = 0; p < m; p++)
                for (int64_t q = 0; q < n; q++) c[p * g->ldc + q] = g->beta != 0 ? (T)g->beta * c[p * g->ldc + q] : 0;
            if (t.after) F(finish)(&t.tail, 0, 0, m, n);
            continue;
        }
        /* A vector times the rows of a matrix: dot products; the shape alone decides. */
        if (g->m == 1 && job->rb == 1 && (job->ca == 1 || g->k == 1)) {
            F(dots)(n, g->k, t.a, t.b, job->cb, c, 1, (T)g->alpha, (T)g->beta);
        } else if (g->n == 1 && job->ca == 1 && (job->rb == 1 || g->k == 1)) {
            F(dots)(m, g->k, t.b, t.a, job->ra, c, g->ldc, (T)g->alpha, (T)g->beta);
        } else {
            F(product)(m, n, g->k, t.a, job->ra, job->ca, t.b, job->rb, job->cb, c, g->ldc, (T)g->alpha, (T)g->beta, scratch,
                       t.after ? F(finish) : NULL, &t.tail, job->context->interrupt);
            continue;
        }
        if (t.after) F(finish)(&t.tail, 0, 0, m, n);
    }
}

/* Tile r of one entry of the batch, by the library. */
static void F(library_tile)(void *arg, int64_t begin, int64_t end, int worker) {
    const F(job) *job = arg;
    const pg_gemm *g = job->g;
    (void)worker;
    for (int64_t r = begin; r < end && !*job->context->interrupt; r++) {
        F(region) t = F(region_of)(job, r);
        job->blas->F(gemm)(PG_BLAS_ROW_MAJOR, g->ta ? PG_BLAS_TRANSPOSED : PG_BLAS_AS_IS,
                           g->tb ? PG_BLAS_TRANSPOSED : PG_BLAS_AS_IS, (int)t.m, (int)t.n, (int)g->k, (T)g->alpha, t.a,
                           (int)g->lda, t.b, (int)g->ldb, (T)g->beta, t.tail.c, (int)g->ldc);
        if (t.after) F(finish)(&t.tail, 0, 0, t.m, t.n);
    }
}
static int F(library_gemm)(F(job) *job) {
    const pg_gemm *g = job->g;
    const int64_t height = tile_side(g->m), width = tile_side(g->n);
    job->grid = (cut){ceiling(g->m, height), ceiling(g->n, width), height, width};
    parallel(job->context, g->batch * job->grid.rows * job->grid.columns, 1, F(library_tile), job);
    return *job->context->interrupt ? PG_KERNEL_INTERRUPTED : PG_KERNEL_OK;
}

static int F(gemm)(const pg_context *context, const pg_gemm *g) {
    F(job) job = {.context = context, .g = g};
    job.ra = g->ta ? 1 : g->lda;
    job.ca = g->ta ? g->lda : 1;
    job.rb = g->tb ? 1 : g->ldb;
    job.cb = g->tb ? g->ldb : 1;
    job.blas = library_for(context, g);
    if (job.blas) return F(library_gemm)(&job);
    const double work = (double)g->m * (double)g->n * (double)(g->k > 0 ? g->k : 1);
    int64_t parts = g->batch >= context->threads ? 1 : context->threads / g->batch;
    const double grain = context->grain_limit < GRAIN ? (double)context->grain_limit : GRAIN;
    if (work < grain * (double)parts) parts = 1 + (int64_t)(work / grain);
    if (g->batch >= context->threads) parts = 1;
    job.grid = cut_of(g->m, g->n, parts, F(MR), F(NR));
    job.scratch_each = F(product_scratch)(job.grid.width, g->k);
    job.scratch = context->scratch(context, job.scratch_each * (size_t)context->threads * sizeof(T));
    if (!job.scratch) return PG_KERNEL_NO_SCRATCH;
    const int64_t items = g->batch * job.grid.rows * job.grid.columns;
    const double each = work / (double)(job.grid.rows * job.grid.columns);
    parallel(context, items, each >= grain ? 1 : (int64_t)(grain / each), F(part), &job);
    return *context->interrupt ? PG_KERNEL_INTERRUPTED : PG_KERNEL_OK;
}

#endif
