/* loss.cu: cross entropy, fused from logits. The formulas stand in cpu/loss.c: a row's target mass is q, its
 * loss sum_c q_c (lse - x_c), its gradient softmax(x)_c sum(q) - q_c.
 *
 * Bound by memory, and in a language model by far the largest tensor there is: forward reads the logits
 * once (4 bytes an element for float32, 2 for halves; maximum and sum of exponentials are found together),
 * backward reads them and writes their gradient once, over them where that is asked, with nothing but the
 * saved lse between. A block takes a row, 16 bytes a load, 2 loads or more under way in each thread: 85 to
 * 95 % of copy bandwidth is what to expect where rows begin at multiples of 16 bytes, as those of GPT-2's
 * 50,257 classes do when they lie 50,304 apart; one thread takes what is left of a row's last 16 bytes an
 * element at a time. Where rows begin elsewhere all elements are read one by one. Label smoothing and target
 * probabilities read the row once more, from the L2 cache.
 */
#include "rows.h"

template <class T> struct classes {
    typedef compute_t<T> C;
    int64_t rows, n, row_stride;
    const T *logits;
    const int64_t *target;          /* class ids, or NULL: then */
    const T *probabilities;         /* (rows, n) */
    const C *weight;                /* (n), or NULL */
    int64_t ignore_index;
    C smoothing, spread;            /* spread: smoothing / n */
    int64_t *bad;
    const char *op;
    /* forward */
    C *loss, *lse, *row_weight;
    /* backward */
    const C *saved, *grad;
    int64_t grad_stride, dlogits_stride;
    T *dlogits;                     /* may be the logits: a thread writes what it alone has read, after it */
};

template <class T> static __device__ __forceinline__ compute_t<T> weight_of(const classes<T> &a, int64_t i) {
    return a.weight ? a.weight[i] : (compute_t<T>)1;
}
/* q of class i, where it is no target by its id. */
template <class T>
static __device__ __forceinline__ compute_t<T> mass_of(const classes<T> &a, int64_t row, int64_t i) {
    typedef compute_t<T> C;
    const C t =
        a.target ? a.spread : (1 - a.smoothing) * load_as<T>(a.probabilities[row * a.n + i]) + a.spread;
    return weight_of(a, i) * t;
}
/* The target's id; -1 where the row is to be ignored, or its target is reported as none. */
template <class T> static __device__ __forceinline__ int64_t target_of(const classes<T> &a, int64_t row) {
    const int64_t target = a.target[row];
    return target == a.ignore_index ? -1 : resolve(target, a.n, false, a.bad, a.op);
}

/* take_steps and give_steps (rows.h) of a row of any n: its last pack may be a part of one. */
template <int N, int P, class T>
static __device__ __forceinline__ void take_row(const T *row, int64_t n, int64_t at, int64_t step,
                                                compute_t<T> fill, compute_t<T> *to) {
    const int64_t whole = n - n % P;
    take_steps<N, P>(row, whole, at, step, fill, to);
    if (P > 1 && whole < n) {
#pragma unroll
        for (int s = 0; s < N / P; s++) {
            if (at + s * step != whole) continue;
#pragma unroll
            for (int i = 0; i < P; i++)
                if (whole + i < n) to[s * P + i] = load_as<T>(row[whole + i]);
        }
    }
}
template <int N, int P, class T>
static __device__ __forceinline__ void give_row(T *row, int64_t n, int64_t at, int64_t step,
                                                const compute_t<T> *from) {
    const int64_t whole = n - n % P;
    give_steps<N, P>(row, whole, at, step, from);
    if (P > 1 && whole < n) {
#pragma unroll
        for (int s = 0; s < N / P; s++) {
            if (at + s * step != whole) continue;
#pragma unroll
            for (int i = 0; i < P; i++)
                if (whole + i < n) row[whole + i] = store_as<T>(from[s * P + i]);
        }
    }
}

/* Values a thread and step: two loads at least. */
template <int P> struct chunk { static const int N = P > 4 ? 2 * P : 8; };

template <class T, int P, bool WIDE>
ROWS_KERNEL loss_forward(classes<T> a) {
    typedef compute_t<T> C;
    enum { CHUNK = chunk<P>::N };
    TEAM_OF_ROW(WIDE);
    if (row >= a.rows) return;
    const int64_t n = a.n, step = (int64_t)threads * P;
    const T *logits = a.logits + row * a.row_stride;
    C x[CHUNK];
    exponentials<C> e = {lowest<C>(), 0};
    for (int64_t at = (int64_t)thread * P; at < n; at += CHUNK / P * step) {
        take_row<CHUNK, P>(logits, n, at, step, lowest<C>(), x);
        add_terms<CHUNK>(&e, x);
    }
    e = team_join<WIDE>(e);
    const C lse = shift_of(e.top) + log_of(e.sum);
    C loss = 0, row_weight = 1;
    if (a.target) {
        const int64_t target = target_of(a, row);
        row_weight = target < 0 ? (C)0 : weight_of(a, target);
        if (target >= 0) loss = (1 - a.smoothing) * row_weight * (lse - load_as<T>(logits[target]));
        if (target >= 0 && a.smoothing != 0) {
            C rest = 0;
            for (int64_t i = thread; i < n; i += threads)
                rest += weight_of(a, i) * (lse - load_as<T>(logits[i]));
            loss += a.spread * team_sum<WIDE>(rest);
        }
    } else {
        for (int64_t i = thread; i < n; i += threads) {
            const C q = mass_of(a, row, i);
            loss += q != 0 ? q * (lse - load_as<T>(logits[i])) : (C)0;
        }
        loss = team_sum<WIDE>(loss);
    }
    if (thread) return;
    a.loss[row] = loss;
    a.lse[row] = lse;
    a.row_weight[row] = row_weight;
}

