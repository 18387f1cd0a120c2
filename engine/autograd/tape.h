/* tape.h: the tape. An op with a gradient states a rule and calls pg_record once after its forward:
 *
 *     static int mul_backward(pg_backward *b) {
 *         if (b->needs[0]) b->input[0] = x_mul(b->pool, b->grad[0], pg_saved(b, PG_IN(1)));
 *         if (b->needs[1]) b->input[1] = x_mul(b->pool, b->grad[0], pg_saved(b, PG_IN(0)));
 *         return b->pool->status;
 *     }
 *     static const pg_rule mul_rule = {"mul", mul_backward, NULL, {PG_USE(PG_IN(1)), PG_USE(PG_IN(0))}, ...};
 *     ...
 *     return pg_record(&mul_rule, 1, (pg_tensor *[]){out}, 2, (const pg_tensor *[]){a, b}, NULL, 0);
 *
 * The tape alone: sums a gradient over dimensions that were broadcast, converts it to the input's dtype, accumulates, checks shapes,
 * and checks that saved tensors were not changed. A rule may thus answer gradients of the broadcast shape.
 *
 * The composite form `backward` is built from ops, so that it can itself be recorded (create_graph). `fused`, where given, is used
 * when it is not. A spec compares the two.
 */
#ifndef PG_TAPE_H
#define PG_TAPE_H

#include "../core/pool.h"

enum { PG_INPUTS_MAX = 8, PG_OUTPUTS_MAX = 4 };
#define PG_IN(k) (k)             /* names of saved tensors: input k, output k */
#define PG_OUT(k) (16 + (k))
#define PG_USE(which) (UINT32_C(1) << (which))

typedef struct pg_backward {
    pg_pool *pool;
    const pg_tensor *grad[PG_OUTPUTS_MAX];   /* gradients of the outputs; NULL where none arrived and the rule allows it */
    const pg_tensor **grads;                 /* the same for rules with any number of outputs */
    int n_outputs, n_inputs;
    const bool *needs;                       /* n_inputs */
    const pg_tensor **input;                 /* n_inputs: to be filled by the rule; NULL is no gradient (zero) */
    const void *args;                        /* what pg_record was given */
    pg_node *node;
    bool last;                               /* the run keeps no graph: what this node saved goes after the rule */
} pg_backward;

typedef int (*pg_backward_fn)(pg_backward *b);
struct pg_rule {
    const char *name;            /* as the op is called: "mul"; grad_fn prints MulBackward */
    pg_backward_fn backward;     /* composite */
    pg_backward_fn fused;        /* or NULL */
    uint32_t uses[PG_INPUTS_MAX];/* what the gradient of input k reads (PG_USE masks); rules for lists use [0] for all */
    bool undefined_grads;        /* grad[k] may be NULL; otherwise the tape makes zeros */
    bool no_grad2;               /* the composite form is absent: create_graph is an error that names the op */
    void (*free_args)(void *args);
};

/* After an op's forward: where gradients are on and an input requires one, gives the outputs (none of which may be an input) a
 * node. args are copied. Inputs may be NULL (absent). Integer outputs are left without history. */
int pg_record(const pg_rule *rule, int n_outputs, pg_tensor *const *outputs, int n_inputs, const pg_tensor *const *inputs,
              const void *args, size_t args_size);
#define pg_record1(rule, out, args, args_size, ...)                                                                     \
    pg_record(rule, 1, (pg_tensor *[]){out}, (int)(sizeof((const pg_tensor *[]){__VA_ARGS__}) / sizeof(pg_tensor *)),    \
              (const pg_tensor *[]){__VA_ARGS__}, args, args_size)

/* Whether pg_record would record: an op that keeps more for backward asks first. */
bool pg_will_record(int n, const pg_tensor *const *inputs);
static inline bool pg_requires(const pg_tensor *t) { return t->impl->requires_grad || t->impl->grad_fn; }

/* In a rule: a saved tensor (its history as it was), owned by the pool. Checks its version: the error names the op that saved it. */
const pg_tensor *pg_saved(pg_backward *b, int which);
/* The same for a saved output whose memory the rule will write, its last use; NULL where it must not: the graph is kept, or
 * somebody else holds that memory (or the pool has failed). The node counts as freed from here on, even where the run fails. */
pg_tensor *pg_saved_last(pg_backward *b, int which);
/* In a rule: shape and dtype of input k and of output k as the forward saw them. */
typedef struct pg_meta { const pg_device *device; int dtype, ndim; const int64_t *shape; } pg_meta;
pg_meta pg_input_meta(const pg_backward *b, int k);
pg_meta pg_output_meta(const pg_backward *b, int k);

bool pg_grad_enabled(void);
/* Gradient mode off (or on) for a stretch of C; give back what it answered. */
bool pg_grad_set(bool on);

/* x summed down to shape (undoing a broadcast); shares x where the shapes agree. */
int pg_sum_to(pg_tensor *out, const pg_tensor *x, int ndim, const int64_t *shape);

/* x converted, with its gradient; shares x where it is of dtype already. */
int pg_to_dtype(pg_tensor *out, const pg_tensor *x, int dtype);

/* History of an in-place change: result's history becomes self's (through the base where self is a view). */
int pg_rebase_history(const pg_tensor *self, const pg_tensor *result);
/* The refusals that go with it: a view of several outputs, a view made without gradients. */
int pg_check_view_writable(const pg_tensor *self, const pg_tensor *result);
/* Saved tensors of n (may be NULL) that share s get memory of their own: s is about to be written by n's own op. */
int pg_node_isolate(pg_node *n, const pg_storage *s);
/* A view's grad_fn made anew where its base's history changed since. Every reader of grad_fn calls it first. */
int pg_refresh_view(pg_impl *x);

/* as_strided: a view of x with any geometry over its memory (offset in elements from the storage's start, bounds checked by the
 * caller), coinciding elements included. */
int pg_region_view(pg_tensor *out, const pg_tensor *x, int ndim, const int64_t *shape, const int64_t *stride, int64_t offset);

/* Node references; freeing a chain does not recurse. */
pg_node *pg_node_retain(pg_node *n);
void pg_node_release(pg_node *n);
const char *pg_node_name(const pg_node *n);
long pg_live_nodes(void);

#endif
