/* sort.c: stable sorting of rows, and the k best of them.
 *
 * Elements become unsigned keys whose order is theirs (NaN greatest, -0 equal to 0; complemented for
 * descending order), paired with their places. Short rows are merge-sorted, long ones radix-sorted, passes
 * without effect skipped. */
#include "convert.h"
#include "walk.h"

typedef struct pair32 { uint32_t key, at; } pair32;
typedef struct pair64 { uint64_t key, at; } pair64;

static inline uint32_t key_f32(float x) {
    uint32_t u = bits_f32(x + 0.0f);
    return x != x ? UINT32_MAX : u >> 31 ? ~u : u | 0x80000000u;
}
static inline uint64_t key_f64(double x) {
    uint64_t u = bits_f64(x + 0.0);
    return x != x ? UINT64_MAX : u >> 63 ? ~u : u | UINT64_C(1) << 63;
}

/* The keys of a row; places count from 0. */
static void keys_32(int dtype, int64_t n, const void *in, bool flip, pair32 *o) {
    uint32_t mask = flip ? UINT32_MAX : 0;
#define KEYS(T, e) { const T *x = in; for (int64_t i = 0; i < n; i++) { const T a = x[i]; \
        o[i].key = (e) ^ mask; o[i].at = (uint32_t)i; } } break
    switch (dtype) {
    case PG_K_BOOL: case PG_K_UINT8: KEYS(uint8_t, (uint32_t)a);
    case PG_K_INT8: KEYS(int8_t, (uint32_t)(int32_t)a ^ 0x80000000u);
    case PG_K_INT16: KEYS(int16_t, (uint32_t)(int32_t)a ^ 0x80000000u);
    case PG_K_INT32: KEYS(int32_t, (uint32_t)a ^ 0x80000000u);
    case PG_K_FLOAT16: KEYS(uint16_t, key_f32(f16_to_f32(a)));
    case PG_K_BFLOAT16: KEYS(uint16_t, key_f32(bf16_to_f32(a)));
    default: KEYS(float, key_f32(a));
    }
#undef KEYS
}
static inline uint64_t key_any(int dtype, const void *in, int64_t i) {
    switch (dtype) {
    case PG_K_BOOL: case PG_K_UINT8: return ((const uint8_t *)in)[i];
    case PG_K_INT8: return (uint64_t)((const int8_t *)in)[i] ^ UINT64_C(1) << 63;
    case PG_K_INT16: return (uint64_t)((const int16_t *)in)[i] ^ UINT64_C(1) << 63;
    case PG_K_INT32: return (uint64_t)((const int32_t *)in)[i] ^ UINT64_C(1) << 63;
    case PG_K_INT64: return (uint64_t)((const int64_t *)in)[i] ^ UINT64_C(1) << 63;
    case PG_K_FLOAT16: return key_f32(f16_to_f32(((const uint16_t *)in)[i]));
    case PG_K_BFLOAT16: return key_f32(bf16_to_f32(((const uint16_t *)in)[i]));
    case PG_K_FLOAT32: return key_f32(((const float *)in)[i]);
    default: return key_f64(((const double *)in)[i]);
    }
}
static void keys_64(int dtype, int64_t n, const void *in, bool flip, pair64 *o) {
    uint64_t mask = flip ? UINT64_MAX : 0;
    for (int64_t i = 0; i < n; i++) {
        o[i].key = key_any(dtype, in, i) ^ mask;
        o[i].at = (uint64_t)i;
    }
}

/* Rows of up to SHORT are merge-sorted; digits of 8 bits up to MEDIUM, of 11 bits beyond: fewer passes, more
 * counters. */
enum { RUN = 16, SHORT = 96, MEDIUM = 2048, BUCKETS = 1 << 11 };

