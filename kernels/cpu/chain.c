/* chain.c: several pointwise ops in one pass. Blocks of elements go through all steps while they lie in the
 * first-level cache; a step is pointwise.c's loop over the block. Bound by memory as one op is: operands and
 * output once. */
#include "walk.h"

/* What pointwise.c takes straight into its loop. */
enum { CHAIN_BLOCK = 1024, CHAIN_GRAIN = 8192 };

typedef union block { _Alignas(64) uint64_t room[CHAIN_BLOCK]; } block;

typedef struct job {
    const pg_chain *chain;
    pg_context context;                     /* of one thread: a step is not split further */
    int item[PG_K_OPERANDS];
    bool dense[PG_K_OPERANDS], constant[PG_K_OPERANDS];
    bool flat, streams;
    int status;                             /* of a step that failed */
} job;

/* A step's operand in this block. */
typedef struct view { void *data; int64_t stride; pg_value scalar; } view;

static view operand_view(const job *j, int k, int64_t i, int64_t n, const walk *w, block *gathered) {
    const pg_strided *s = j->chain->space;
    if (j->constant[k]) return (view){s->data[k], 0, s->scalar[k]};
    if (j->dense[k]) return (view){(char *)s->data[k] + i * j->item[k], 1, {0}};
    gather(j->item[k], gathered, s->data[k], w, s->stride[k], n);
    return (view){gathered, 1, {0}};
}

static int take_step(const job *j, const pg_step *step, int inputs, int64_t n, void *to, const view *registers,
                     const view *operands) {
    pg_strided s;
    s.ndim = 1;
    s.n = inputs + 1;
    s.shape[0] = n;
    s.data[0] = to;
    s.stride[0][0] = 1;
    for (int k = 0; k < inputs; k++) {
        const int from = step->from[k];
        const view *v = from < PG_K_CHAIN_REGISTERS ? &registers[from] : &operands[from - PG_K_CHAIN_REGISTERS];
        s.data[k + 1] = v->data;
        s.stride[k + 1][0] = v->stride;
        s.scalar[k + 1] = v->scalar;
    }
    return PG_K(pointwise)(&j->context, step->op, step->bools ? PG_K_BOOL : j->chain->dtype, &s, step->p);
}

static void run_range(void *arg, int64_t begin, int64_t end, int worker) {
    (void)worker;
#define ARITY(NAME, arity, kinds) [PG_K_##NAME] = arity,
    static const uint8_t arities[] = {PG_POINTWISE(ARITY) PG_PREDICATES(ARITY)};
#undef ARITY
    job *j = arg;
    const pg_strided *s = j->chain->space;
    block room[PG_K_CHAIN_REGISTERS], gathered[PG_K_OPERANDS];
    view registers[PG_K_CHAIN_REGISTERS], operands[PG_K_OPERANDS];
    for (int k = 0; k < PG_K_CHAIN_REGISTERS; k++) registers[k] = (view){&room[k], 1, {0}};
    const int steps = j->chain->steps;
    for (int64_t i = begin, n; i < end; i += n) {
        n = min64(end - i, CHAIN_BLOCK);
        walk w;
        if (!j->flat) walk_to(&w, s->ndim, s->shape, i);
        for (int k = 1; k < s->n; k++) operands[k] = operand_view(j, k, i, n, &w, &gathered[k]);
        char *direct = j->dense[0] ? (char *)s->data[0] + i * j->item[0] : NULL;
        void *last = direct && !j->streams ? (void *)direct : (void *)&gathered[0];
        for (int k = 0; k < steps; k++) {
            const pg_step *step = &j->chain->step[k];
            void *to = k == steps - 1 ? last : registers[step->to].data;
            const int status = take_step(j, step, arities[step->op], n, to, registers, operands);
            if (status != PG_KERNEL_OK) {
                __atomic_store_n(&j->status, status, __ATOMIC_RELAXED);
                return;
            }
        }
        if (direct && j->streams) {
            if (((uintptr_t)direct & 63) == 0) stream(direct, last, n * j->item[0]);
            else memcpy(direct, last, (size_t)(n * j->item[0]));
        } else if (!direct) {
            scatter(j->item[0], s->data[0], last, &w, s->stride[0], n);
        }
    }
    if (j->streams) stream_end();
}

int PG_K(chain)(const pg_context *c, const pg_chain *chain) {
    const pg_strided *s = chain->space;
    const int64_t n = count_of(s->ndim, s->shape);
    if (n == 0) return PG_KERNEL_OK;
    job j = {.chain = chain, .context = *c, .flat = true, .status = PG_KERNEL_OK};
    j.context.threads = 1;
    for (int k = 0; k < s->n; k++) {
        j.item[k] = chain->bools >> k & 1 ? 1 : item_size(chain->dtype);
        j.constant[k] = k > 0 && (!s->data[k] || is_broadcast(s->ndim, s->shape, s->stride[k]));
        j.dense[k] = !j.constant[k] && is_dense(s->ndim, s->shape, s->stride[k]);
        j.flat &= j.dense[k] || j.constant[k];
    }
    j.streams = j.dense[0] && n * j.item[0] >= STREAM_BYTES;
    parallel(c, n, CHAIN_GRAIN, run_range, &j);
    return j.status;
}
