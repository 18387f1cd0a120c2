/* deferred.c: pointwise ops put off, and the chains that they make. */
#include "deferred.h"

#include <stdlib.h>
#include <string.h>

typedef struct pg_deferred {
    struct pg_deferred *older, *younger;    /* the thread's list */
    pg_storage *storage;                    /* whose elements wait for this; not owned: freed first, it forgets this */
    pg_operation o;                         /* o.tensor is not used */
    pg_impl *operand[PG_DEFERRED_OPERANDS]; /* owned; or NULL: o.scalar */
    bool taken;                             /* an op that is deferred too has this among its steps */
    int8_t dtype;                           /* of the chain's steps; -1: bools alone */
    uint8_t steps, inputs, registers;       /* what a chain that ends here needs at most */
    int ndim;
    int64_t shape[PG_DIMS_MAX];
} pg_deferred;

/* The list is searched from end to end, and what is deferred keeps its operands' memory. */
enum { DEFERRED_MAX = 32 };
/* On the cpu a pass over fewer bytes stays in its caches, and costs less than a chain's steps by blocks. */
enum { HOST_BYTES = 2 << 20 };

PG_THREAD bool pg_deferring;
static PG_THREAD pg_deferred *oldest, *youngest;
static PG_THREAD int deferred_n, settled_status;

static atomic_bool chains_off;
static atomic_llong chain_kernels, chain_ops;

bool pg_deferring_set(bool on) {
    const bool before = pg_deferring;
    pg_deferring = on && !atomic_load_explicit(&chains_off, memory_order_relaxed);
    return before;
}
void pg_chains_set(bool on) { atomic_store(&chains_off, !on); }
bool pg_chains_enabled(void) { return !atomic_load(&chains_off); }
void pg_chains_count(int64_t *kernels, int64_t *ops) {
    *kernels = atomic_load(&chain_kernels);
    *ops = atomic_load(&chain_ops);
}

/* ---- the list ---- */

static void watch(pg_storage *s) { atomic_fetch_add_explicit(&s->watched, 1, memory_order_relaxed); }
static void unwatch(pg_storage *s) { atomic_fetch_sub_explicit(&s->watched, 1, memory_order_relaxed); }

static void list_add(pg_deferred *d) {
    d->older = youngest;
    d->younger = NULL;
    if (youngest) youngest->younger = d;
    else oldest = d;
    youngest = d;
    deferred_n++;
}

/* Its storage has its elements, or will never need them. What it reads stays. */
static void unlink(pg_deferred *d) {
    if (d->older) d->older->younger = d->younger;
    else oldest = d->younger;
    if (d->younger) d->younger->older = d->older;
    else youngest = d->older;
    deferred_n--;
    d->storage->deferred = NULL;
    unwatch(d->storage);
}

static void discard(pg_deferred *d) {
    for (int k = 0; k < d->o.n; k++) {
        if (!d->operand[k]) continue;
        unwatch(d->operand[k]->storage);
        pg_impl_release(d->operand[k]);
    }
    free(d);
}

/* Frees chains no longer than PG_K_CHAIN_STEPS: that deep it may call itself. */
void pg_deferred_forget(pg_storage *s) {
    pg_deferred *d = s->deferred;
    unlink(d);
    discard(d);
}

/* ---- what fits a chain ---- */

/* The op that computes x, if a step of a chain over `shape` could stand for x. */
static pg_deferred *step_for(const pg_impl *x, int ndim, const int64_t *shape) {
    pg_deferred *d = x->storage->deferred;
    if (!d || !x->contiguous || x->offset != 0 || x->dtype != d->o.result) return NULL;
    if (d->ndim != ndim || x->ndim != ndim) return NULL;
    for (int i = 0; i < ndim; i++)
        if (d->shape[i] != shape[i] || x->shape[i] != shape[i]) return NULL;
    return d;
}

static bool is_logical(int op) {
    return op == PG_K_LOGICAL_AND || op == PG_K_LOGICAL_OR || op == PG_K_LOGICAL_XOR || op == PG_K_LOGICAL_NOT;
}

static bool can_be_step(const pg_impl *out, const pg_operation *o) {
    const pg_device *device = out->storage->device;
    if (o->n > PG_DEFERRED_OPERANDS || !out->contiguous || out->offset != 0 || out->ndim > PG_DIMS_MAX) return false;
    if (!pg_is_float(o->compute) && !(o->compute == PG_BOOL && is_logical(o->op))) return false;
    return !device->host || out->numel * pg_size_of(o->compute) >= HOST_BYTES;
}