template <class T, int P, bool WIDE>
ROWS_KERNEL loss_backward(classes<T> a) {
    typedef compute_t<T> C;
    enum { CHUNK = chunk<P>::N };
    TEAM_OF_ROW(WIDE);
    if (row >= a.rows) return;
    const int64_t n = a.n, step = (int64_t)threads * P, target = a.target ? target_of(a, row) : -1;
    const T *logits = a.logits + row * a.row_stride;
    T *dlogits = a.dlogits + row * a.dlogits_stride;
    const C lse = a.saved[row], grad = a.grad[row * a.grad_stride];
    const bool none = a.target && target < 0, plain = a.target && a.smoothing == 0;
    C scale = grad, own = 0;   /* of the exponentials; what the target's class gets beside */
    if (plain) {
        scale = own = none ? (C)0 : grad * weight_of(a, target);
    } else if (!none) {
        C mass = 0;
        for (int64_t i = thread; i < n; i += threads) mass += mass_of(a, row, i);
        scale = team_sum<WIDE>(mass);
        if (target >= 0) {
            const C share = (1 - a.smoothing) * weight_of(a, target);
            scale += share;
            own = grad * share;
        }
    }
    C x[CHUNK];
    for (int64_t at = (int64_t)thread * P; at < n; at += CHUNK / P * step) {
        take_row<CHUNK, P>(logits, n, at, step, (C)0, x);
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            const int64_t column = at + i / P * step + i % P;
            C d = 0;
            if (plain && !none) d = scale * exp_of(x[i] - lse);
            else if (!none && column < n) d = grad * (exp_of(x[i] - lse) * scale - mass_of(a, row, column));
            x[i] = column == target ? d - own : d;
        }
        give_row<CHUNK, P>(dlogits, n, at, step, x);
    }
}

template <class T> static classes<T> classes_of(const pg_context *c, const pg_classifier *k) {
    typedef compute_t<T> C;
    classes<T> a = {};
    a.rows = k->rows, a.n = k->classes, a.row_stride = k->row_stride;
    a.logits = (const T *)k->logits;
    a.target = k->target;
    a.probabilities = (const T *)k->probabilities;
    a.weight = (const C *)k->weight;
    a.ignore_index = k->ignore_index;
    a.smoothing = (C)k->label_smoothing;
    a.spread = a.smoothing / (C)k->classes;
    a.bad = c->bad_index, a.op = c->op;
    return a;
}

/* A warp for short rows, else a block. */
#define LAUNCH_CLASSES(KERNEL, packs)                                                                                    \
    do {                                                                                                                 \
        enum { P = packed<T>::N };                                                                                       \
        const unsigned by_warp = blocks_for(a.rows, TEAM_WARPS, INT64_MAX), by_block = (unsigned)a.rows;                 \
        const int team = team_size(a.n, 8, TEAM_MOST);                                                               \
        if ((packs) && a.n <= 2 * SHORT_ROW) PG_LAUNCH((KERNEL<T, P, false>), by_warp, TEAM_WARPS * WARP, 0, c, a);      \
        else if (packs) PG_LAUNCH((KERNEL<T, P, true>), by_block, team, 0, c, a);                                        \
        else if (a.n <= 2 * SHORT_ROW) PG_LAUNCH((KERNEL<T, 1, false>), by_warp, TEAM_WARPS * WARP, 0, c, a);            \
        else PG_LAUNCH((KERNEL<T, 1, true>), by_block, team, 0, c, a);                                                   \
        return launched();                                                                                               \
    } while (0)

extern "C" int PG_K(cross_entropy)(const pg_context *c, int dtype, const pg_classifier *k, void *loss,
                                   void *lse, void *row_weight) {
    if (k->rows <= 0) return PG_KERNEL_OK;
    PG_FOR_FLOATS(dtype, {
        classes<T> a = classes_of<T>(c, k);
        a.loss = (compute_t<T> *)loss, a.lse = (compute_t<T> *)lse, a.row_weight = (compute_t<T> *)row_weight;
        LAUNCH_CLASSES(loss_forward, a.row_stride % P == 0 && aligned16(a.logits));
    })
}

extern "C" int PG_K(cross_entropy_backward)(const pg_context *c, int dtype, const pg_classifier *k,
                                            const void *lse, const void *grad_rows, int64_t grad_stride,
                                            void *dlogits, int64_t dlogits_stride) {
    if (k->rows <= 0) return PG_KERNEL_OK;
    PG_FOR_FLOATS(dtype, {
        classes<T> a = classes_of<T>(c, k);
        a.saved = (const compute_t<T> *)lse, a.grad = (const compute_t<T> *)grad_rows,
        a.grad_stride = grad_stride;
        a.dlogits = (T *)dlogits, a.dlogits_stride = dlogits_stride;
        LAUNCH_CLASSES(loss_backward, a.row_stride % P == 0 && dlogits_stride % P == 0 &&
                                          aligned16(a.logits) && aligned16(dlogits));
    })
}
