#include "node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Atomic uint64_t next_sequence = 1;
static atomic_long live_nodes;

long pg_live_nodes(void) { return atomic_load_explicit(&live_nodes, memory_order_relaxed); }

/* ---- memory: nodes of common size are kept by the thread that freed them, linked through their first word ---- */

#ifdef __SANITIZE_ADDRESS__
enum { NODE_BYTES = 0, KEEP_MAX = 0 };
#else
enum { NODE_BYTES = 640, KEEP_MAX = 1 << 14 };
#endif
static PG_THREAD struct { void *first; int n; } kept;

static void *node_memory(size_t bytes) {
    if (bytes > NODE_BYTES) return pg_malloc(bytes);
    void *n = kept.first;
    if (!n) return pg_malloc(NODE_BYTES);
    kept.first = *(void **)n;
    kept.n--;
    return n;
}

static void node_memory_give(pg_node *n) {
    if (n->bytes > NODE_BYTES || kept.n >= KEEP_MAX) {
        free(n);
        return;
    }
    *(void **)n = kept.first;
    kept.first = n;
    kept.n++;
}

/* ---- edges ---- */

int pg_edge_of(pg_edge *e, const pg_tensor *t) {
    e->node = NULL;
    e->leaf = NULL;
    e->nr = 0;
    if (!t) return PG_OK;
    pg_impl *x = t->impl;
    int status = pg_refresh_view(x);
    if (status < 0) return status;
    if (x->grad_fn) {
        e->node = pg_node_retain(x->grad_fn);
        e->nr = x->output_nr;
    } else if (x->requires_grad) {
        e->leaf = pg_impl_hold(x);
    }
    return PG_OK;
}

void pg_edge_release(pg_edge *e) {
    if (e->node) pg_node_release(e->node);
    pg_impl_unhold(e->leaf);
    e->node = NULL;
    e->leaf = NULL;
}

/* ---- life ---- */

pg_node *pg_node_retain(pg_node *n) {
    atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
    return n;
}

static void save_release(pg_save *s) {
    pg_impl_unhold(s->tensor);
    s->tensor = NULL;
}

void pg_node_spend(pg_node *n) {
    if (n->n_saved > 0) n->freed = true;
    for (int i = 0; i < n->n_saved; i++) save_release(&n->saved[i]);
    for (pg_watch *w = n->watches; w; w = w->next) {
        if (w->hook_id == 0) continue;
        pg_dead_id(w->hook_id);
        w->hook_id = 0;
        n->freed = true;
    }
}

static void node_dispose(pg_node *n) {
    for (int i = 0; i < n->n_saved; i++) save_release(&n->saved[i]);
    for (int i = 0; i < n->n_inputs; i++) pg_edge_release(&n->edges[i]);
    while (n->watches) {
        pg_watch *w = n->watches;
        n->watches = w->next;
        if (w->hook_id != 0) pg_dead_id(w->hook_id);
        free(w);
    }
    if (n->custom_id != 0) pg_dead_id(n->custom_id);
    if (n->rule->free_args) n->rule->free_args(n->args);
    free(n->custom_name);
    atomic_fetch_sub_explicit(&live_nodes, 1, memory_order_relaxed);
    node_memory_give(n);
}

/* Nodes whose last reference went while another was being taken apart wait here: a chain of any length is freed in a loop. */
static PG_THREAD pg_node *waiting;
static PG_THREAD bool releasing;

void pg_node_release(pg_node *n) {
    if (!n || atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1) return;
    n->waiting = waiting;
    waiting = n;
    if (releasing) return;
    releasing = true;
    while (waiting) {
        n = waiting;
        waiting = n->waiting;
        node_dispose(n);
    }
    releasing = false;
}