/* What a chain needs that ends with d, its deferred operands being steps of it. */
static void measure(pg_deferred *d) {
    int need[PG_DEFERRED_OPERANDS], n = 0, inputs = 0, steps = 1;
    for (int k = 0; k < d->o.n; k++) {
        const pg_deferred *q = d->operand[k] ? d->operand[k]->storage->deferred : NULL;
        bool again = false;
        for (int j = 0; j < k && q; j++) again |= d->operand[j] && d->operand[j]->storage == d->operand[k]->storage;
        if (again) continue;
        inputs += q ? q->inputs : 1;
        steps += q ? q->steps : 0;
        if (!q) continue;
        int at = n++;
        for (; at > 0 && need[at - 1] < q->registers; at--) need[at] = need[at - 1];
        need[at] = q->registers;
    }
    /* operands in the order of their need; then all of them, and the result apart */
    int registers = n + 1;
    for (int i = 0; i < n; i++) registers = need[i] + i > registers ? need[i] + i : registers;
    d->steps = (uint8_t)(steps > UINT8_MAX ? UINT8_MAX : steps);
    d->inputs = (uint8_t)(inputs > UINT8_MAX ? UINT8_MAX : inputs);
    d->registers = (uint8_t)registers;
}
static bool fits(const pg_deferred *d) {
    return d->steps <= PG_K_CHAIN_STEPS && d->inputs < PG_K_OPERANDS && d->registers <= PG_K_CHAIN_REGISTERS;
}

/* ---- computing ---- */

typedef struct chain_build {
    pg_chain chain;
    pg_strided space;
    const pg_impl *impl[PG_K_OPERANDS];     /* of the space's operands from 1 on; NULL: a constant */
    uint32_t taken;                         /* registers in use */
} chain_build;

/* Memory as it is. */
static void *raw(const pg_impl *x) { return (char *)x->storage->data + x->offset * pg_size_of(x->dtype); }

static bool same_operand(const pg_impl *x, const pg_impl *y) {
    if (x->storage != y->storage || x->offset != y->offset || x->dtype != y->dtype || x->ndim != y->ndim) return false;
    return memcmp(x->shape, y->shape, (size_t)x->ndim * sizeof *x->shape) == 0 &&
           memcmp(x->stride, y->stride, (size_t)x->ndim * sizeof *x->stride) == 0;
}

static int operand_of(chain_build *b, const pg_impl *x, pg_value scalar, bool bools) {
    for (int k = 1; k < b->space.n && x; k++)
        if (b->impl[k] && same_operand(b->impl[k], x)) return k;
    const int k = b->space.n;
    b->impl[k] = x;
    if (x) pg_strided_add_at(&b->space, x, raw(x));
    else pg_strided_add_value(&b->space, scalar);
    if (bools) b->chain.bools |= UINT32_C(1) << k;
    return k;
}

static bool reads_bool(const pg_operation *o, int k) { return o->compute == PG_BOOL || k == o->keep; }

/* The steps that end with d; the register of its result. Calls itself for deferred operands, at most
 * PG_K_CHAIN_STEPS deep. */
static int emit(chain_build *b, const pg_deferred *d) {
    uint8_t from[PG_DEFERRED_OPERANDS] = {0};
    bool done[PG_DEFERRED_OPERANDS] = {false};
    uint32_t mine = 0;
    for (;;) {
        int next = -1;
        for (int k = 0; k < d->o.n; k++) {
            const pg_deferred *q = d->operand[k] ? d->operand[k]->storage->deferred : NULL;
            if (q && !done[k] && (next < 0 || q->registers > d->operand[next]->storage->deferred->registers)) next = k;
        }
        if (next < 0) break;
        const int r = emit(b, d->operand[next]->storage->deferred);
        mine |= UINT32_C(1) << r;
        for (int k = 0; k < d->o.n; k++)
            if (d->operand[k] && d->operand[k]->storage == d->operand[next]->storage) from[k] = (uint8_t)r, done[k] = true;
    }
    for (int k = 0; k < d->o.n; k++)
        if (!done[k])
            from[k] = (uint8_t)(PG_K_CHAIN_REGISTERS +
                                operand_of(b, d->operand[k], d->o.scalar[k], reads_bool(&d->o, k)));
    int to = 0;
    while (b->taken >> to & 1) to++;
    b->taken = (b->taken & ~mine) | UINT32_C(1) << to;
    pg_step *step = &b->chain.step[b->chain.steps++];
    *step = (pg_step){.op = (uint8_t)d->o.op, .bools = d->o.compute == PG_BOOL, .to = (uint8_t)to,
                      .p = {d->o.p[0], d->o.p[1]}};
    memcpy(step->from, from, sizeof from);
    return to;
}

