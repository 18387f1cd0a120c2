/* attention.c: softmax(scale * q k^T + mask) v by blocks (Dao et al. 2022, "FlashAttention"; 2023, "FlashAttention-2"): scores exist
 * for one block of queries against one block of keys, with a running maximum and sum for each query. Blocks that the causal rule
 * hides are skipped. Backward makes the scores again from the saved log of the sums.
 *
 * A query without any key (all masked) gives zeros, as PyTorch's does; its lse is +inf, so that backward's exp(s - lse) is 0.
 */
#ifndef T

#include "../philox.h"
#include "gemm.h"
#include "rows.h"

enum {
    QUERIES = 32,   /* a block of queries */
    KEYS = 128,     /* a block of keys; both are part of the numbers */
    GROUP = 512     /* queries that share the packing of a block of keys */
};

typedef struct attention_arg {
    const pg_context *context;
    const pg_attention *a;
    void *scratch, *delta;
    size_t scratch_each;      /* bytes */
    int64_t groups;           /* items for each (batch, head) */
    bool keys, queries;       /* backward: which gradients an item makes */
} attention_arg;

#define BODY "attention.c"
#include "each_float.h"

int PG_K(attention)(const pg_context *context, int dtype, const pg_attention *a) {
    switch (dtype) {
    case PG_K_FLOAT32: return attention_f32(context, a);
    case PG_K_FLOAT64: return attention_f64(context, a);
    default: return PG_KERNEL_UNSUPPORTED;
    }
}

int PG_K(attention_backward)(const pg_context *context, int dtype, const pg_attention *a) {
    switch (dtype) {
    case PG_K_FLOAT32: return attention_backward_f32(context, a);
    case PG_K_FLOAT64: return attention_backward_f64(context, a);
    default: return PG_KERNEL_UNSUPPORTED;
    }
}

#else

#define LEAST(a, b) ((a) < (b) ? (a) : (b))

/* Rounded up, so that what follows stays aligned and packing may write a little further. */
static size_t F(room)(int64_t elements) { return (size_t)(elements + F(NR) + 31) / 16 * 16; }
static int64_t F(wide)(int64_t n) { return (n + F(NR) - 1) / F(NR) * F(NR); }

/* Multiplies a row of weights, the keys from k0 on of query i, by what dropout makes of each: 0 or 1 / (1 - p). */
static void F(drop)(const pg_attention *a, int64_t batch, int64_t head, int64_t i, int64_t k0, int64_t n, T *weights) {
    const uint64_t first = (uint64_t)(((batch * a->heads + head) * a->q_len + i) * a->k_len + k0);
    const uint64_t threshold = pg_threshold(a->dropout_p);
    const T keep = (T)(a->dropout_p < 1 ? 1 / (1 - a->dropout_p) : 0);
    uint32_t word[4];
    for (int64_t j = 0; j < n; j++) {
        const uint64_t index = first + (uint64_t)j;
        if (j == 0 || index % 4 == 0)
            pg_philox_words(a->philox->seed, a->philox->offset + index / 4, &word[0], &word[1], &word[2], &word[3]);
        weights[j] *= word[index % 4] < threshold ? 0 : keep;
    }
}

/* Scores of `rows` queries from r0 on against n packed keys from k0 on, mask added: s (rows, n), KEYS apart. */
static void F(scores)(const pg_attention *a, int64_t batch, int64_t head, int64_t r0, int64_t rows, int64_t k0, int64_t n,
                      const T *packed, T *s) {
    const T *q = (const T *)a->q + batch * a->q_stride[0] + head * a->q_stride[1] + r0 * a->q_stride[2];
    F(panels)(rows, n, a->size, q, a->q_stride[2], 1, packed, a->size, F(NR), s, KEYS, (T)a->scale, 0, NULL, NULL, 0, 0);
    if (!a->mask) return;
    const T *mask = (const T *)a->mask + batch * a->mask_stride[0] + head * a->mask_stride[1];
    const int64_t step = a->mask_stride[3];
    for (int64_t i = 0; i < rows; i++) {
        const T *m = mask + (r0 + i) * a->mask_stride[2] + k0 * step;
        for (int64_t j = 0; j < n; j++) s[i * KEYS + j] += m[j * step];
    }
}
/* Whole vectors: rows of scores are worked on up to here, -inf beyond what is seen. */
static int64_t F(padded)(int64_t n) { return (n + 15) / 16 * 16; }
/* How many of n keys from k0 on query i sees. */
static int64_t F(seen)(const pg_attention *a, int64_t i, int64_t k0, int64_t n) {
    if (!a->causal) return n;
    const int64_t last = i + 1 - k0;
    return last < 0 ? 0 : LEAST(last, n);
}

