/* optim.c: optimizer steps and gradient norms over many tensors in one pass.
 *
 * The tensors are cut into blocks of at most BLOCK elements; blocks, not tensors, are shared out, so one large
 * matrix among many small vectors keeps every worker busy. A block never spans two tensors and its borders depend
 * on sizes alone: each element is computed alone, and the norm adds per-block sums in block order, so the bits do
 * not depend on the number of threads.
 *
 * Half types are computed in float32, part of a block by part, and rounded once a step. */
#include <math.h>

#include "cpu.h"
#include "halves.h"

enum { BLOCK = 4096, LANES = 16, PART = 512 };   /* PART: of a block, what halves are widened at once */

static bool is_float(int dtype) { return dtype == PG_K_FLOAT32 || dtype == PG_K_FLOAT64 || is_half(dtype); }

typedef struct plan {
    const pg_parameters *p;
    const int64_t *first;   /* count + 1: number of blocks before tensor k */
    int64_t blocks;
} plan;

/* Block starts per tensor, in scratch. Answers a kernel status. */
static int plan_make(const pg_context *c, const pg_parameters *p, plan *out) {
    int64_t *first = c->scratch(c, ((size_t)p->count + 1) * sizeof *first);
    if (!first) return PG_KERNEL_NO_SCRATCH;
    first[0] = 0;
    for (int k = 0; k < p->count; k++) first[k + 1] = first[k] + (p->sizes[k] + BLOCK - 1) / BLOCK;
    *out = (plan){p, first, first[p->count]};
    return PG_KERNEL_OK;
}

/* The tensor that holds a block: the last k with first[k] <= block (one without elements has no blocks). */
static int plan_tensor(const plan *w, int64_t block) {
    int low = 0, high = w->p->count;
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (w->first[middle] <= block) low = middle;
        else high = middle;
    }
    return low;
}

/* Where a block lies: its tensor, its first element, and how many there are. */
static int plan_block(const plan *w, int64_t block, int *tensor, int64_t *n) {
    while (block >= w->first[*tensor + 1]) (*tensor)++;
    int64_t start = (block - w->first[*tensor]) * BLOCK, rest = w->p->sizes[*tensor] - start;
    *n = rest < BLOCK ? rest : BLOCK;
    return (int)(block - w->first[*tensor]);
}

/* ---- Adam and AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019) ---- */

typedef struct adam_work {
    plan w;
    double beta1, beta2, eps, decay, step_size, correction2, shrink;   /* correction2: 1 / sqrt(1 - beta2^t) */
    bool amsgrad, maximize;
    int dtype;
} adam_work;

/* m, v, vmax: first moment, second moment, its running maximum (amsgrad; else NULL). */
#define ADAM_BLOCK(NAME, T, SQRT)                                                                            \
    static inline void NAME(const adam_work *a, int64_t n, T *restrict p, const T *restrict grad,            \
                            T *restrict m, T *restrict v, T *restrict vmax) {                                \
        const T rate1 = (T)(1 - a->beta1), beta2 = (T)a->beta2, rate2 = (T)(1 - a->beta2), eps = (T)a->eps;  \
        const T decay = (T)a->decay, step_size = (T)a->step_size, correct = (T)a->correction2;               \
        const T shrink = (T)a->shrink, sign = a->maximize ? (T)-1 : (T)1;                                    \
        if (vmax) {                                                                                          \
            for (int64_t i = 0; i < n; i++) {                                                                \
                T g = sign * grad[i] + decay * p[i];                                                         \
                m[i] = m[i] + rate1 * (g - m[i]);                                                            \
                v[i] = beta2 * v[i] + rate2 * g * g;                                                         \
                vmax[i] = v[i] > vmax[i] || v[i] != v[i] ? v[i] : vmax[i];                                   \
                p[i] = shrink * p[i] - step_size * (m[i] / (SQRT(vmax[i]) * correct + eps));                 \
            }                                                                                                \
        } else {                                                                                             \
            for (int64_t i = 0; i < n; i++) {                                                                \
                T g = sign * grad[i] + decay * p[i];                                                         \
                T m1 = m[i] + rate1 * (g - m[i]);                                                            \
                T v1 = beta2 * v[i] + rate2 * g * g;                                                         \
                m[i] = m1;                                                                                   \
                v[i] = v1;                                                                                   \
                p[i] = shrink * p[i] - step_size * (m1 / (SQRT(v1) * correct + eps));                        \
            }                                                                                                \
        }                                                                                                    \
    }