const char *pg_node_name(const pg_node *n) {
    static PG_THREAD char name[64];
    if (n->custom_name) {
        snprintf(name, sizeof name, "%.54sBackward", n->custom_name);
        return name;
    }
    /* "log_softmax" prints as LogSoftmaxBackward0, PyTorch's way */
    int k = 0;
    bool upper = true;
    for (const char *s = n->rule->name; *s && k < 48; s++) {
        if (*s == '_' || *s == '.') { upper = true; continue; }
        name[k++] = (char)(upper && *s >= 'a' && *s <= 'z' ? *s - 32 : *s);
        upper = false;
    }
    snprintf(name + k, sizeof name - (size_t)k, "Backward0");
    return name;
}

/* ---- recording ---- */

bool pg_will_record(int n, const pg_tensor *const *inputs) {
    if (!pg_grad_enabled()) return false;
    for (int i = 0; i < n; i++)
        if (inputs[i] && pg_requires(inputs[i])) return true;
    return false;
}

static void fill_slot(pg_slot *s, const pg_tensor *t, int64_t *sizes, int *used) {
    if (!t) {
        *s = (pg_slot){NULL, -1, 0, 0};
        return;
    }
    const pg_impl *x = t->impl;
    *s = (pg_slot){x->storage->device, (int8_t)x->dtype, x->ndim, *used};
    for (int i = 0; i < x->ndim; i++) sizes[*used + i] = x->shape[i];
    *used += x->ndim;
}

int pg_node_make(pg_node **out, const pg_rule *rule, int n_outputs, pg_tensor *const *outputs, int n_inputs,
                 const pg_tensor *const *inputs, int saved_max, const void *args, size_t args_size) {
    size_t dims = 0;
    for (int i = 0; i < n_inputs; i++) dims += inputs[i] ? inputs[i]->impl->ndim : 0;
    for (int i = 0; i < n_outputs; i++) dims += outputs[i]->impl->ndim;
    size_t head = (sizeof(pg_node) + 15) & ~(size_t)15, edges = (size_t)n_inputs * sizeof(pg_edge),
           slots = (size_t)(n_inputs + n_outputs) * sizeof(pg_slot), sizes = dims * sizeof(int64_t),
           saves = (size_t)saved_max * sizeof(pg_save), bytes = head + edges + slots + sizes + saves + args_size + 64;
    pg_node *n = node_memory(bytes);
    if (!n) return pg_out_of_memory(bytes);
    memset(n, 0, head);
    n->bytes = bytes;
    char *p = (char *)n + head;
    n->sizes = (int64_t *)p; p += sizes;
    n->edges = (pg_edge *)p; p += edges;
    n->inputs = (pg_slot *)p; p += (size_t)n_inputs * sizeof(pg_slot);
    n->outputs = (pg_slot *)p; p += (size_t)n_outputs * sizeof(pg_slot);
    n->saved = (pg_save *)p; p += saves;
    n->args = (void *)(((uintptr_t)p + 15) & ~(uintptr_t)15);
    atomic_init(&n->refs, 1);
    n->rule = rule;
    n->n_outputs = n_outputs;
    if (args_size) memcpy(n->args, args, args_size);
    atomic_fetch_add_explicit(&live_nodes, 1, memory_order_relaxed);
    int used = 0;
    for (int i = 0; i < n_inputs; i++) {
        fill_slot(&n->inputs[i], inputs[i], n->sizes, &used);
        int status = pg_edge_of(&n->edges[i], inputs[i]);
        n->n_inputs = i + 1;
        if (status < 0) {
            pg_node_release(n);
            return status;
        }
    }
    for (int i = 0; i < n_outputs; i++) fill_slot(&n->outputs[i], outputs[i], n->sizes, &used);
    /* after the edges: refreshing a view makes a node that this one must be younger than */
    n->sequence = atomic_fetch_add_explicit(&next_sequence, 1, memory_order_relaxed);
    *out = n;
    return PG_OK;
}