/* Sorts x (spare is as long) and gives where the result is: x or spare. Ties keep the order of places. */
#define DEFINE_SORT(P, S) \
    static inline bool before_##S(const P *a, const P *b) { return a->key < b->key \
                                                           || (a->key == b->key && a->at < b->at); } \
    static P *merge_sort_##S(int64_t n, P *x, P *spare) { \
        for (int64_t first = 0; first < n; first += RUN) { \
            int64_t end = min64(first + RUN, n); \
            for (int64_t i = first + 1; i < end; i++) { \
                P v = x[i]; \
                int64_t k = i; \
                for (; k > first && before_##S(&v, &x[k - 1]); k--) x[k] = x[k - 1]; \
                x[k] = v; \
            } \
        } \
        for (int64_t width = RUN; width < n; width *= 2) { \
            for (int64_t first = 0; first < n; first += 2 * width) { \
                int64_t a = first, middle = min64(first + width, n), b = middle, \
                    end = min64(first + 2 * width, n); \
                for (int64_t o = first; o < end; o++) \
                    spare[o] = a < middle && (b >= end || !before_##S(&x[b], &x[a])) ? x[a++] : x[b++]; \
            } \
            P *t = x; x = spare; spare = t; \
        } \
        return x; \
    } \
    static P *radix_sort_##S(int64_t n, P *x, P *spare) { \
        int64_t count[BUCKETS]; \
        unsigned digit = n <= MEDIUM ? 8 : 11, mask = (1u << digit) - 1; \
        for (unsigned shift = 0; shift < 8 * sizeof x->key; shift += digit) { \
            memset(count, 0, sizeof *count << digit); \
            for (int64_t i = 0; i < n; i++) count[x[i].key >> shift & mask]++; \
            if (count[x[0].key >> shift & mask] == n) continue; \
            int64_t sum = 0; \
            for (unsigned k = 0; k <= mask; k++) { int64_t c = count[k]; count[k] = sum; sum += c; } \
            for (int64_t i = 0; i < n; i++) spare[count[x[i].key >> shift & mask]++] = x[i]; \
            P *t = x; x = spare; spare = t; \
        } \
        return x; \
    } \
    static P *sort_##S(int64_t n, P *x, P *spare) { \
        return n <= SHORT ? merge_sort_##S(n, x, spare) : radix_sort_##S(n, x, spare); \
    }
DEFINE_SORT(pair32, 32)
DEFINE_SORT(pair64, 64)

typedef struct job {
    int dtype, item;
    int64_t n, k;
    const void *in;
    void *values;
    int64_t *indices;
    bool flip, narrow_keys, heap;
    char *scratch;               /* a share for each worker */
    size_t share;
} job;

/* float32 values straight from their keys, which stand in order: only zeros and NaNs need a look at the
 * input. */
static void put_floats(const job *j, int64_t row, const pair32 *x) {
    const float *in = (const float *)j->in + row * j->n;
    float *values = (float *)j->values + row * j->k;
    int64_t *indices = j->indices + row * j->k;
    uint32_t mask = j->flip ? UINT32_MAX : 0;
    for (int64_t i = 0; i < j->k; i++) {
        uint32_t key = x[i].key ^ mask;
        indices[i] = x[i].at;
        if (key == UINT32_MAX || key == 0x80000000u) values[i] = in[x[i].at];
        else values[i] = float_of(key >> 31 ? key & 0x7fffffffu : ~key);
    }
}

static void put_row(const job *j, int64_t row, int64_t k, int64_t at) {
    j->indices[row * j->k + k] = at;
    if (!j->values) return;
    const char *in = (const char *)j->in + (row * j->n + at) * j->item;
    char *out = (char *)j->values + (row * j->k + k) * j->item;
    switch (j->item) {
    case 1: *out = *in; break;
    case 2: memcpy(out, in, 2); break;
    case 4: memcpy(out, in, 4); break;
    default: memcpy(out, in, 8); break;
    }
}

