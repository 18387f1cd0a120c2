/* backward.c: backward runs.
 *
 * A run holds a heap of targets (nodes and leaves) for which gradients have arrived, youngest node first, leaves last, and the
 * gradients themselves. A target that is popped has got all its contributions. Where a target needs Lua (hooks, custom functions)
 * the run stops and says so; the caller goes on when it has answered.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/deferred.h"
#include "node.h"
#include "pg_ops.h"

typedef struct target {
    pg_node *node;              /* owned, or NULL */
    pg_impl *leaf;              /* owned, or NULL */
    uint64_t sequence;          /* 0 for leaves */
    int32_t n;                  /* gradients: outputs of the node; 1 for a leaf */
    pg_tensor *grads;           /* owned; empty where nothing arrived */
    pg_tensor one;              /* grads points here when n is 1 */
} target;

typedef struct capture { const void *key; int32_t nr; pg_tensor grad; } capture;

enum { PHASE_PICK, PHASE_HOOKS, PHASE_RUN, PHASE_CUSTOM };

struct pg_backward_run {
    bool retain, create, allow_unused, in_lua, mode_before;
    target **heap;
    int heap_n, heap_room;
    target **table;             /* by key, open addressing; NULL is free */
    size_t table_n, table_room;
    capture *captures;          /* inputs, or none */
    int captures_n;
    const void **needed;        /* with inputs: the keys that lead to them (a set, open addressing) */
    size_t needed_n, needed_room;
    target *now;
    int phase;
    pg_watch *watch;            /* PHASE_HOOKS: the next one */
    int hook_nr;
    pg_tensor *given;           /* PHASE_CUSTOM: gradients that Lua gave */
    target *spare;
    char name[72];
};

/* ---- sets and maps by pointer ---- */

static size_t hash(const void *p) {
    uint64_t h = (uint64_t)(uintptr_t)p * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(h >> 20);
}

static const void *key_of(const target *t) { return t->node ? (const void *)t->node : t->leaf; }

static target **table_place(pg_backward_run *r, const void *key) {
    size_t i = hash(key) & (r->table_room - 1);
    while (r->table[i] && key_of(r->table[i]) != key) i = (i + 1) & (r->table_room - 1);
    return &r->table[i];
}

static int table_grow(pg_backward_run *r) {
    size_t room = r->table_room ? r->table_room * 2 : 64, old = r->table_room;
    target **before = r->table, **more = pg_calloc(room, sizeof *more);
    if (!more) return pg_out_of_memory(room * sizeof *more);
    r->table = more;
    r->table_room = room;
    for (size_t i = 0; i < old; i++)
        if (before[i]) *table_place(r, key_of(before[i])) = before[i];
    free(before);
    return PG_OK;
}

static void table_remove(pg_backward_run *r, const void *key) {
    size_t mask = r->table_room - 1, i = (size_t)(table_place(r, key) - r->table);
    if (!r->table[i]) return;
    r->table[i] = NULL;
    r->table_n--;
    /* what was pushed past the gap moves into it */
    for (size_t j = (i + 1) & mask; r->table[j]; j = (j + 1) & mask) {
        target *t = r->table[j];
        r->table[j] = NULL;
        *table_place(r, key_of(t)) = t;
    }
}

static bool is_needed(const pg_backward_run *r, const void *key) {
    if (!r->needed) return true;
    for (size_t i = hash(key) & (r->needed_room - 1); r->needed[i]; i = (i + 1) & (r->needed_room - 1))
        if (r->needed[i] == key) return true;
    return false;
}

static int need(pg_backward_run *r, const void *key) {
    if ((r->needed_n + 1) * 2 > r->needed_room) {
        size_t room = r->needed_room ? r->needed_room * 2 : 64;
        const void **before = r->needed, **more = pg_calloc(room, sizeof *more);
        if (!more) return pg_out_of_memory(room * sizeof *more);
        size_t old = r->needed_room;
        r->needed = more;
        r->needed_room = room;
        for (size_t i = 0; i < old; i++)
            if (before[i]) {
                size_t j = hash(before[i]) & (room - 1);
                while (more[j]) j = (j + 1) & (room - 1);
                more[j] = before[i];
            }
        free(before);
    }
    size_t i = hash(key) & (r->needed_room - 1);
    while (r->needed[i] && r->needed[i] != key) i = (i + 1) & (r->needed_room - 1);
    if (!r->needed[i]) r->needed[i] = key, r->needed_n++;
    return PG_OK;
}