static size_t F(forward_scratch)(const pg_attention *a) {
    return F(room)(F(wide)(KEYS) * a->size) + F(room)(KEYS * F(wide)(a->v_size)) + F(room)(QUERIES * KEYS) +
           F(room)(GROUP * a->v_size) + 2 * F(room)(GROUP);
}

static void F(forward_group)(const pg_attention *a, int64_t batch, int64_t head, int64_t q0, int64_t rows, T *scratch) {
    const int64_t size = a->size, v_size = a->v_size, kv = head / (a->heads / a->kv_heads);
    const T *k = (const T *)a->k + batch * a->k_stride[0] + kv * a->k_stride[1];
    const T *v = (const T *)a->v + batch * a->v_stride[0] + kv * a->v_stride[1];
    T *packed_k = scratch, *packed_v = packed_k + F(room)(F(wide)(KEYS) * size);
    T *s = packed_v + F(room)(KEYS * F(wide)(v_size)), *sums = s + F(room)(QUERIES * KEYS);
    T *top = sums + F(room)(GROUP * v_size), *total = top + F(room)(GROUP);
    for (int64_t i = 0; i < rows; i++) top[i] = (T)-INFINITY, total[i] = 0;
    if (a->k_len == 0) memset(sums, 0, (size_t)(rows * v_size) * sizeof(T));
    for (int64_t k0 = 0; k0 < a->k_len && !(a->causal && k0 >= q0 + rows); k0 += KEYS) {
        const int64_t keys = LEAST(KEYS, a->k_len - k0);
        F(pack_b)(k + k0 * a->k_stride[2], 1, a->k_stride[2], size, keys, packed_k);
        F(pack_b)(v + k0 * a->v_stride[2], a->v_stride[2], 1, keys, v_size, packed_v);
        for (int64_t r = 0; r < rows; r += QUERIES) {
            const int64_t r0 = q0 + r, m = LEAST(QUERIES, rows - r), n = F(seen)(a, r0 + m - 1, k0, keys);
            if (n == 0) continue;
            F(scores)(a, batch, head, r0, m, k0, n, packed_k, s);
            const int64_t width = F(padded)(n);
            for (int64_t i = 0; i < m; i++) {
                T *row = s + i * KEYS, *sum = sums + (r + i) * v_size;
                const int64_t seen = F(seen)(a, r0 + i, k0, n);
                for (int64_t j = seen; j < width; j++) row[j] = (T)-INFINITY;
                const T here = F(row_max)(width, row), old = top[r + i], high = here > old ? here : old;
                const T shift = high == (T)-INFINITY ? 0 : high, factor = k0 > 0 ? F(exp)(old - shift) : 0;
                F(row_exp)(width, row, shift, row);
                total[r + i] = total[r + i] * factor + F(row_sum)(width, row);
                top[r + i] = high;
                if (a->dropout_p > 0) F(drop)(a, batch, head, r0 + i, k0, seen, row);
                if (k0 > 0 && factor != 1)
                    for (int64_t d = 0; d < v_size; d++) sum[d] *= factor;
            }
            F(panels)(m, v_size, n, s, KEYS, 1, packed_v, keys, F(NR), sums + r * v_size, v_size, 1, k0 > 0, NULL, NULL, 0, 0);
        }
    }
    T *out = (T *)a->out + batch * a->out_stride[0] + head * a->out_stride[1];
    if (a->lse) {
        T *lse = (T *)a->lse + (batch * a->heads + head) * a->q_len + q0;
        for (int64_t i = 0; i < rows; i++) lse[i] = total[i] == 0 ? (T)INFINITY : top[i] + F(log)(total[i]);
    }
    for (int64_t i = 0; i < rows; i++) {
        T *to = out + (q0 + i) * a->out_stride[2];
        const T *sum = sums + i * v_size;
        const T inverse = total[i] == 0 ? 0 : 1 / total[i];
        for (int64_t d = 0; d < v_size; d++) to[d] = sum[d] * inverse;
    }
}
static void F(forward_items)(void *arg, int64_t begin, int64_t end, int worker) {
    const attention_arg *t = arg;
    const pg_attention *a = t->a;
    T *scratch = (T *)((char *)t->scratch + (size_t)worker * t->scratch_each);
    for (int64_t item = begin; item < end; item++) {
        if (*t->context->interrupt) return;
        const int64_t q0 = item % t->groups * GROUP, head = item / t->groups % a->heads, batch = item / t->groups / a->heads;
        F(forward_group)(a, batch, head, q0, LEAST(GROUP, a->q_len - q0), scratch);
    }
}

