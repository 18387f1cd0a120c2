/* scan.c: running sums along the middle dimension of (outer, n, inner). Floats accumulate in double,
 * integers wrap. */
#include "convert.h"
#include "walk.h"

typedef struct job { int dtype; int64_t n, inner; const void *in; void *out; } job;

enum { COLUMNS = 64 };

#define DEFINE_SCAN(T, A, S) \
    static void scan_##S(const job *j, int64_t outer, int64_t first, int64_t m) { \
        const T *x = (const T *)j->in + outer * j->n * j->inner + first; \
        T *o = (T *)j->out + outer * j->n * j->inner + first; \
        if (m == 1) { \
            A sum = 0; \
            for (int64_t i = 0; i < j->n; i++) { sum += (A)x[i * j->inner]; o[i * j->inner] = (T)sum; } \
            return; \
        } \
        A sums[COLUMNS] = {0}; \
        for (int64_t i = 0; i < j->n; i++, x += j->inner, o += j->inner) \
            INDEPENDENT for (int64_t k = 0; k < m; k++) { sums[k] += (A)x[k]; o[k] = (T)sums[k]; } \
    }
DEFINE_SCAN(float, double, f32)
DEFINE_SCAN(double, double, f64)
DEFINE_SCAN(uint64_t, uint64_t, u64)
DEFINE_SCAN(uint32_t, uint32_t, u32)
DEFINE_SCAN(uint16_t, uint16_t, u16)
DEFINE_SCAN(uint8_t, uint8_t, u8)

static void scan_half(const job *j, int64_t outer, int64_t first, int64_t m) {
    const uint16_t *x = (const uint16_t *)j->in + outer * j->n * j->inner + first;
    uint16_t *o = (uint16_t *)j->out + outer * j->n * j->inner + first;
    double sums[COLUMNS] = {0};
    float wide[COLUMNS];
    for (int64_t i = 0; i < j->n; i++, x += j->inner, o += j->inner) {
        widen(j->dtype, m, x, wide);
        for (int64_t k = 0; k < m; k++) wide[k] = (float)(sums[k] += (double)wide[k]);
        narrow(j->dtype, m, wide, o);
    }
}

static void scan_range(void *arg, int64_t begin, int64_t end, int worker) {
    const job *j = arg;
    (void)worker;
    int64_t tiles = (j->inner + COLUMNS - 1) / COLUMNS;
    for (int64_t u = begin; u < end; u++) {
        int64_t outer = u / tiles, first = u % tiles * COLUMNS, m = min64(COLUMNS, j->inner - first);
        switch (j->dtype) {
        case PG_K_FLOAT32: scan_f32(j, outer, first, m); break;
        case PG_K_FLOAT64: scan_f64(j, outer, first, m); break;
        case PG_K_FLOAT16: case PG_K_BFLOAT16: scan_half(j, outer, first, m); break;
        case PG_K_INT64: scan_u64(j, outer, first, m); break;
        case PG_K_INT32: scan_u32(j, outer, first, m); break;
        case PG_K_INT16: scan_u16(j, outer, first, m); break;
        default: scan_u8(j, outer, first, m); break;
        }
    }
}

int PG_K(scan)(const pg_context *c, int op, int dtype, int64_t outer, int64_t n, int64_t inner,
               const void *in, void *out) {
    if (op != PG_K_REDUCE_SUM || dtype == PG_K_BOOL || (unsigned)dtype > PG_K_FLOAT64)
        return PG_KERNEL_UNSUPPORTED;
    if (outer * n * inner == 0) return PG_KERNEL_OK;
    job j = {.dtype = dtype, .n = n, .inner = inner, .in = in, .out = out};
    int64_t tiles = (inner + COLUMNS - 1) / COLUMNS;
    parallel(c, outer * tiles, max64(1, 32768 / (n * min64(inner, COLUMNS))), scan_range, &j);
    return PG_KERNEL_OK;
}