ADAM_BLOCK(adam_block32, float, sqrtf)
ADAM_BLOCK(adam_block64, double, sqrt)

#define AT(T, list, k, at) ((T *)(list)[k] + (at))

#define ADAM_BODY(NAME, T, BLOCK_FN)                                                                         \
    static void NAME(void *arg, int64_t begin, int64_t end, int worker) {                                    \
        (void)worker;                                                                                        \
        const adam_work *a = arg;                                                                            \
        const pg_parameters *p = a->w.p;                                                                     \
        int k = plan_tensor(&a->w, begin);                                                                   \
        for (int64_t b = begin; b < end; b++) {                                                              \
            int64_t n, at = plan_block(&a->w, b, &k, &n) * (int64_t)BLOCK;                                   \
            BLOCK_FN(a, n, AT(T, p->param, k, at), AT(const T, p->grad, k, at), AT(T, p->state1, k, at),     \
                     AT(T, p->state2, k, at), a->amsgrad ? AT(T, p->state3, k, at) : NULL);                  \
        }                                                                                                    \
    }
ADAM_BODY(adam_body32, float, adam_block32)
ADAM_BODY(adam_body64, double, adam_block64)

static void adam_body_half(void *arg, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const adam_work *a = arg;
    const pg_parameters *p = a->w.p;
    float x[5][PART];
    int k = plan_tensor(&a->w, begin);
    for (int64_t b = begin; b < end; b++) {
        int64_t n, at = plan_block(&a->w, b, &k, &n) * (int64_t)BLOCK;
        for (int64_t i = at; i < at + n; i += PART) {
            const int64_t m = at + n - i < PART ? at + n - i : PART;
            widen(a->dtype, m, AT(const uint16_t, p->param, k, i), x[0]);
            widen(a->dtype, m, AT(const uint16_t, p->grad, k, i), x[1]);
            widen(a->dtype, m, AT(const uint16_t, p->state1, k, i), x[2]);
            widen(a->dtype, m, AT(const uint16_t, p->state2, k, i), x[3]);
            if (a->amsgrad) widen(a->dtype, m, AT(const uint16_t, p->state3, k, i), x[4]);
            adam_block32(a, m, x[0], x[1], x[2], x[3], a->amsgrad ? x[4] : NULL);
            narrow(a->dtype, m, x[0], AT(uint16_t, p->param, k, i));
            narrow(a->dtype, m, x[2], AT(uint16_t, p->state1, k, i));
            narrow(a->dtype, m, x[3], AT(uint16_t, p->state2, k, i));
            if (a->amsgrad) narrow(a->dtype, m, x[4], AT(uint16_t, p->state3, k, i));
        }
    }
}

int PG_K(adam)(const pg_context *c, int dtype, const pg_parameters *p, const double *hyper) {
    if (!is_float(dtype)) return PG_KERNEL_UNSUPPORTED;
    const double lr = hyper[0], decay = hyper[4], step = hyper[6];
    const bool decoupled = hyper[5] != 0;
    adam_work a = {
        .beta1 = hyper[1], .beta2 = hyper[2], .eps = hyper[3],
        .decay = decoupled ? 0 : decay, .shrink = decoupled ? 1 - lr * decay : 1,
        .step_size = lr / (1 - pow(hyper[1], step)), .correction2 = 1 / sqrt(1 - pow(hyper[2], step)),
        .amsgrad = hyper[7] != 0, .maximize = hyper[8] != 0, .dtype = dtype,
    };
    int status = plan_make(c, p, &a.w);
    if (status) return status;
    parallel(c, a.w.blocks, 4, is_half(dtype) ? adam_body_half : dtype == PG_K_FLOAT32 ? adam_body32 : adam_body64, &a);
    return PG_KERNEL_OK;
}

/* ---- SGD, with PyTorch's momentum: the learning rate stands outside of the buffer ---- */

typedef struct sgd_work {
    plan w;
    double lr, momentum, rate, decay;
    bool nesterov, maximize, first;
    int dtype;
} sgd_work;