static int F(attention)(const pg_context *context, const pg_attention *a) {
    attention_arg arg = {.context = context, .a = a, .scratch_each = F(forward_scratch)(a) * sizeof(T)};
    arg.groups = (a->q_len + GROUP - 1) / GROUP;
    const int64_t items = a->batch * a->heads * arg.groups;
    if (items <= 0) return PG_KERNEL_OK;
    arg.scratch = context->scratch(context, arg.scratch_each * (size_t)context->threads);
    if (!arg.scratch) return PG_KERNEL_NO_SCRATCH;
    const double work = (double)LEAST(GROUP, a->q_len) * (double)(a->k_len + 1) * (double)(a->size + a->v_size + 8);
    parallel(context, items, work > 131072 ? 1 : (int64_t)(131072 / work), F(forward_items), &arg);
    return *context->interrupt ? PG_KERNEL_INTERRUPTED : PG_KERNEL_OK;
}

/* ---- backward ---- */

/* delta[row] = dot(grad_out, out): what softmax's gradient subtracts. */
static void F(deltas)(void *arg, int64_t begin, int64_t end, int worker) {
    const attention_arg *t = arg;
    const pg_attention *a = t->a;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const int64_t i = r % a->q_len, head = r / a->q_len % a->heads, batch = r / a->q_len / a->heads;
        const T *o = (const T *)a->out + batch * a->out_stride[0] + head * a->out_stride[1] + i * a->out_stride[2];
        const T *g = (const T *)a->grad_out + batch * a->grad_out_stride[0] + head * a->grad_out_stride[1] +
                     i * a->grad_out_stride[2];
        ((T *)t->delta)[r] = F(row_dot)(a->v_size, o, g);
    }
}

static size_t F(backward_scratch)(const pg_attention *a) {
    return 2 * F(room)(F(wide)(KEYS) * a->size) + F(room)(KEYS * F(wide)(a->size)) + F(room)(F(wide)(KEYS) * a->v_size) +
           F(room)(QUERIES * F(wide)(a->size)) + F(room)(QUERIES * F(wide)(a->v_size)) + 3 * F(room)(QUERIES * KEYS);
}

/* Gradients that flow between the heads [h0, h1) of one key-value head, queries [q0, q1) and keys [k0, k1): those of keys and
 * values, those of queries, or both. Sums run over heads, then queries, or over keys, in ascending order however the work is
 * dealt. */
