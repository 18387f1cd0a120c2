/* embedding.c: rows fetched and rows added to by index. */
#include "halves.h"
#include <string.h>

typedef struct rows_arg {
    const pg_context *context;
    const pg_rows *r;
    int item, dtype;
    const void *in;
    void *out;
    double alpha;
    bool by_row;          /* index_add: items are rows of self; else columns */
} rows_arg;

static void bad_index(const pg_context *context, int64_t index, int64_t size) {
    __atomic_store_n(&context->bad_index[2], size, __ATOMIC_RELAXED);
    __atomic_store_n(&context->bad_index[1], index, __ATOMIC_RELAXED);
    __atomic_store_n(&context->bad_index[0], 1, __ATOMIC_RELAXED);
}
/* The position that an index means, or -1 with the fault noted. */
static inline int64_t resolved(const pg_context *context, const pg_rows *r, int64_t index) {
    const int64_t at = index < 0 && r->from_end ? index + r->size : index;
    if (at >= 0 && at < r->size) return at;
    bad_index(context, index, r->size);
    return -1;
}

static void select_rows(void *arg, int64_t begin, int64_t end, int worker) {
    const rows_arg *a = arg;
    const pg_rows *r = a->r;
    const size_t bytes = (size_t)r->inner * (size_t)a->item;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const int64_t j = i % r->n_index, outer = i / r->n_index, at = resolved(a->context, r, r->index[j]);
        if (at < 0) return;
        memcpy((char *)a->out + (size_t)i * bytes, (const char *)a->in + (size_t)(outer * r->size + at) * bytes, bytes);
    }
}

int PG_K(index_select)(const pg_context *context, int item, const pg_rows *r, const void *in, void *out) {
    rows_arg arg = {.context = context, .r = r, .item = item, .in = in, .out = out};
    const int64_t n = r->outer * r->n_index;
    if (n > 0) parallel(context, n, 65536 / (r->inner * item + 64) + 1, select_rows, &arg);
    return context->bad_index[0] ? PG_KERNEL_BAD_INDEX : PG_KERNEL_OK;
}

/* Every element of self gets its terms in the order of the index, because one worker alone owns it: a range of columns, or, where
 * rows are short, a range of rows of self. */
#define ADD(type, wide, number, load, store)                                                                           \
    for (int64_t o = 0; o < r->outer; o++)                                                                             \
        for (int64_t j = 0; j < r->n_index; j++) {                                                                     \
            const int64_t at = r->index[j] < 0 ? r->index[j] + r->size : r->index[j];                                  \
            if (a->by_row && (at < begin || at >= end)) continue;                                                      \
            const int64_t first = a->by_row ? 0 : begin, last = a->by_row ? r->inner : end;                            \
            const type *from = (const type *)a->in + (o * r->n_index + j) * r->inner;                                  \
            type *to = (type *)a->out + (o * r->size + at) * r->inner;                                                 \
            const wide alpha = (wide)(number)a->alpha;                                                                 \
            if (a->alpha == 1)                                                                                         \
                for (int64_t i = first; i < last; i++) to[i] = store((wide)(load(to[i]) + load(from[i])));             \
            else                                                                                                       \
                for (int64_t i = first; i < last; i++) to[i] = store((wide)(load(to[i]) + alpha * load(from[i])));     \
        }
#define AS_IT_IS(x) (x)
#define UNSIGNED32(x) ((uint32_t)(x))
#define UNSIGNED64(x) ((uint64_t)(x))
static void add_rows(void *arg, int64_t begin, int64_t end, int worker) {
    const rows_arg *a = arg;
    const pg_rows *r = a->r;
    (void)worker;
    switch (a->dtype) {
    case PG_K_FLOAT32: ADD(float, float, double, AS_IT_IS, AS_IT_IS) break;
    case PG_K_FLOAT64: ADD(double, double, double, AS_IT_IS, AS_IT_IS) break;
    case PG_K_FLOAT16: ADD(uint16_t, float, double, f16_to_f32, f32_to_f16) break;
    case PG_K_BFLOAT16: ADD(uint16_t, float, double, bf16_to_f32, f32_to_bf16) break;
    case PG_K_UINT8: ADD(uint8_t, uint32_t, int64_t, UNSIGNED32, (uint8_t)) break;
    case PG_K_INT8: ADD(int8_t, uint32_t, int64_t, UNSIGNED32, (int8_t)) break;
    case PG_K_INT16: ADD(int16_t, uint32_t, int64_t, UNSIGNED32, (int16_t)) break;
    case PG_K_INT32: ADD(int32_t, uint32_t, int64_t, UNSIGNED32, (int32_t)) break;
    case PG_K_INT64: ADD(int64_t, uint64_t, int64_t, UNSIGNED64, (int64_t)) break;
    default: break;
    }
}

int PG_K(index_add)(const pg_context *context, int dtype, const pg_rows *r, const void *source, double alpha, void *self) {
    if (dtype == PG_K_BOOL) return PG_KERNEL_UNSUPPORTED;
    for (int64_t j = 0; j < r->n_index; j++)
        if (resolved(context, r, r->index[j]) < 0) return PG_KERNEL_BAD_INDEX;
    rows_arg arg = {.context = context, .r = r, .dtype = dtype, .in = source, .out = self, .alpha = alpha, .by_row = r->inner < 32};
    const int64_t terms = r->outer * r->n_index, n = arg.by_row ? r->size : r->inner;
    if (terms == 0 || n == 0 || r->inner == 0) return PG_KERNEL_OK;
    /* Rows of self: every worker reads the whole index, so each must have enough to add. */
    const int64_t grain = arg.by_row ? (terms * r->inner < 65536 ? n : n / 64 + 1) : 16384 / terms + 16;
    parallel(context, n, grain, add_rows, &arg);
    return PG_KERNEL_OK;
}