/* ---- the heap ---- */

static int heap_push(pg_backward_run *r, target *t) {
    if (r->heap_n == r->heap_room) {
        int room = r->heap_room ? r->heap_room * 2 : 64;
        target **more = pg_realloc(r->heap, (size_t)room * sizeof *more);
        if (!more) return pg_out_of_memory((size_t)room * sizeof *more);
        r->heap = more;
        r->heap_room = room;
    }
    int i = r->heap_n++;
    for (; i > 0 && r->heap[(i - 1) / 2]->sequence < t->sequence; i = (i - 1) / 2) r->heap[i] = r->heap[(i - 1) / 2];
    r->heap[i] = t;
    return PG_OK;
}

static target *heap_pop(pg_backward_run *r) {
    target *top = r->heap[0], *last = r->heap[--r->heap_n];
    int i = 0;
    for (;;) {
        int child = 2 * i + 1;
        if (child >= r->heap_n) break;
        if (child + 1 < r->heap_n && r->heap[child + 1]->sequence > r->heap[child]->sequence) child++;
        if (r->heap[child]->sequence <= last->sequence) break;
        r->heap[i] = r->heap[child];
        i = child;
    }
    r->heap[i] = last;
    return top;
}

/* ---- targets ---- */

static void target_free(target *t) {
    if (!t) return;
    for (int i = 0; i < t->n; i++) pg_tensor_release(&t->grads[i]);
    if (t->grads != &t->one) free(t->grads);
    if (t->node) pg_node_release(t->node);
    pg_impl_unhold(t->leaf);
    free(t);
}

/* The target of an edge, made and queued at its first gradient. */
static int target_of(target **out, pg_backward_run *r, const pg_edge *e) {
    if ((r->table_n + 1) * 2 > r->table_room) {
        int status = table_grow(r);
        if (status < 0) return status;
    }
    target **place = table_place(r, e->node ? (const void *)e->node : e->leaf);
    if (*place) {
        *out = *place;
        return PG_OK;
    }
    target *t = pg_calloc(1, sizeof *t);
    if (!t) return pg_out_of_memory(sizeof *t);
    t->n = e->node ? e->node->n_outputs : 1;
    t->one = PG_HANDLE;
    t->grads = t->n <= 1 ? &t->one : pg_malloc((size_t)t->n * sizeof *t->grads);
    if (!t->grads) {
        t->n = 0;
        target_free(t);
        return pg_out_of_memory((size_t)e->node->n_outputs * sizeof *t->grads);
    }
    for (int i = 0; i < t->n; i++) t->grads[i] = PG_HANDLE;
    if (e->node) t->node = pg_node_retain(e->node);
    else t->leaf = pg_impl_hold(e->leaf);
    t->sequence = e->node ? e->node->sequence : 0;
    int status = heap_push(r, t);
    if (status < 0) {
        target_free(t);
        return status;
    }
    *place = t;
    r->table_n++;
    *out = t;
    return PG_OK;
}

/* ---- accumulation: the only place where gradients are added ---- */

/* x is all there is of its memory: it may be kept, or added to. */
static bool sole_owner(const pg_impl *x) {
    const pg_storage *s = x->storage;
    return atomic_load_explicit(&s->refs, memory_order_acquire) == 1 && !s->exposed && !s->release && x->contiguous &&
           (size_t)x->numel * (size_t)pg_size_of(x->dtype) == s->bytes && !x->grad_fn;
}

static int add_in_place(const pg_tensor *to, const pg_tensor *g) {
    pg_strided s;
    pg_strided_begin(&s, to->impl->ndim, to->impl->shape);
    pg_strided_add(&s, to);
    pg_strided_add(&s, to);
    pg_strided_add(&s, g);
    pg_strided_end(&s);
    if (to->impl->numel == 0) return PG_OK;
    return PG_RUN(pg_device_of(to), pointwise, PG_K_ADD, to->impl->dtype, &s, NULL);
}