#define SGD_BLOCK(NAME, T)                                                                                   \
    static inline void NAME(const sgd_work *s, int64_t n, T *restrict p, const T *restrict grad,             \
                            T *restrict buffer) {                                                            \
        const T lr = (T)s->lr, momentum = (T)s->momentum, rate = (T)s->rate, decay = (T)s->decay;            \
        const T sign = s->maximize ? (T)-1 : (T)1;                                                           \
        if (!buffer) {                                                                                       \
            for (int64_t i = 0; i < n; i++) p[i] -= lr * (sign * grad[i] + decay * p[i]);                    \
        } else if (s->first) {                                                                               \
            const T again = s->nesterov ? momentum : (T)0;                                                   \
            for (int64_t i = 0; i < n; i++) {                                                                \
                T g = sign * grad[i] + decay * p[i];                                                         \
                buffer[i] = g;                                                                               \
                p[i] -= s->nesterov ? lr * (g + again * g) : lr * g;                                         \
            }                                                                                                \
        } else {                                                                                             \
            for (int64_t i = 0; i < n; i++) {                                                                \
                T g = sign * grad[i] + decay * p[i];                                                         \
                T m = momentum * buffer[i] + rate * g;                                                       \
                buffer[i] = m;                                                                               \
                p[i] -= lr * (s->nesterov ? g + momentum * m : m);                                           \
            }                                                                                                \
        }                                                                                                    \
    }
SGD_BLOCK(sgd_block32, float)
SGD_BLOCK(sgd_block64, double)

#define SGD_BODY(NAME, T, BLOCK_FN)                                                                          \
    static void NAME(void *arg, int64_t begin, int64_t end, int worker) {                                    \
        (void)worker;                                                                                        \
        const sgd_work *s = arg;                                                                             \
        const pg_parameters *p = s->w.p;                                                                     \
        int k = plan_tensor(&s->w, begin);                                                                   \
        for (int64_t b = begin; b < end; b++) {                                                              \
            int64_t n, at = plan_block(&s->w, b, &k, &n) * (int64_t)BLOCK;                                   \
            BLOCK_FN(s, n, AT(T, p->param, k, at), AT(const T, p->grad, k, at),                              \
                     s->momentum != 0 ? AT(T, p->state1, k, at) : NULL);                                     \
        }                                                                                                    \
    }
SGD_BODY(sgd_body32, float, sgd_block32)
SGD_BODY(sgd_body64, double, sgd_block64)

static void sgd_body_half(void *arg, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const sgd_work *s = arg;
    const pg_parameters *p = s->w.p;
    float x[3][PART];
    int k = plan_tensor(&s->w, begin);
    for (int64_t b = begin; b < end; b++) {
        int64_t n, at = plan_block(&s->w, b, &k, &n) * (int64_t)BLOCK;
        for (int64_t i = at; i < at + n; i += PART) {
            const int64_t m = at + n - i < PART ? at + n - i : PART;
            widen(s->dtype, m, AT(const uint16_t, p->param, k, i), x[0]);
            widen(s->dtype, m, AT(const uint16_t, p->grad, k, i), x[1]);
            if (s->momentum != 0 && !s->first) widen(s->dtype, m, AT(const uint16_t, p->state1, k, i), x[2]);
            sgd_block32(s, m, x[0], x[1], s->momentum != 0 ? x[2] : NULL);
            narrow(s->dtype, m, x[0], AT(uint16_t, p->param, k, i));
            if (s->momentum != 0) narrow(s->dtype, m, x[2], AT(uint16_t, p->state1, k, i));
        }
    }
}

int PG_K(sgd)(const pg_context *c, int dtype, const pg_parameters *p, const double *hyper) {
    if (!is_float(dtype)) return PG_KERNEL_UNSUPPORTED;
    sgd_work s = {
        .lr = hyper[0], .momentum = hyper[1], .rate = 1 - hyper[2], .decay = hyper[3],
        .nesterov = hyper[4] != 0, .maximize = hyper[5] != 0, .first = hyper[6] != 0,
        .dtype = dtype,
    };
    int status = plan_make(c, p, &s.w);
    if (status) return status;
    parallel(c, s.w.blocks, 4, is_half(dtype) ? sgd_body_half : dtype == PG_K_FLOAT32 ? sgd_body32 : sgd_body64, &s);
    return PG_KERNEL_OK;
}

/* ---- the norm over all gradients, and scaling by it ---- */

