/* index.c: element-wise indexed access: gather, scatter, advanced indexing, positions of what is true. */
#include "halves.h"
#include <string.h>

static void bad_index(const pg_context *context, int64_t index, int64_t size) {
    __atomic_store_n(&context->bad_index[2], size, __ATOMIC_RELAXED);
    __atomic_store_n(&context->bad_index[1], index, __ATOMIC_RELAXED);
    __atomic_store_n(&context->bad_index[0], 1, __ATOMIC_RELAXED);
}
static inline bool resolve(const pg_context *context, int64_t index, int64_t size, int64_t *at) {
    *at = index < 0 ? index + size : index;
    if (*at >= 0 && *at < size) return true;
    bad_index(context, index, size);
    return false;
}
static inline void move(int item, void *to, const void *from) {
    switch (item) {
    case 1: memcpy(to, from, 1); break;
    case 2: memcpy(to, from, 2); break;
    case 4: memcpy(to, from, 4); break;
    default: memcpy(to, from, 8); break;
    }
}
/* *to += *from. */
static inline void add(int dtype, void *to, const void *from) {
    switch (dtype) {
#define ADD(type, wide) { type x, y; memcpy(&x, to, sizeof x); memcpy(&y, from, sizeof y); x = (type)((wide)x + (wide)y); memcpy(to, &x, sizeof x); break; }
    case PG_K_BOOL: *(uint8_t *)to |= *(const uint8_t *)from; break;
    case PG_K_UINT8: ADD(uint8_t, uint32_t)
    case PG_K_INT8: ADD(int8_t, uint32_t)
    case PG_K_INT16: ADD(int16_t, uint32_t)
    case PG_K_INT32: ADD(int32_t, uint32_t)
    case PG_K_INT64: ADD(int64_t, uint64_t)
    case PG_K_FLOAT32: ADD(float, float)
    case PG_K_FLOAT64: ADD(double, double)
#undef ADD
    case PG_K_FLOAT16: {
        uint16_t x, y;
        memcpy(&x, to, 2), memcpy(&y, from, 2);
        x = f32_to_f16(f16_to_f32(x) + f16_to_f32(y));
        memcpy(to, &x, 2);
        break;
    }
    case PG_K_BFLOAT16: {
        uint16_t x, y;
        memcpy(&x, to, 2), memcpy(&y, from, 2);
        x = f32_to_bf16(bf16_to_f32(x) + bf16_to_f32(y));
        memcpy(to, &x, 2);
        break;
    }
    default: break;
    }
}
static int size_of(int dtype) {
    static const int bytes[] = {1, 1, 1, 2, 4, 8, 2, 2, 4, 8};
    return bytes[dtype];
}

enum { GATHER, SCATTER, SCATTER_ADD };
typedef struct gather_arg { const pg_context *context; const pg_gathering *g; int what, item, dtype; } gather_arg;

/* Item: a line along the indexed dimension, so that one worker alone writes where that line may point. */
static void gather_lines(void *arg, int64_t begin, int64_t end, int worker) {
    const gather_arg *a = arg;
    const pg_gathering *g = a->g;
    const pg_strided *s = &g->s;
    const int64_t n = s->ndim ? s->shape[g->dim] : 1;
    (void)worker;
    for (int64_t line = begin; line < end; line++) {
        int64_t rest = line, at[3] = {0, 0, 0};
        for (int d = s->ndim - 1; d >= 0; d--) {
            if (d == g->dim) continue;
            const int64_t i = rest % s->shape[d];
            rest /= s->shape[d];
            for (int k = 0; k < 3; k++) at[k] += i * s->stride[k][d];
        }
        const int64_t *index = (const int64_t *)s->data[0] + at[0];
        char *dense = (char *)s->data[1] + at[1] * a->item, *indexed = (char *)s->data[2] + at[2] * a->item;
        const int64_t index_step = s->ndim ? s->stride[0][g->dim] : 0, step = s->ndim ? s->stride[1][g->dim] * a->item : 0;
        for (int64_t i = 0; i < n; i++) {
            const int64_t to = index[i * index_step];
            if (to < 0 || to >= g->size) {
                bad_index(a->context, to, g->size);
                return;
            }
            char *there = indexed + to * g->dim_stride * a->item;
            if (a->what == GATHER) move(a->item, dense + i * step, there);
            else if (a->what == SCATTER) move(a->item, there, dense + i * step);
            else add(a->dtype, there, dense + i * step);
        }
    }
}
static int run_gather(const pg_context *context, const pg_gathering *g, int what, int item, int dtype) {
    gather_arg arg = {context, g, what, item, dtype};
    int64_t lines = 1, n = g->s.ndim ? g->s.shape[g->dim] : 1;
    for (int d = 0; d < g->s.ndim; d++)
        if (d != g->dim) lines *= g->s.shape[d];
    if (lines * n > 0) parallel(context, lines, 8192 / n + 1, gather_lines, &arg);
    return context->bad_index[0] ? PG_KERNEL_BAD_INDEX : PG_KERNEL_OK;
}
int PG_K(gather)(const pg_context *context, int item, const pg_gathering *g) {
    return run_gather(context, g, GATHER, item, 0);
}
int PG_K(scatter)(const pg_context *context, int item, const pg_gathering *g) {
    return run_gather(context, g, SCATTER, item, 0);
}
int PG_K(scatter_add)(const pg_context *context, int dtype, const pg_gathering *g) {
    return run_gather(context, g, SCATTER_ADD, size_of(dtype), dtype);
}