static int add_apart(pg_tensor *sum, const pg_tensor *a, const pg_tensor *b) {
    pg_number one = {PG_NUMBER_INT, 1, 0};
    return op_add(sum, a, b, NULL, &one);
}

static int accumulate(pg_backward_run *r, pg_tensor *into, const pg_tensor *g) {
    if (!into->impl) {
        pg_share(into, g);
        return PG_OK;
    }
    if (!r->create && !pg_is_deferred(into) && !pg_is_deferred(g) && sole_owner(into->impl) &&
        atomic_load_explicit(&into->impl->refs, memory_order_acquire) == 1)
        return add_in_place(into, g);
    pg_tensor sum = PG_HANDLE;
    int status = add_apart(&sum, into, g);
    if (status < 0) return status;
    pg_tensor_release(into);
    pg_move(into, &sum);
    return PG_OK;
}

/* g in the shape, dtype and device that the input had. */
static int fit(pg_tensor *out, const pg_tensor *g, const pg_meta *m, const char *name) {
    if (g->impl->storage == NULL) return pg_fail("%s gave a gradient that was freed", name);
    const bool scalar = m->ndim == 0 && m->device->host;   /* that was an operand beside tensors of another device */
    if (pg_device_of(g) != m->device && !scalar)
        return pg_fail("%s gave a gradient on %s for an input on %s", name, pg_device_of(g)->name, m->device->name);
    pg_tensor summed = PG_HANDLE, converted = PG_HANDLE;
    int status = pg_sum_to(&summed, g, m->ndim, m->shape);
    if (status >= 0) status = pg_to_dtype(&converted, &summed, m->dtype);
    if (status >= 0 && pg_device_of(&converted) != m->device)
        status = op__to(out, &converted, -1, m->device->name, false, false);
    else if (status >= 0)
        pg_move(out, &converted);
    pg_tensor_release(&summed);
    pg_tensor_release(&converted);
    return status;
}

int pg_sum_to(pg_tensor *out, const pg_tensor *x, int ndim, const int64_t *shape) {
    int extra = x->impl->ndim - ndim, n = 0;
    int64_t dims[PG_DIMS_MAX], kept[PG_DIMS_MAX];
    bool good = extra >= 0;
    for (int i = 0; good && i < x->impl->ndim; i++) {
        int64_t want = i < extra ? 1 : shape[i - extra], have = x->impl->shape[i];
        if (i < extra || (want == 1 && have != 1)) dims[n++] = i;
        else if (want != have) good = false;
    }
    if (!good)
        return pg_fail("a gradient of shape %s does not fit a tensor of shape %s", pg_text(x),
                       pg_shape_text((char[PG_TEXT]){0}, shape, ndim));
    if (n == 0) {
        pg_share(out, x);
        return PG_OK;
    }
    memcpy(kept, shape, (size_t)ndim * sizeof *shape);
    pg_pool p;
    pg_pool_begin(&p);
    pg_tensor *sum = x_sum(&p, x, dims, n, true, -1);
    if (extra > 0) sum = x_reshape(&p, sum, kept, ndim);
    return pg_pool_return(&p, out, sum);
}

static int deliver(pg_backward_run *r, const pg_edge *e, const pg_tensor *g, const pg_meta *m, const char *name) {
    const void *key = e->node ? (const void *)e->node : e->leaf;
    if (!key || !is_needed(r, key)) return PG_OK;
    pg_tensor fitted = PG_HANDLE;
    target *t;
    int status = fit(&fitted, g, m, name);
    if (status >= 0) status = target_of(&t, r, e);
    if (status >= 0) status = accumulate(r, &t->grads[e->node ? e->nr : 0], &fitted);
    pg_tensor_release(&fitted);
    return status;
}

/* ---- leaves ---- */