typedef struct norm_work {
    plan w;
    double order, *partial;   /* a partial a block */
    int dtype;
} norm_work;

/* Sum of |x|^order (maximum of |x| for infinity) of a block, in LANES sums added in a fixed order. NaN stays. */
#define NORM_BLOCK(NAME, T)                                                                                  \
    static inline double NAME(double order, int64_t n, const T *restrict x) {                                \
        double lane[LANES] = {0}, sum = 0;                                                                   \
        int64_t i = 0;                                                                                       \
        if (order == 2) {                                                                                    \
            for (; i + LANES <= n; i += LANES)                                                               \
                for (int l = 0; l < LANES; l++) lane[l] += (double)x[i + l] * (double)x[i + l];              \
            for (; i < n; i++) sum += (double)x[i] * (double)x[i];                                           \
        } else if (order == 1) {                                                                             \
            for (; i + LANES <= n; i += LANES)                                                               \
                for (int l = 0; l < LANES; l++) lane[l] += fabs((double)x[i + l]);                           \
            for (; i < n; i++) sum += fabs((double)x[i]);                                                    \
        } else if (order == HUGE_VAL) {                                                                      \
            for (; i < n; i++) {                                                                             \
                double a = fabs((double)x[i]);                                                               \
                if (a > sum || a != a) sum = a;                                                              \
                if (sum != sum) return sum;                                                                  \
            }                                                                                                \
            return sum;                                                                                      \
        } else {                                                                                             \
            for (; i < n; i++) sum += pow(fabs((double)x[i]), order);                                        \
        }                                                                                                    \
        for (int l = 0; l < LANES; l++) sum += lane[l];                                                      \
        return sum;                                                                                          \
    }
NORM_BLOCK(norm_block32, float)
NORM_BLOCK(norm_block64, double)

#define NORM_BODY(NAME, T, BLOCK_FN)                                                                         \
    static void NAME(void *arg, int64_t begin, int64_t end, int worker) {                                    \
        (void)worker;                                                                                        \
        const norm_work *q = arg;                                                                            \
        int k = plan_tensor(&q->w, begin);                                                                   \
        for (int64_t b = begin; b < end; b++) {                                                              \
            int64_t n, at = plan_block(&q->w, b, &k, &n) * (int64_t)BLOCK;                                   \
            q->partial[b] = BLOCK_FN(q->order, n, AT(const T, q->w.p->grad, k, at));                         \
        }                                                                                                    \
    }
NORM_BODY(norm_body32, float, norm_block32)
NORM_BODY(norm_body64, double, norm_block64)

static void norm_body_half(void *arg, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const norm_work *q = arg;
    float x[BLOCK];
    int k = plan_tensor(&q->w, begin);
    for (int64_t b = begin; b < end; b++) {
        int64_t n, at = plan_block(&q->w, b, &k, &n) * (int64_t)BLOCK;
        widen(q->dtype, n, AT(const uint16_t, q->w.p->grad, k, at), x);
        q->partial[b] = norm_block32(q->order, n, x);
    }
}

int PG_K(total_norm)(const pg_context *c, int dtype, const pg_parameters *p, double order, double *out) {
    if (!is_float(dtype)) return PG_KERNEL_UNSUPPORTED;
    norm_work q = {.order = order, .dtype = dtype};
    int status = plan_make(c, p, &q.w);
    if (status) return status;
    q.partial = c->scratch(c, (size_t)(q.w.blocks + 1) * sizeof *q.partial);
    if (!q.partial) return PG_KERNEL_NO_SCRATCH;
    parallel(c, q.w.blocks, 8, is_half(dtype) ? norm_body_half : dtype == PG_K_FLOAT32 ? norm_body32 : norm_body64, &q);
    double total = 0;
    for (int64_t b = 0; b < q.w.blocks; b++) {
        if (order != HUGE_VAL) total += q.partial[b];
        else if (q.partial[b] > total || q.partial[b] != q.partial[b]) total = q.partial[b];
        if (order == HUGE_VAL && total != total) break;
    }
    *out = order == 2 ? sqrt(total) : order == 1 || order == HUGE_VAL ? total : pow(total, 1 / order);
    return PG_KERNEL_OK;
}

typedef struct scale_work {
    plan w;
    double by;
    int dtype;
} scale_work;

