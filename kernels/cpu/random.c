/* random.c: draws of the counter-based generator (philox.h), in blocks of counters that threads divide. */
#include "../philox.h"
#include "convert.h"
#include "walk.h"

enum { COUNTERS = 64, WORDS = 4 * COUNTERS };      /* of one block */

typedef struct words { uint32_t w[4][COUNTERS]; } words;   /* by lane */

static void philox_block(uint64_t seed, uint64_t first, words *o) {
    for (int i = 0; i < COUNTERS; i++) {
        uint64_t counter = first + (uint64_t)i;
        pg_philox_words(seed, counter, &o->w[0][i], &o->w[1][i], &o->w[2][i], &o->w[3][i]);
    }
}

/* In the order of elements. */
static void interleave_words(const words *x, uint32_t *o) {
    for (int i = 0; i < COUNTERS; i++)
        for (int k = 0; k < 4; k++) o[4 * i + k] = x->w[k][i];
}

typedef struct job {
    int kind, dtype, item;
    bool wide;
    int64_t n, per_block;
    pg_value a, b;
    const pg_philox *state;
    void *out;
    bool streams;
    uint64_t range, threshold;
    /* dropout */
    const void *x;
    bool *mask;
    double scale;
} job;

/* Halves and other dtypes from blocks of float32 or int64. */
static void put_f32(int dtype, int n, const float *x, void *out) {
    if (dtype == PG_K_FLOAT32) memcpy(out, x, (size_t)n * sizeof(float));
    else if (dtype == PG_K_FLOAT64) for (int i = 0; i < n; i++) ((double *)out)[i] = (double)x[i];
    else narrow(dtype, n, x, out);
}
static void put_i64(int dtype, int n, const int64_t *x, void *out) {
#define PUT(T) { T *o = out; for (int i = 0; i < n; i++) o[i] = (T)x[i]; } break
    switch (dtype) {
    case PG_K_BOOL: { uint8_t *o = out; for (int i = 0; i < n; i++) o[i] = x[i] != 0; break; }
    case PG_K_UINT8: case PG_K_INT8: PUT(uint8_t);
    case PG_K_INT16: PUT(uint16_t);
    case PG_K_INT32: PUT(uint32_t);
    case PG_K_INT64: PUT(int64_t);
    case PG_K_FLOAT32: PUT(float);
    case PG_K_FLOAT64: PUT(double);
    default: {
        float wide[WORDS];
        for (int i = 0; i < n; i++) wide[i] = (float)x[i];
        narrow(dtype, n, wide, out);
    }
    }
#undef PUT
}

static void block_f32(const job *j, const words *w, float *o) {
    float a = (float)j->a.d, b = (float)j->b.d;
    if (j->kind == PG_K_RANDOM_NORMAL) {
        float z[4][COUNTERS];
        for (int i = 0; i < COUNTERS; i++) pg_normal_f32(w->w[0][i], w->w[1][i], &z[0][i], &z[1][i]);
        for (int i = 0; i < COUNTERS; i++) pg_normal_f32(w->w[2][i], w->w[3][i], &z[2][i], &z[3][i]);
        for (int i = 0; i < COUNTERS; i++)
            for (int k = 0; k < 4; k++) o[4 * i + k] = a + b * z[k][i];
        return;
    }
    uint32_t u[WORDS];
    interleave_words(w, u);
    float d = b - a;
    if (j->dtype == PG_K_FLOAT16) for (int i = 0; i < WORDS; i++) o[i] = a + d * pg_uniform_f16(u[i]);
    else if (j->dtype == PG_K_BFLOAT16) for (int i = 0; i < WORDS; i++) o[i] = a + d * pg_uniform_bf16(u[i]);
    else for (int i = 0; i < WORDS; i++) o[i] = a + d * pg_uniform_f32(u[i]);
}

/* Wide draws: 2 * COUNTERS elements. */
static void block_f64(const job *j, const words *w, double *o) {
    double a = j->a.d, b = j->b.d, z0[COUNTERS], z1[COUNTERS];
    for (int i = 0; i < COUNTERS; i++) {
        uint64_t x0 = w->w[0][i] | (uint64_t)w->w[1][i] << 32, x1 = w->w[2][i] | (uint64_t)w->w[3][i] << 32;
        if (j->kind == PG_K_RANDOM_NORMAL) {
            pg_normal_f64(x0, x1, &z0[i], &z1[i]);
        } else {
            z0[i] = pg_uniform_f64(x0);
            z1[i] = pg_uniform_f64(x1);
        }
    }
    double d = j->kind == PG_K_RANDOM_NORMAL ? b : b - a;
    for (int i = 0; i < COUNTERS; i++) {
        o[2 * i] = a + d * z0[i];
        o[2 * i + 1] = a + d * z1[i];
    }
}

static void block_integers(const job *j, const words *w, int64_t *o) {
    if (!j->wide) {
        uint32_t u[WORDS];
        interleave_words(w, u);
        if (j->kind == PG_K_RANDOM_BERNOULLI)
            for (int i = 0; i < WORDS; i++) o[i] = (uint64_t)u[i] < j->threshold;
        else
            for (int i = 0; i < WORDS; i++)
                o[i] = (int64_t)((uint64_t)j->a.i + pg_below_narrow(u[i], j->range));
        return;
    }
    for (int i = 0; i < COUNTERS; i++)
        for (int k = 0; k < 2; k++) {
            uint64_t x = w->w[2 * k][i] | (uint64_t)w->w[2 * k + 1][i] << 32;
            o[2 * i + k] = j->kind == PG_K_RANDOM_BITS ? (int64_t)(x >> 1)
                         : (int64_t)((uint64_t)j->a.i + pg_below_wide(x, j->range));
        }
}