static int accumulate_grad(pg_backward_run *r, pg_impl *leaf, pg_tensor *g) {
    pg_tensor fresh = PG_HANDLE;
    int scope, status = pg_scope_suspend(&scope);
    if (status < 0) return status;
    if (!leaf->grad) {
        bool keep = sole_owner(g->impl) && atomic_load_explicit(&g->impl->refs, memory_order_acquire) == 1;
        if (r->create) pg_share(&fresh, g);
        else if (keep) {
            pg_move(&fresh, g);
            if (fresh.impl->scoped) pg_scope_forget(fresh.impl);
        } else if ((status = pg_new_like(&fresh, g, g->impl->dtype)) >= 0) status = pg_copy_into(&fresh, g);
        if (status >= 0) pg_data(&fresh);       /* not put off: what it is made of may go */
        if (status >= 0) leaf->grad = pg_impl_adopt(fresh.impl), fresh.impl = NULL;
    } else {
        pg_tensor now = pg_borrow(leaf->grad);
        if (!r->create && !leaf->grad->grad_fn) {
            status = add_in_place(&now, g);
            if (status >= 0) pg_bump_version(&now);
        } else if ((status = add_apart(&fresh, &now, g)) >= 0) {
            pg_impl *before = leaf->grad;
            leaf->grad = pg_impl_adopt(fresh.impl);
            fresh.impl = NULL;
            pg_impl_unhold(before);
        }
    }
    pg_scope_resume(scope);
    pg_tensor_release(&fresh);
    return status;
}

/* ---- one target ---- */

static int keep_retained(pg_backward_run *r) {
    int status = PG_OK;
    for (pg_watch *w = r->now->node->watches; w && status >= 0; w = w->next) {
        pg_tensor *g = &r->now->grads[w->nr];
        if (!w->retained || !g->impl) continue;
        pg_tensor x = pg_borrow(w->retained);
        if (x.impl->grad || !r->create) {
            pg_tensor *grad = g;
            pg_tensor copy = PG_HANDLE;
            pg_share(&copy, grad);
            status = accumulate_grad(r, x.impl, &copy);
            pg_tensor_release(&copy);
        } else {
            x.impl->grad = pg_impl_hold(g->impl);
        }
    }
    return status;
}

static void take_captures(pg_backward_run *r) {
    for (int i = 0; i < r->captures_n; i++) {
        capture *c = &r->captures[i];
        if (c->key == key_of(r->now) && r->now->grads[c->nr].impl && !c->grad.impl) pg_share(&c->grad, &r->now->grads[c->nr]);
    }
}

static bool leads_on(const pg_backward_run *r, const pg_node *n) {
    if (!r->needed) return true;
    for (int i = 0; i < n->n_inputs; i++) {
        const pg_edge *e = &n->edges[i];
        const void *key = e->node ? (const void *)e->node : e->leaf;
        if (key && is_needed(r, key)) return true;
    }
    return false;
}

static bool edge_needed(const pg_backward_run *r, const pg_edge *e) {
    const void *key = e->node ? (const void *)e->node : e->leaf;
    return key && is_needed(r, key);
}

static int make_zeros(pg_tensor *g, const pg_node *n, int nr) {
    const pg_slot *s = &n->outputs[nr];
    int status = pg_new(g, s->device, s->dtype, s->ndim, n->sizes + s->first);
    return status < 0 ? status : pg_fill_value(g, (pg_value){0, 0});
}

static pg_meta slot_meta(const pg_node *n, const pg_slot *s) {
    return (pg_meta){s->device, s->dtype, s->ndim, n->sizes + s->first};
}

enum { INLINE_INPUTS = 16 };