static int run_one(const pg_device *device, const pg_deferred *d, void *out) {
    pg_strided s;
    pg_strided_begin(&s, d->ndim, d->shape);
    pg_strided_add_dense(&s, out);
    for (int k = 0; k < d->o.n; k++)
        if (d->operand[k]) pg_strided_add_at(&s, d->operand[k], raw(d->operand[k]));
        else pg_strided_add_value(&s, d->o.scalar[k]);
    pg_strided_end(&s);
    return PG_RUN(device, pointwise, d->o.op, d->o.compute, &s, d->o.p);
}

static int run_several(const pg_device *device, const pg_deferred *d, void *out) {
    chain_build b = {.chain = {.dtype = d->dtype < 0 ? PG_FLOAT32 : d->dtype}};
    b.chain.space = &b.space;
    b.chain.bools = d->o.result == PG_BOOL;
    pg_strided_begin(&b.space, d->ndim, d->shape);
    pg_strided_add_dense(&b.space, out);
    emit(&b, d);
    pg_strided_end(&b.space);
    atomic_fetch_add_explicit(&chain_kernels, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&chain_ops, b.chain.steps, memory_order_relaxed);
    return PG_RUN(device, chain, &b.chain);
}

static void compute(pg_deferred *d) {
    pg_storage *s = d->storage;
    unlink(d);
    bool steps = false;
    for (int k = 0; k < d->o.n; k++) steps |= d->operand[k] && d->operand[k]->storage->deferred;
    const int status = steps ? run_several(s->device, d, s->data) : run_one(s->device, d, s->data);
    if (status < 0 && settled_status >= 0) settled_status = status;
    discard(d);
}

static bool reads(const pg_deferred *d, const pg_storage *s) {
    for (int k = 0; k < d->o.n; k++)
        if (d->operand[k] && d->operand[k]->storage == s) return true;
    return false;
}

void pg_settle(pg_storage *s) {
    /* s was deferred by this thread: no other can have met it */
    if (s->deferred) compute(s->deferred);
    /* computing one may free others */
    for (pg_deferred *d = oldest; d;) {
        if (reads(d, s)) {
            compute(d);
            d = oldest;
        } else {
            d = d->younger;
        }
    }
}

int pg_settle_all(void) {
    /* the youngest first: what only it reads becomes its steps and goes with it */
    while (youngest) compute(youngest);
    const int status = settled_status;
    settled_status = PG_OK;
    return status;
}

/* ---- putting off ---- */

/* Whether operand x may be a step of d: nobody else's already, and of its dtype. */
static bool takes(const pg_deferred *d, const pg_impl *x) {
    pg_deferred *q = step_for(x, d->ndim, d->shape);
    if (!q || q->taken || (q->dtype >= 0 && d->dtype >= 0 && q->dtype != d->dtype)) return false;
    return true;
}

bool pg_defer(const pg_tensor *out, const pg_operation *operation) {
    if (!can_be_step(out->impl, operation)) return false;
    if (deferred_n >= DEFERRED_MAX) compute(oldest);
    pg_deferred *d = pg_malloc(sizeof *d);
    if (!d) return false;
    *d = (pg_deferred){.storage = out->impl->storage, .o = *operation, .ndim = out->impl->ndim,
                       .dtype = (int8_t)(operation->compute == PG_BOOL ? -1 : operation->compute)};
    memcpy(d->shape, out->impl->shape, (size_t)d->ndim * sizeof *d->shape);
    for (int k = 0; k < d->o.n; k++) {
        pg_impl *x = operation->tensor[k] ? operation->tensor[k]->impl : NULL;
        d->o.tensor[k] = NULL;
        if (!x) continue;
        d->operand[k] = pg_impl_retain(x);
        watch(x->storage);
        pg_deferred *q = x->storage->deferred;
        if (q && !takes(d, x)) compute(q);
        else if (q && q->dtype >= 0) d->dtype = q->dtype;
    }
    for (measure(d); !fits(d); measure(d)) {
        /* the longest operand is computed apart */
        pg_storage *longest = NULL;
        for (int k = 0; k < d->o.n; k++) {
            pg_storage *s = d->operand[k] ? d->operand[k]->storage : NULL;
            if (s && s->deferred && (!longest || s->deferred->steps > longest->deferred->steps)) longest = s;
        }
        compute(longest->deferred);
    }
    for (int k = 0; k < d->o.n; k++)
        if (d->operand[k] && d->operand[k]->storage->deferred) d->operand[k]->storage->deferred->taken = true;
    d->storage->deferred = d;
    watch(d->storage);
    list_add(d);
    return true;
}