int pg_node_save(pg_node *n, const pg_tensor *t, int which, bool is_output) {
    pg_save *s = &n->saved[n->n_saved];
    *s = (pg_save){NULL, pg_version_of(t->impl), (int16_t)which, is_output};
    const pg_impl *x = t->impl;
    if (!is_output && x->requires_grad && !x->grad_fn) {
        s->tensor = pg_impl_hold(t->impl);
    } else {
        /* an alias, because a later in-place change may give t itself a history that leads here */
        int scope, status = pg_scope_suspend(&scope);
        if (status < 0) return status;
        pg_tensor alias = PG_HANDLE;
        status = pg_alias_same(&alias, t);
        pg_scope_resume(scope);
        if (status < 0) return status;
        s->tensor = pg_impl_adopt(alias.impl);
        if (!is_output && x->grad_fn) {
            s->tensor->grad_fn = pg_node_retain(x->grad_fn);
            s->tensor->output_nr = x->output_nr;
        }
    }
    n->n_saved++;
    return PG_OK;
}

void pg_node_attach(pg_node *n, int n_outputs, pg_tensor *const *outputs) {
    for (int i = 0; i < n_outputs; i++) {
        pg_impl *x = outputs[i]->impl;
        if (!pg_is_float(x->dtype)) continue;
        x->grad_fn = pg_node_retain(n);
        x->output_nr = i;
    }
    pg_node_release(n);
}

int pg_record(const pg_rule *rule, int n_outputs, pg_tensor *const *outputs, int n_inputs, const pg_tensor *const *inputs,
              const void *args, size_t args_size) {
    if (!pg_will_record(n_inputs, inputs)) return PG_OK;
    uint32_t wanted = n_inputs > PG_INPUTS_MAX ? rule->uses[0] : 0;
    for (int i = 0; i < n_inputs && n_inputs <= PG_INPUTS_MAX; i++)
        if (inputs[i] && pg_requires(inputs[i])) wanted |= rule->uses[i];
    pg_node *n;
    int status = pg_node_make(&n, rule, n_outputs, outputs, n_inputs, inputs, __builtin_popcount(wanted), args, args_size);
    for (int k = 0; status >= 0 && wanted >> k; k++) {
        if (!(wanted & PG_USE(k))) continue;
        bool is_output = k >= PG_OUT(0);
        const pg_tensor *t = is_output ? outputs[k - PG_OUT(0)] : k < n_inputs ? inputs[k] : NULL;
        if (t && t->impl && (status = pg_node_save(n, t, k, is_output)) < 0) pg_node_release(n);
    }
    if (status < 0) {
        for (int i = 0; i < n_outputs; i++) pg_tensor_release(outputs[i]);
        return status;
    }
    pg_node_attach(n, n_outputs, outputs);
    return PG_OK;
}

/* ---- what rules ask ---- */

int pg_node_check(const pg_node *n) {
    if (!n->freed) return PG_OK;
    return pg_fail("trying to run backward a second time through %s, whose saved tensors (or hooks) have been freed: give "
                   "retain_graph = true the first time", pg_node_name(n));
}

int pg_node_unpack(pg_tensor *out, pg_node *n, const pg_save *s) {
    if (!s->tensor) return pg_node_check(n);
    if (pg_version_of(s->tensor) != s->version)
        return pg_fail("one of the tensors needed for the gradient of '%s' has been modified by an in-place operation: %s of "
                       "shape %s is at version %u, expected version %u", n->custom_name ? n->custom_name : n->rule->name,
                       s->is_output ? "its output" : "its input",
                       pg_shape_text((char[PG_TEXT]){0}, s->tensor->shape, s->tensor->ndim), pg_version_of(s->tensor), s->version);
    if (!s->is_output) {
        out->impl = pg_impl_retain(s->tensor);
        return PG_OK;
    }
    pg_tensor kept_alias = pg_borrow(s->tensor);
    int status = pg_alias_same(out, &kept_alias);
    if (status < 0 || !pg_is_float(s->tensor->dtype)) return status;
    out->impl->grad_fn = pg_node_retain(n);
    out->impl->output_nr = s->which >= PG_OUT(0) ? s->which - PG_OUT(0) : s->which;
    return PG_OK;
}