static int run_rule(pg_backward_run *r) {
    pg_node *n = r->now->node;
    target *t = r->now;
    if (r->create && n->rule->no_grad2)
        return pg_fail("the gradient of '%s' cannot be differentiated again: create_graph is not available for it", n->rule->name);
    int room = n->n_inputs > n->n_outputs ? n->n_inputs : n->n_outputs;
    const pg_tensor *inline_input[INLINE_INPUTS], *inline_grads[INLINE_INPUTS];
    bool inline_needs[INLINE_INPUTS];
    const pg_tensor **input = inline_input, **grads = inline_grads;
    bool *needs = inline_needs;
    void *block = NULL;
    if (room > INLINE_INPUTS) {
        size_t each = (size_t)room * sizeof(void *);
        if (!(block = pg_malloc(2 * each + (size_t)room))) return pg_out_of_memory(2 * each + (size_t)room);
        input = block;
        grads = (const pg_tensor **)((char *)block + each);
        needs = (bool *)((char *)block + 2 * each);
    }
    int status = PG_OK;
    pg_pool pool;
    pg_pool_begin(&pool);
    pg_backward b = {.pool = &pool, .grads = grads, .n_outputs = n->n_outputs, .n_inputs = n->n_inputs, .needs = needs,
                     .input = input, .args = n->args, .node = n, .last = !r->retain};
    for (int i = 0; i < n->n_outputs && status >= 0; i++) {
        if (!t->grads[i].impl && !n->rule->undefined_grads) status = make_zeros(&t->grads[i], n, i);
        grads[i] = t->grads[i].impl ? &t->grads[i] : NULL;
        if (i < PG_OUTPUTS_MAX) b.grad[i] = grads[i];
    }
    for (int i = 0; i < n->n_inputs; i++) {
        input[i] = NULL;
        needs[i] = edge_needed(r, &n->edges[i]);
    }
    bool before = pg_grad_set(r->create), deferring = pg_deferring_set(!r->create);
    if (status >= 0) status = (!r->create && n->rule->fused ? n->rule->fused : n->rule->backward)(&b);
    if (status >= 0) status = pool.status;
    for (int i = 0; i < n->n_inputs && status >= 0; i++) {
        if (!needs[i] || !input[i] || !input[i]->impl) continue;
        pg_meta m = slot_meta(n, &n->inputs[i]);
        status = deliver(r, &n->edges[i], input[i], &m, n->rule->name);
    }
    pg_deferring_set(deferring);
    pg_grad_set(before);
    pg_pool_note(&pool, status);
    pg_pool_end(&pool);
    free(block);
    if (!r->retain && status >= 0) pg_node_spend(n);
    return status;
}

static void end_target(pg_backward_run *r) {
    target *t = r->now;
    r->now = NULL;
    r->phase = PHASE_PICK;
    target_free(t);
}

/* ---- the state machine ---- */

static void enter_lua(pg_backward_run *r) {
    r->mode_before = pg_grad_set(r->create);
    r->in_lua = true;
}

static void leave_lua(pg_backward_run *r) {
    if (r->in_lua) pg_grad_set(r->mode_before);
    r->in_lua = false;
}

static void free_given(pg_backward_run *r) {
    if (!r->given) return;
    for (int i = 0; i < r->now->node->n_inputs; i++) pg_tensor_release(&r->given[i]);
    free(r->given);
    r->given = NULL;
}

static int ask_custom(pg_backward_run *r, pg_backward_step *step) {
    pg_node *n = r->now->node;
    size_t bytes = (size_t)n->n_inputs * sizeof *r->given;
    if (!(r->given = pg_malloc(bytes ? bytes : 1))) return pg_out_of_memory(bytes);
    for (int i = 0; i < n->n_inputs; i++) r->given[i] = PG_HANDLE;
    *step = (pg_backward_step){PG_STEP_CUSTOM, n->n_outputs, n->n_inputs, 0, 0, n->custom_id};
    r->phase = PHASE_CUSTOM;
    enter_lua(r);
    return PG_OK;
}

static int take_custom(pg_backward_run *r) {
    pg_node *n = r->now->node;
    int status = PG_OK;
    bool before = pg_grad_set(r->create);
    for (int i = 0; i < n->n_inputs && status >= 0; i++) {
        if (!r->given[i].impl) continue;
        pg_meta m = slot_meta(n, &n->inputs[i]);
        if (m.dtype >= 0) status = deliver(r, &n->edges[i], &r->given[i], &m, n->custom_name);
    }
    pg_grad_set(before);
    free_given(r);
    if (!r->retain && status >= 0) pg_node_spend(n);
    return status;
}

/* The next hook of the current target that has a gradient to see; false when there is none left. */
static bool ask_hook(pg_backward_run *r, pg_backward_step *step) {
    double id = 0;
    if (r->now->leaf) {
        if (r->watch || !(id = r->now->leaf->hook_id)) return false;
        r->watch = (pg_watch *)r;   /* asked */
        r->hook_nr = 0;
    } else {
        while (r->watch && (r->watch->hook_id == 0 || !r->now->grads[r->watch->nr].impl)) r->watch = r->watch->next;
        if (!r->watch) return false;
        id = r->watch->hook_id;
        r->hook_nr = r->watch->nr;
        r->watch = r->watch->next;
    }
    *step = (pg_backward_step){PG_STEP_HOOK, 1, 1, 0, id, 0};
    enter_lua(r);
    return true;
}

