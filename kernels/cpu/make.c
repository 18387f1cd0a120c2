/* make.c: tensors from nothing, and triangles. */
#include "convert.h"
#include "walk.h"

typedef struct job {
    int dtype, item;
    int64_t n;
    pg_value start, step;
    double end;
    void *out;
} job;

/* Integers start + i * step wrap; floats are computed in double and rounded once. */
static void arange_range(void *arg, int64_t begin, int64_t end, int worker) {
    const job *j = arg;
    (void)worker;
    double start = j->start.d, step = j->step.d;
#define INTEGERS(T) { T *o = j->out; \
        for (int64_t i = begin; i < end; i++) \
            o[i] = (T)((uint64_t)j->start.i + (uint64_t)i * (uint64_t)j->step.i); } break
#define FLOATS(T, e) { T *o = j->out; \
        for (int64_t i = begin; i < end; i++) { double v = start + (double)i * step; o[i] = (T)(e); } } break
    switch (j->dtype) {
    case PG_K_BOOL: {
        uint8_t *o = j->out;
        for (int64_t i = begin; i < end; i++) o[i] = j->start.i + i * j->step.i != 0;
        break;
    }
    case PG_K_UINT8: case PG_K_INT8: INTEGERS(uint8_t);
    case PG_K_INT16: INTEGERS(uint16_t);
    case PG_K_INT32: INTEGERS(uint32_t);
    case PG_K_INT64: INTEGERS(uint64_t);
    case PG_K_FLOAT16: FLOATS(uint16_t, f32_to_f16((float)v));
    case PG_K_BFLOAT16: FLOATS(uint16_t, f32_to_bf16((float)v));
    case PG_K_FLOAT32: FLOATS(float, v);
    default: FLOATS(double, v);
    }
#undef INTEGERS
#undef FLOATS
}

int PG_K(arange)(const pg_context *c, int dtype, int64_t n, pg_value start, pg_value step, void *out) {
    if ((unsigned)dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    job j = {.dtype = dtype, .n = n, .start = start, .step = step, .out = out};
    if (n > 0) parallel(c, n, 32768, arange_range, &j);
    return PG_KERNEL_OK;
}

/* From both ends, so that the last element is `end` and the middle is symmetric. */
static void linspace_range(void *arg, int64_t begin, int64_t end, int worker) {
    const job *j = arg;
    (void)worker;
    double start = j->start.d, step = j->n > 1 ? (j->end - start) / (double)(j->n - 1) : 0;
    for (int64_t i = begin; i < end; i++) {
        double v = i < j->n / 2 || j->n == 1 ? start + step * (double)i
            : j->end - step * (double)(j->n - 1 - i);
        pg_value value = {.i = j->dtype < PG_K_FLOAT16 ? f64_to_i64(v) : 0, .d = v};
        store_value(j->dtype, value, (char *)j->out + i * j->item);
    }
}

int PG_K(linspace)(const pg_context *c, int dtype, int64_t n, double start, double end, void *out) {
    if ((unsigned)dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    job j = {.dtype = dtype, .item = item_size(dtype), .n = n, .start = {.d = start}, .end = end, .out = out};
    if (n > 0) parallel(c, n, 16384, linspace_range, &j);
    return PG_KERNEL_OK;
}

typedef struct triangular {
    int item;
    bool upper;
    int64_t rows, cols, k;
    const void *in;
    void *out;
} triangular;

/* Row i keeps the columns from i + k on (upper) or up to i + k. */
static void triangle_range(void *arg, int64_t begin, int64_t end, int worker) {
    const triangular *t = arg;
    (void)worker;
    size_t item = (size_t)t->item;
    for (int64_t u = begin; u < end; u++) {
        int64_t i = u % t->rows, split = t->upper ? i + t->k : i + t->k + 1;
        split = max64(0, min64(split, t->cols));
        const char *in = (const char *)t->in + u * t->cols * t->item;
        char *out = (char *)t->out + u * t->cols * t->item;
        size_t left = (size_t)split * item, right = (size_t)(t->cols - split) * item;
        if (t->upper) {
            memset(out, 0, left);
            if (in != out) memcpy(out + left, in + left, right);
        } else {
            if (in != out) memcpy(out, in, left);
            memset(out + left, 0, right);
        }
    }
}

int PG_K(triangle)(const pg_context *c, int item, int64_t batch, int64_t rows, int64_t cols, int64_t k,
                   bool upper, const void *in, void *out) {
    if (batch * rows * cols == 0) return PG_KERNEL_OK;
    k = max64(-rows - cols, min64(k, rows + cols));
    triangular t = {.item = item, .upper = upper, .rows = rows, .cols = cols, .k = k, .in = in, .out = out};
    parallel(c, batch * rows, max64(1, 65536 / cols), triangle_range, &t);
    return PG_KERNEL_OK;
}