const pg_tensor *pg_saved(pg_backward *b, int which) {
    pg_tensor *t = pg_pool_new(b->pool);
    for (int i = 0; i < b->node->n_saved && b->pool->status >= 0; i++)
        if (b->node->saved[i].which == which) {
            pg_pool_note(b->pool, pg_node_unpack(t, b->node, &b->node->saved[i]));
            return t;
        }
    if (b->pool->status >= 0)
        pg_pool_note(b->pool, pg_fail("the rule of '%s' reads a tensor (%d) that it does not save", b->node->rule->name, which));
    return t;
}

pg_tensor *pg_saved_last(pg_backward *b, int which) {
    pg_save *s = NULL;
    for (int i = 0; i < b->node->n_saved; i++)
        if (b->node->saved[i].which == which && b->node->saved[i].is_output) s = &b->node->saved[i];
    if (!b->last || b->pool->status < 0 || !s || !s->tensor) return NULL;
    const pg_storage *memory = s->tensor->storage;
    if (atomic_load_explicit(&memory->refs, memory_order_acquire) != 1 || memory->exposed) return NULL;
    pg_tensor *t = pg_pool_new(b->pool);
    if (b->pool->status >= 0) pg_pool_note(b->pool, pg_node_unpack(t, b->node, s));
    if (b->pool->status < 0) return NULL;
    b->node->freed = true;
    return t;
}

static pg_meta meta_of(const pg_node *n, const pg_slot *s) {
    return (pg_meta){s->device, s->dtype, s->ndim, n->sizes + s->first};
}

pg_meta pg_input_meta(const pg_backward *b, int k) { return meta_of(b->node, &b->node->inputs[k]); }
pg_meta pg_output_meta(const pg_backward *b, int k) { return meta_of(b->node, &b->node->outputs[k]); }

/* ---- watches ---- */

int pg_node_watch(pg_watch **out, pg_node *n, int nr) {
    for (pg_watch *w = n->watches; w; w = w->next)
        if (w->nr == nr) {
            *out = w;
            return PG_OK;
        }
    pg_watch *w = pg_calloc(1, sizeof *w);
    if (!w) return pg_out_of_memory(sizeof *w);
    w->nr = nr;
    w->next = n->watches;
    n->watches = w;
    *out = w;
    return PG_OK;
}

void pg_node_forget_retained(pg_node *n, const pg_impl *x) {
    for (pg_watch *w = n->watches; w; w = w->next)
        if (w->retained == x) w->retained = NULL;
}

/* ---- in-place changes of what a node's own op saved ---- */

int pg_node_isolate(pg_node *n, const pg_storage *s) {
    for (int i = 0; n && i < n->n_saved; i++) {
        pg_save *save = &n->saved[i];
        if (!save->tensor || save->tensor->storage != s || save->is_output) continue;
        pg_tensor now = pg_borrow(save->tensor), apart = PG_HANDLE;
        int scope, status = pg_scope_suspend(&scope);
        if (status < 0) return status;
        status = pg_new_like(&apart, &now, now.impl->dtype);
        if (status >= 0) status = pg_copy_into(&apart, &now);
        pg_scope_resume(scope);
        if (status < 0) {
            pg_tensor_release(&apart);
            return status;
        }
        if (now.impl->grad_fn) {
            apart.impl->grad_fn = pg_node_retain(now.impl->grad_fn);
            apart.impl->output_nr = now.impl->output_nr;
        }
        save_release(save);
        save->tensor = pg_impl_adopt(apart.impl);
        save->version = pg_version_of(apart.impl);
    }
    return PG_OK;
}