int pg_backward_next(pg_backward_run *r, pg_backward_step *step) {
    if (!r || !step) return pg_fail("backward: expected a run");
    leave_lua(r);
    const char *op_before = pg_error_set_op("backward");
    int status = PG_OK;
    *step = (pg_backward_step){PG_STEP_DONE, 0, 0, 0, 0, 0};
    while (status >= 0) {
        if (pg_interrupted) {
            status = pg_fail_status(PG_ERROR_INTERRUPT, "interrupted");
            break;
        }
        if (r->phase == PHASE_PICK) {
            if (r->heap_n == 0) break;
            r->now = heap_pop(r);
            table_remove(r, key_of(r->now));
            r->watch = r->now->node ? r->now->node->watches : NULL;
            r->phase = PHASE_HOOKS;
            if (r->now->node && leads_on(r, r->now->node) && (status = pg_node_check(r->now->node)) < 0) break;
        }
        if (r->phase == PHASE_HOOKS) {
            if ((r->now->leaf ? r->now->leaf->hook_id != 0 : r->watch != NULL) && ask_hook(r, step)) break;
            if (r->captures_n > 0) take_captures(r);
            if (r->now->leaf) {
                if (!r->needed) status = accumulate_grad(r, r->now->leaf, &r->now->grads[0]);
                end_target(r);
                continue;
            }
            if (r->now->node->watches && !r->needed) status = keep_retained(r);
            if (status >= 0 && !leads_on(r, r->now->node)) {
                end_target(r);
                continue;
            }
            r->phase = PHASE_RUN;
        }
        if (status >= 0 && r->phase == PHASE_RUN) {
            if (r->now->node->custom_id != 0) {
                status = ask_custom(r, step);
                break;
            }
            snprintf(r->name, sizeof r->name, "%s backward", r->now->node->rule->name);
            pg_error_set_op(r->name);
            status = run_rule(r);
            pg_error_set_op("backward");
            end_target(r);
            continue;
        }
        if (status >= 0 && r->phase == PHASE_CUSTOM) {
            status = take_custom(r);
            end_target(r);
        }
    }
    const int settled = pg_settle_all();
    if (status >= 0) status = settled < 0 ? settled : status;
    pg_error_set_op(op_before);
    return status == PG_OK && step->kind == PG_STEP_DONE && pg_debt_due() ? PG_COLLECT : status;
}

static int check_run(const pg_backward_run *r, const char *what) {
    if (!r || !r->now) return pg_fail("%s: the backward run is not waiting for an answer", what);
    return PG_OK;
}

int pg_backward_grad(pg_tensor *out, pg_backward_run *r, int k) {
    int status = check_run(r, "backward_grad");
    if (status < 0) return status;
    if (!out || out->magic != PG_HANDLE_MAGIC || out->impl) return pg_fail("backward_grad: expected an empty handle");
    if (r->phase == PHASE_HOOKS) k = r->hook_nr;
    if (k < 0 || k >= r->now->n) return pg_fail_status(PG_ERROR_INDEX, "backward_grad: no gradient %d", k);
    if (r->now->grads[k].impl) pg_share(out, &r->now->grads[k]);
    return PG_OK;
}

int pg_backward_give(pg_backward_run *r, int k, const pg_tensor *grad) {
    int status = check_run(r, "backward_give");
    if (status < 0) return status;
    if (grad && (grad->magic != PG_HANDLE_MAGIC || !grad->impl || !grad->impl->storage))
        return pg_fail("backward: expected a gradient tensor, got a freed one or something else");
    /* made in a hook's scope, it outlives it */
    if (grad && grad->impl->scoped) pg_scope_forget(grad->impl);
    if (r->phase == PHASE_HOOKS) {
        pg_tensor *g = &r->now->grads[r->hook_nr];
        if (!grad) return PG_OK;
        if (!pg_same_shape(g, grad) || g->impl->dtype != grad->impl->dtype || pg_device_of(g) != pg_device_of(grad))
            return pg_fail("hook: expected a gradient of shape %s, %s on %s, got %s, %s on %s", pg_text(g),
                           pg_dtype_name(g->impl->dtype), pg_device_of(g)->name, pg_text(grad),
                           pg_dtype_name(grad->impl->dtype), pg_device_of(grad)->name);
        pg_tensor_release(g);
        pg_share(g, grad);
        return PG_OK;
    }
    if (r->phase != PHASE_CUSTOM) return pg_fail("backward_give: the run is not waiting for gradients");
    if (k < 0 || k >= r->now->node->n_inputs)
        return pg_fail("%s: backward gave gradient %d, but forward had %d tensor inputs", r->now->node->custom_name, k,
                       r->now->node->n_inputs);
    pg_tensor_release(&r->given[k]);
    if (grad) pg_share(&r->given[k], grad);
    return PG_OK;
}