static void F(backward_part)(const attention_arg *t, int64_t batch, int64_t kv, int64_t h0, int64_t h1, int64_t q0, int64_t q1,
                             int64_t k0, int64_t k1, T *scratch) {
    const pg_attention *a = t->a;
    const int64_t size = a->size, v_size = a->v_size;
    const T *k = (const T *)a->k + batch * a->k_stride[0] + kv * a->k_stride[1];
    const T *v = (const T *)a->v + batch * a->v_stride[0] + kv * a->v_stride[1];
    T *k_columns = scratch, *k_rows = k_columns + F(room)(F(wide)(KEYS) * size);
    T *v_columns = k_rows + F(room)(KEYS * F(wide)(size));
    T *q_rows = v_columns + F(room)(F(wide)(KEYS) * v_size), *g_rows = q_rows + F(room)(QUERIES * F(wide)(size));
    T *p = g_rows + F(room)(QUERIES * F(wide)(v_size)), *dp = p + F(room)(QUERIES * KEYS), *dropped = dp + F(room)(QUERIES * KEYS);
    for (int64_t c = k0; c < k1; c += KEYS) {
        const int64_t keys = LEAST(KEYS, k1 - c);
        F(pack_b)(k + c * a->k_stride[2], 1, a->k_stride[2], size, keys, k_columns);
        F(pack_b)(v + c * a->v_stride[2], 1, a->v_stride[2], v_size, keys, v_columns);
        if (t->queries) F(pack_b)(k + c * a->k_stride[2], a->k_stride[2], 1, keys, size, k_rows);
        T *dk = NULL, *dv = NULL;
        if (t->keys) {
            dk = (T *)a->grad_k + batch * a->grad_k_stride[0] + kv * a->grad_k_stride[1] + c * a->grad_k_stride[2];
            dv = (T *)a->grad_v + batch * a->grad_v_stride[0] + kv * a->grad_v_stride[1] + c * a->grad_v_stride[2];
            for (int64_t j = 0; j < keys; j++) {
                memset(dk + j * a->grad_k_stride[2], 0, (size_t)size * sizeof(T));
                memset(dv + j * a->grad_v_stride[2], 0, (size_t)v_size * sizeof(T));
            }
        }
        for (int64_t head = h0; head < h1; head++) {
            const T *q = (const T *)a->q + batch * a->q_stride[0] + head * a->q_stride[1];
            const T *g = (const T *)a->grad_out + batch * a->grad_out_stride[0] + head * a->grad_out_stride[1];
            T *dq = (T *)a->grad_q + batch * a->grad_q_stride[0] + head * a->grad_q_stride[1];
            const T *lse = (const T *)a->lse + (batch * a->heads + head) * a->q_len;
            const T *delta = (const T *)t->delta + (batch * a->heads + head) * a->q_len;
            for (int64_t r = q0; r < q1; r += QUERIES) {
                const int64_t m = LEAST(QUERIES, q1 - r), n = F(seen)(a, r + m - 1, c, keys);
                if (n == 0) continue;
                F(scores)(a, batch, head, r, m, c, n, k_columns, p);
                F(panels)(m, n, v_size, g + r * a->grad_out_stride[2], a->grad_out_stride[2], 1, v_columns, v_size, F(NR), dp,
                          KEYS, 1, 0, NULL, NULL, 0, 0);
                const T *weights = p;
                const int64_t width = F(padded)(n);
                for (int64_t i = 0; i < m; i++) {
                    T *row = p + i * KEYS, *d = dp + i * KEYS;
                    const int64_t seen = F(seen)(a, r + i, c, n);
                    const T minus = delta[r + i];
                    for (int64_t j = seen; j < width; j++) row[j] = (T)-INFINITY;
                    F(row_exp)(width, row, lse[r + i], row);
                    if (a->dropout_p > 0) {
                        T *kept = dropped + i * KEYS;
                        memcpy(kept, row, (size_t)width * sizeof(T));
                        F(drop)(a, batch, head, r + i, c, seen, kept);
                        F(drop)(a, batch, head, r + i, c, seen, d);
                        weights = dropped;
                    }
                    for (int64_t j = 0; j < width; j++) d[j] = row[j] * (d[j] - minus);
                }
                if (t->keys) {
                    F(pack_b)(g + r * a->grad_out_stride[2], a->grad_out_stride[2], 1, m, v_size, g_rows);
                    F(pack_b)(q + r * a->q_stride[2], a->q_stride[2], 1, m, size, q_rows);
                    F(panels)(n, v_size, m, weights, 1, KEYS, g_rows, m, F(NR), dv, a->grad_v_stride[2], 1, 1, NULL, NULL, 0, 0);
                    F(panels)(n, size, m, dp, 1, KEYS, q_rows, m, F(NR), dk, a->grad_k_stride[2], (T)a->scale, 1, NULL, NULL, 0, 0);
                }
                if (t->queries)
                    F(panels)(m, size, n, dp, KEYS, 1, k_rows, keys, F(NR), dq + r * a->grad_q_stride[2], a->grad_q_stride[2],
                              (T)a->scale, c > 0, NULL, NULL, 0, 0);
            }
        }
    }
}
static void F(backward_items)(void *arg, int64_t begin, int64_t end, int worker) {
    const attention_arg *t = arg;
    const pg_attention *a = t->a;
    const int64_t share = a->heads / a->kv_heads;
    T *scratch = (T *)((char *)t->scratch + (size_t)worker * t->scratch_each);
    for (int64_t item = begin; item < end; item++) {
        if (*t->context->interrupt) return;
        const int64_t part = item % t->groups, rest = item / t->groups;
        if (t->keys) {
            const int64_t kv = rest % a->kv_heads, batch = rest / a->kv_heads;
            const int64_t k0 = t->queries ? 0 : part * KEYS, k1 = t->queries ? a->k_len : LEAST(k0 + KEYS, a->k_len);
            F(backward_part)(t, batch, kv, kv * share, (kv + 1) * share, 0, a->q_len, k0, k1, scratch);
        } else {
            const int64_t head = rest % a->heads, batch = rest / a->heads, q0 = part * QUERIES;
            F(backward_part)(t, batch, head / share, head, head + 1, q0, LEAST(q0 + QUERIES, a->q_len), 0, a->k_len, scratch);
        }
    }
}