static void draw_range(void *arg, int64_t begin, int64_t end, int worker) {
    const job *j = arg;
    (void)worker;
    bool floats = j->kind == PG_K_RANDOM_UNIFORM || j->kind == PG_K_RANDOM_NORMAL;
    for (int64_t u = begin; u < end; u++) {
        words w;
        int64_t first = u * j->per_block;
        int n = (int)min64(j->per_block, j->n - first);
        char *out = (char *)j->out + first * j->item;
        philox_block(j->state->seed, j->state->offset + (uint64_t)u * COUNTERS, &w);
        if (floats && j->wide) {
            _Alignas(64) double o[2 * COUNTERS];
            block_f64(j, &w, o);
            if (j->streams) stream(out, o, (int64_t)n * j->item);
            else memcpy(out, o, (size_t)n * sizeof(double));
        } else if (floats) {
            _Alignas(64) float o[WORDS];
            block_f32(j, &w, o);
            if (j->streams && j->dtype == PG_K_FLOAT32) stream(out, o, (int64_t)n * j->item);
            else put_f32(j->dtype, n, o, out);
        } else {
            int64_t o[WORDS];
            block_integers(j, &w, o);
            put_i64(j->dtype, n, o, out);
        }
    }
    if (j->streams) stream_end();
}

int PG_K(random)(const pg_context *c, int kind, int dtype, int64_t n, pg_value a, pg_value b,
                 const pg_philox *state, void *out) {
    bool floats = kind == PG_K_RANDOM_UNIFORM || kind == PG_K_RANDOM_NORMAL;
    if ((unsigned)dtype > PG_K_FLOAT64 || (floats && dtype < PG_K_FLOAT16)) return PG_KERNEL_UNSUPPORTED;
    if (n == 0) return PG_KERNEL_OK;
    job j = {.kind = kind, .dtype = dtype, .item = item_size(dtype), .n = n, .a = a, .b = b, .state = state,
        .out = out};
    if (kind == PG_K_RANDOM_INTEGER) j.range = (uint64_t)b.i - (uint64_t)a.i;
    if (kind == PG_K_RANDOM_BERNOULLI) j.threshold = pg_threshold(a.d);
    j.wide = pg_philox_wide(kind, dtype, j.range) != 0;
    j.per_block = j.wide ? 2 * COUNTERS : WORDS;
    j.streams = (uintptr_t)out % 64 == 0 && n * j.item >= STREAM_BYTES;
    parallel(c, (n + j.per_block - 1) / j.per_block, 16, draw_range, &j);
    return PG_KERNEL_OK;
}

static void dropout_range(void *arg, int64_t begin, int64_t end, int worker) {
    const job *j = arg;
    (void)worker;
    float scale = (float)j->scale, factor[WORDS], wide[WORDS];
    for (int64_t u = begin; u < end; u++) {
        words w;
        uint32_t word[WORDS];
        uint8_t keep[WORDS];
        int64_t first = u * WORDS;
        int n = (int)min64(WORDS, j->n - first);
        philox_block(j->state->seed, j->state->offset + (uint64_t)u * COUNTERS, &w);
        interleave_words(&w, word);
        if (j->threshold > UINT32_MAX) {
            memset(keep, 0, sizeof keep);
        } else {
            uint32_t threshold = (uint32_t)j->threshold;
            for (int i = 0; i < WORDS; i++) keep[i] = word[i] >= threshold;
        }
        for (int i = 0; i < WORDS; i++) factor[i] = keep[i] ? scale : 0.0f;
        const char *x = (const char *)j->x + first * j->item;
        char *out = (char *)j->out + first * j->item;
        if (j->dtype == PG_K_FLOAT32) {
            const float *in = (const float *)(const void *)x;
            float *o = (float *)(void *)out;
            INDEPENDENT for (int i = 0; i < n; i++) o[i] = in[i] * factor[i];
        } else if (j->dtype == PG_K_FLOAT64) {
            const double *in = (const double *)(const void *)x;
            double *o = (double *)(void *)out;
            INDEPENDENT for (int i = 0; i < n; i++) o[i] = in[i] * (keep[i] ? j->scale : 0.0);
        } else {
            widen(j->dtype, n, (const uint16_t *)(const void *)x, wide);
            for (int i = 0; i < n; i++) wide[i] *= factor[i];
            narrow(j->dtype, n, wide, (uint16_t *)(void *)out);
        }
        memcpy(j->mask + first, keep, (size_t)n);
    }
}

int PG_K(dropout)(const pg_context *c, int dtype, int64_t n, double p, const pg_philox *state, const void *x,
                  void *out, bool *mask) {
    if (dtype < PG_K_FLOAT16 || dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    if (n == 0) return PG_KERNEL_OK;
    job j = {.dtype = dtype, .item = item_size(dtype), .n = n, .state = state, .x = x, .out = out,
        .mask = mask, .threshold = pg_threshold(p), .scale = p < 1 ? 1 / (1 - p) : 0};
    parallel(c, (n + WORDS - 1) / WORDS, 32, dropout_range, &j);
    return PG_KERNEL_OK;
}