int pg_custom_saved(pg_tensor *out, pg_backward_run *r, int k) {
    int status = check_run(r, "saved_tensors");
    if (status < 0) return status;
    const pg_node *n = r->now->node;
    if (r->phase != PHASE_CUSTOM || k < 0 || k >= n->n_saved)
        return pg_fail_status(PG_ERROR_INDEX, "saved_tensors: no saved tensor %d", k);
    return pg_node_unpack(out, r->now->node, &n->saved[k]);
}

int pg_backward_captured(pg_tensor *out, pg_backward_run *r, int k) {
    if (!r || k < 0 || k >= r->captures_n) return pg_fail_status(PG_ERROR_INDEX, "grad: no input %d", k);
    if (!out || out->magic != PG_HANDLE_MAGIC || out->impl) return pg_fail("grad: expected an empty handle");
    capture *c = &r->captures[k];
    if (c->grad.impl) pg_share(out, &c->grad);
    else if (!r->allow_unused)
        return pg_fail("grad: one of the differentiated tensors appears to not have been used in the graph (input %d): give "
                       "allow_unused = true if this is the desired behavior", k);
    return PG_OK;
}

void pg_backward_end(pg_backward_run *r) {
    if (!r) return;
    leave_lua(r);
    if (r->now) {
        free_given(r);
        target_free(r->now);
    }
    for (int i = 0; i < r->heap_n; i++) target_free(r->heap[i]);
    for (int i = 0; i < r->captures_n; i++) pg_tensor_release(&r->captures[i].grad);
    free(r->heap);
    free(r->table);
    free(r->needed);
    free(r->captures);
    free(r);
}

/* ---- beginning ---- */

static int check_root(const pg_tensor *root, const pg_tensor *grad) {
    if (!root || root->magic != PG_HANDLE_MAGIC || !root->impl || !root->impl->storage)
        return pg_fail("expected a tensor, got a freed one or none");
    if (!pg_requires(root)) return pg_fail("element 0 of tensors does not require grad and does not have a grad_fn");
    if (!grad && root->impl->numel != 1)
        return pg_fail("grad can be implicitly created only for scalar outputs, got shape %s", pg_text(root));
    if (grad && (grad->magic != PG_HANDLE_MAGIC || !grad->impl || !grad->impl->storage))
        return pg_fail("expected a gradient tensor, got a freed one or something else");
    if (grad && !pg_same_shape(root, grad))
        return pg_fail("mismatch in shape: the gradient has %s and the output %s", pg_text(grad), pg_text(root));
    return PG_OK;
}

static int add_root(pg_backward_run *r, const pg_tensor *root, const pg_tensor *grad) {
    pg_edge e;
    int status = pg_edge_of(&e, root);
    if (status < 0) return status;
    pg_tensor ones = PG_HANDLE;
    if (!grad) {
        status = pg_new_like(&ones, root, root->impl->dtype);
        if (status >= 0) status = pg_fill_value(&ones, (pg_value){1, 1});
    }
    pg_meta m = {pg_device_of(root), root->impl->dtype, root->impl->ndim, root->impl->shape};
    if (status >= 0) status = deliver(r, &e, grad ? grad : &ones, &m, "backward");
    pg_tensor_release(&ones);
    pg_edge_release(&e);
    return status;
}

/* Marks every key on a path from the roots to an input: nodes are visited after what they lead to. */
typedef struct visit { const pg_node *node; int next; } visit;