static int F(attention_backward)(const pg_context *context, const pg_attention *a) {
    attention_arg arg = {.context = context, .a = a, .scratch_each = F(backward_scratch)(a) * sizeof(T), .groups = 1};
    const int64_t rows = a->batch * a->heads * a->q_len;
    const double pair = (double)(3 * a->size + 2 * a->v_size + 16);
    if (a->batch <= 0 || a->heads <= 0) return PG_KERNEL_OK;
    arg.scratch = context->scratch(context, arg.scratch_each * (size_t)context->threads);
    arg.delta = context->scratch(context, (size_t)(rows + 1) * sizeof(T));
    if (!arg.scratch || !arg.delta) return PG_KERNEL_NO_SCRATCH;
    if (a->k_len == 0)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t i = r % a->q_len, head = r / a->q_len % a->heads, batch = r / a->q_len / a->heads;
            memset((T *)a->grad_q + batch * a->grad_q_stride[0] + head * a->grad_q_stride[1] + i * a->grad_q_stride[2], 0,
                   (size_t)a->size * sizeof(T));
        }
    if (rows > 0) parallel(context, rows, 16384 / (a->v_size + 1) + 1, F(deltas), &arg);
    if (a->batch * a->kv_heads >= context->threads) {
        const double work = pair * (double)(a->q_len + 1) * (double)(a->k_len + 1) * (double)(a->heads / a->kv_heads);
        arg.keys = arg.queries = true;
        parallel(context, a->batch * a->kv_heads, work > 131072 ? 1 : (int64_t)(131072 / work), F(backward_items), &arg);
    } else {
        /* Fewer heads than workers: scores are made twice, so that keys and queries can be dealt apart. */
        arg.keys = true;
        arg.groups = (a->k_len + KEYS - 1) / KEYS;
        if (arg.groups > 0) parallel(context, a->batch * a->kv_heads * arg.groups, 1, F(backward_items), &arg);
        arg.keys = false;
        arg.queries = true;
        arg.groups = (a->q_len + QUERIES - 1) / QUERIES;
        if (arg.groups > 0) parallel(context, a->batch * a->heads * arg.groups, 1, F(backward_items), &arg);
    }
    return *context->interrupt ? PG_KERNEL_INTERRUPTED : PG_KERNEL_OK;
}

#undef LEAST

#endif