static void sort_range(void *arg, int64_t begin, int64_t end, int worker) {
    const job *j = arg;
    void *pairs = j->scratch + (size_t)worker * j->share;
    for (int64_t row = begin; row < end; row++) {
        const char *in = (const char *)j->in + row * j->n * j->item;
        if (j->narrow_keys) {
            pair32 *x = pairs;
            keys_32(j->dtype, j->n, in, j->flip, x);
            x = sort_32(j->n, x, x + j->n);
            if (j->dtype == PG_K_FLOAT32 && j->values) put_floats(j, row, x);
            else for (int64_t i = 0; i < j->k; i++) put_row(j, row, i, x[i].at);
        } else {
            pair64 *x = pairs;
            keys_64(j->dtype, j->n, in, j->flip, x);
            x = sort_64(j->n, x, x + j->n);
            for (int64_t i = 0; i < j->k; i++) put_row(j, row, i, (int64_t)x[i].at);
        }
    }
}

static void sift_down(pair64 *x, int64_t n, int64_t i) {
    pair64 v = x[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before_64(&x[child], &x[child + 1])) child++;
        if (!before_64(&v, &x[child])) break;
        x[i] = x[child];
    }
    x[i] = v;
}

/* A heap of the k best so far, the worst on top. */
static void topk_range(void *arg, int64_t begin, int64_t end, int worker) {
    const job *j = arg;
    pair64 *x = (pair64 *)(void *)(j->scratch + (size_t)worker * j->share);
    uint64_t mask = j->flip ? UINT64_MAX : 0;
    for (int64_t row = begin; row < end; row++) {
        const char *in = (const char *)j->in + row * j->n * j->item;
        for (int64_t i = 0; i < j->k; i++) {
            x[i].key = key_any(j->dtype, in, i) ^ mask;
            x[i].at = (uint64_t)i;
        }
        for (int64_t i = j->k / 2 - 1; i >= 0; i--) sift_down(x, j->k, i);
        for (int64_t i = j->k; i < j->n; i++) {
            uint64_t key = key_any(j->dtype, in, i) ^ mask;
            if (key >= x[0].key) continue;
            x[0].key = key;
            x[0].at = (uint64_t)i;
            sift_down(x, j->k, 0);
        }
        pair64 *sorted = merge_sort_64(j->k, x, x + j->k);
        for (int64_t i = 0; i < j->k; i++) put_row(j, row, i, (int64_t)sorted[i].at);
    }
}

static int run(const pg_context *c, job *j, int64_t rows) {
    if (rows == 0 || j->k == 0) return PG_KERNEL_OK;
    j->item = item_size(j->dtype);
    j->narrow_keys = j->item < 8 && j->n <= UINT32_MAX;
    int64_t pairs = 2 * (j->heap ? j->k : j->n);
    j->share = ((size_t)pairs * (j->narrow_keys && !j->heap ? sizeof(pair32) : sizeof(pair64)) + 63) / 64
        * 64;
    int workers = rows == 1 ? 1 : c->threads;
    j->scratch = c->scratch(c, j->share * (size_t)workers);
    if (!j->scratch) return PG_KERNEL_NO_SCRATCH;
    if (rows == 1) (j->heap ? topk_range : sort_range)(j, 0, 1, 0);
    else parallel(c, rows, max64(1, 4096 / j->n), j->heap ? topk_range : sort_range, j);
    return PG_KERNEL_OK;
}

int PG_K(sort)(const pg_context *c, int dtype, int64_t rows, int64_t n, const void *in, void *values,
               int64_t *indices, bool descending) {
    if ((unsigned)dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    job j = {.dtype = dtype, .n = n, .k = n, .in = in, .values = values, .indices = indices,
        .flip = descending};
    return run(c, &j, rows);
}

int PG_K(topk)(const pg_context *c, int dtype, int64_t rows, int64_t n, int64_t k, const void *in,
               void *values, int64_t *indices, bool largest) {
    if ((unsigned)dtype > PG_K_FLOAT64 || k > n) return PG_KERNEL_UNSUPPORTED;
    job j = {.dtype = dtype, .n = n, .k = k, .in = in, .values = values, .indices = indices, .flip = largest,
        .heap = k <= n / 8};
    return run(c, &j, rows);
}