static int mark_needed(pg_backward_run *r, const pg_tensor *const *roots, int roots_n) {
    int status = PG_OK, n = 0, room = 0;
    visit *stack = NULL;
    pg_backward_run seen = {.needed = NULL};
    for (int i = 0; i < r->captures_n && status >= 0; i++) status = need(r, r->captures[i].key);
    for (int i = 0; i < roots_n && status >= 0; i++) {
        const pg_node *start = roots[i]->impl->grad_fn;
        if (!start || (seen.needed && is_needed(&seen, start))) continue;
        for (bool push = true; status >= 0; push = false) {
            if (push || n == room) {
                if (n == room) {
                    room = room ? room * 2 : 64;
                    visit *more = pg_realloc(stack, (size_t)room * sizeof *more);
                    if (!more) {
                        status = pg_out_of_memory((size_t)room * sizeof *more);
                        break;
                    }
                    stack = more;
                }
                if (push) {
                    stack[n++] = (visit){start, 0};
                    status = need(&seen, start);
                    continue;
                }
            }
            if (n == 0) break;
            visit *v = &stack[n - 1];
            if (v->next < v->node->n_inputs) {
                const pg_node *child = v->node->edges[v->next++].node;
                if (child && !is_needed(&seen, child)) {
                    status = need(&seen, child);
                    stack[n++] = (visit){child, 0};
                }
                continue;
            }
            for (int k = 0; k < v->node->n_inputs && status >= 0; k++)
                if (edge_needed(r, &v->node->edges[k])) {
                    status = need(r, v->node);
                    break;
                }
            n--;
        }
    }
    free(stack);
    free(seen.needed);
    return status;
}

static int make_captures(pg_backward_run *r, const pg_tensor *const *inputs, int n) {
    if (!(r->captures = pg_calloc((size_t)n, sizeof *r->captures))) return pg_out_of_memory((size_t)n * sizeof *r->captures);
    for (int i = 0; i < n; i++) {
        if (!inputs[i] || inputs[i]->magic != PG_HANDLE_MAGIC || !inputs[i]->impl)
            return pg_fail("input %d: expected a tensor, got a freed one or none", i);
        if (!pg_requires(inputs[i])) return pg_fail("one of the differentiated tensors does not require grad (input %d)", i);
        int status = pg_refresh_view(inputs[i]->impl);
        if (status < 0) return status;
        pg_impl *x = inputs[i]->impl;
        r->captures[i] = (capture){x->grad_fn ? (const void *)x->grad_fn : x, x->grad_fn ? x->output_nr : 0, PG_HANDLE};
        r->captures_n = i + 1;
    }
    return PG_OK;
}

int pg_backward_begin(pg_backward_run **out, const pg_tensor *const *roots, int roots_n, const pg_tensor *const *grads,
                      int grads_n, const pg_tensor *const *inputs, int inputs_n, bool retain_graph, bool create_graph,
                      bool allow_unused) {
    const char *op_before = pg_error_set_op("backward");
    pg_backward_run *r = pg_calloc(1, sizeof *r);
    int status = r ? PG_OK : pg_out_of_memory(sizeof *r);
    if (status >= 0) {
        r->retain = retain_graph || create_graph;
        r->create = create_graph;
        r->allow_unused = allow_unused;
        if (grads && grads_n != roots_n) status = pg_fail("got %d tensors and %d gradients", roots_n, grads_n);
    }
    for (int i = 0; i < roots_n && status >= 0; i++) {
        status = check_root(roots[i], grads ? grads[i] : NULL);
        if (status >= 0) status = pg_refresh_view(roots[i]->impl);
    }
    if (status >= 0 && inputs && inputs_n > 0) {
        status = make_captures(r, inputs, inputs_n);
        if (status >= 0) status = mark_needed(r, roots, roots_n);
    }
    bool before = pg_grad_set(create_graph);
    for (int i = 0; i < roots_n && status >= 0; i++) status = add_root(r, roots[i], grads ? grads[i] : NULL);
    pg_grad_set(before);
    pg_error_set_op(op_before);
    if (status < 0) {
        pg_backward_end(r);
        return status;
    }
    *out = r;
    return PG_OK;
}