/* ---- advanced indexing ---- */

typedef struct advanced_arg { const pg_context *context; const pg_advanced *a; int item, dtype; bool put, accumulate; } advanced_arg;

/* Items: positions of the iteration space in row-major order; the last dimension is walked in a row. */
static void advanced_range(void *arg, int64_t begin, int64_t end, int worker) {
    const advanced_arg *x = arg;
    const pg_advanced *a = x->a;
    const pg_strided *s = &a->s;
    const int last = s->ndim - 1;
    const int64_t width = s->ndim ? s->shape[last] : 1;
    (void)worker;
    for (int64_t i = begin; i < end;) {
        int64_t rest = i / width, column = i % width, dense = 0, base = 0, index[PG_K_DIMS] = {0};
        for (int d = last - 1; d >= 0; d--) {
            const int64_t at = rest % s->shape[d];
            rest /= s->shape[d];
            dense += at * s->stride[0][d];
            base += at * s->stride[1][d];
            for (int k = 0; k < a->n; k++) index[k] += at * a->index_stride[k][d];
        }
        bool fixed = true;   /* the indices stay the same along the row */
        for (int k = 0; k < a->n; k++) fixed = fixed && (!s->ndim || a->index_stride[k][last] == 0);
        const int64_t stop = end - i < width - column ? column + (end - i) : width;
        int64_t offset = 0;
        for (int64_t c = column; c < stop; c++) {
            if (!fixed || c == column) {
                offset = 0;
                for (int k = 0; k < a->n; k++) {
                    int64_t at;
                    const int64_t where = index[k] + (s->ndim ? c * a->index_stride[k][last] : 0);
                    if (!resolve(x->context, a->index_data[k][where], a->size[k], &at)) return;
                    offset += at * a->dim_stride[k];
                }
            }
            char *here = (char *)s->data[0] + (dense + (s->ndim ? c * s->stride[0][last] : 0)) * x->item;
            char *there = (char *)s->data[1] + (base + offset + (s->ndim ? c * s->stride[1][last] : 0)) * x->item;
            if (!x->put) move(x->item, here, there);
            else if (!x->accumulate) move(x->item, there, here);
            else add(x->dtype, there, here);
        }
        i += stop - column;
    }
}
static int64_t positions(const pg_strided *s) {
    int64_t n = 1;
    for (int d = 0; d < s->ndim; d++) n *= s->shape[d];
    return n;
}
int PG_K(index_get)(const pg_context *context, int item, const pg_advanced *a) {
    advanced_arg arg = {context, a, item, 0, false, false};
    const int64_t n = positions(&a->s);
    if (n > 0) parallel(context, n, 8192, advanced_range, &arg);
    return context->bad_index[0] ? PG_KERNEL_BAD_INDEX : PG_KERNEL_OK;
}
/* Positions may repeat: one worker, in order, so that the last value wins and sums have one order. All indices are checked before
 * anything is written. */
int PG_K(index_put)(const pg_context *context, int dtype, const pg_advanced *a, bool accumulate) {
    advanced_arg arg = {context, a, size_of(dtype), dtype, true, accumulate};
    const int64_t n = positions(&a->s);
    if (n == 0) return PG_KERNEL_OK;
    for (int k = 0; k < a->n; k++) {
        /* Dimensions along which this index does not move need one look. */
        int64_t shape[PG_K_DIMS], count = 1;
        for (int d = 0; d < a->s.ndim; d++) {
            shape[d] = a->index_stride[k][d] ? a->s.shape[d] : 1;
            count *= shape[d];
        }
        for (int64_t i = 0; i < count; i++) {
            int64_t rest = i, where = 0, at;
            for (int d = a->s.ndim - 1; d >= 0; d--) {
                where += rest % shape[d] * a->index_stride[k][d];
                rest /= shape[d];
            }
            if (!resolve(context, a->index_data[k][where], a->size[k], &at)) return PG_KERNEL_BAD_INDEX;
        }
    }
    advanced_range(&arg, 0, n, 0);
    return PG_KERNEL_OK;
}

int PG_K(nonzero)(const pg_context *context, int64_t n, const bool *in, int64_t *count, int64_t *out) {
    int64_t found = 0;
    (void)context;
    for (int64_t i = 0; i < n; i++) {
        if (out && in[i]) out[found] = i;
        found += in[i];
    }
    *count = found;
    return PG_KERNEL_OK;
}