#define SCALE_BODY(NAME, T)                                                                                  \
    static void NAME(void *arg, int64_t begin, int64_t end, int worker) {                                    \
        (void)worker;                                                                                        \
        const scale_work *s = arg;                                                                           \
        const T by = (T)s->by;                                                                               \
        int k = plan_tensor(&s->w, begin);                                                                   \
        for (int64_t b = begin; b < end; b++) {                                                              \
            int64_t n, at = plan_block(&s->w, b, &k, &n) * (int64_t)BLOCK;                                   \
            T *x = AT(T, s->w.p->param, k, at);                                                              \
            for (int64_t i = 0; i < n; i++) x[i] *= by;                                                      \
        }                                                                                                    \
    }
SCALE_BODY(scale_body32, float)
SCALE_BODY(scale_body64, double)

static void scale_body_half(void *arg, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const scale_work *s = arg;
    float wide[BLOCK];
    int k = plan_tensor(&s->w, begin);
    for (int64_t b = begin; b < end; b++) {
        int64_t n, at = plan_block(&s->w, b, &k, &n) * (int64_t)BLOCK;
        uint16_t *x = AT(uint16_t, s->w.p->param, k, at);
        widen(s->dtype, n, x, wide);
        for (int64_t i = 0; i < n; i++) wide[i] *= (float)s->by;
        narrow(s->dtype, n, wide, x);
    }
}

int PG_K(clip_scale)(const pg_context *c, int dtype, const pg_parameters *p, double max_norm, const double *norm) {
    if (!is_float(dtype)) return PG_KERNEL_UNSUPPORTED;
    scale_work s = {.by = max_norm / (*norm + 1e-6), .dtype = dtype};
    if (s.by >= 1) return PG_KERNEL_OK;   /* a NaN norm makes the gradients NaN, as it should */
    int status = plan_make(c, p, &s.w);
    if (status) return status;
    parallel(c, s.w.blocks, 8, is_half(dtype) ? scale_body_half : dtype == PG_K_FLOAT32 ? scale_body32 : scale_body64, &s);
    return PG_KERNEL_OK;
}

/* ---- unscale: what a gradient scaler does before a step ---- */

typedef struct unscale_work {
    plan w;
    int dtype;
    float by;
    char *bad;     /* by block */
} unscale_work;

#define UNSCALE(T)                                                                                           \
    do {                                                                                                     \
        T *x = AT(T, u->w.p->param, k, at);                                                                  \
        const T by = (T)u->by;                                                                               \
        T sum = 0;                                                                                           \
        for (int64_t i = 0; i < n; i++) sum += x[i] * 0, x[i] *= by;                                         \
        bad = sum != 0;                                                                                      \
    } while (0)

static void unscale_body(void *arg, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const unscale_work *u = arg;
    int k = plan_tensor(&u->w, begin);
    float wide[BLOCK];
    for (int64_t b = begin; b < end; b++) {
        int64_t n, at = plan_block(&u->w, b, &k, &n) * (int64_t)BLOCK;
        bool bad;
        /* 0 * x is 0 where x is finite, NaN where not */
        if (u->dtype == PG_K_FLOAT32) {
            UNSCALE(float);
        } else if (u->dtype == PG_K_FLOAT64) {
            UNSCALE(double);
        } else {
            uint16_t *x = AT(uint16_t, u->w.p->param, k, at);
            float sum = 0;
            widen(u->dtype, n, x, wide);
            for (int64_t i = 0; i < n; i++) sum += wide[i] * 0, wide[i] *= u->by;
            narrow(u->dtype, n, wide, x);
            bad = sum != 0;
        }
        u->bad[b] = bad;
    }
}

int PG_K(unscale)(const pg_context *c, int dtype, const pg_parameters *p, const float *inverse, float *found) {
    if (!is_float(dtype)) return PG_KERNEL_UNSUPPORTED;
    unscale_work u = {.dtype = dtype, .by = *inverse};
    int status = plan_make(c, p, &u.w);
    if (status) return status;
    if (!(u.bad = c->scratch(c, (size_t)(u.w.blocks + 1)))) return PG_KERNEL_NO_SCRATCH;
    parallel(c, u.w.blocks, 8, unscale_body, &u);
    for (int64_t b = 0; b < u.w.blocks; b++)
        if (u.bad[b]) *found = 1;
    return PG_KERNEL_OK;
}
