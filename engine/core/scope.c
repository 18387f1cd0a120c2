/* scope.c: see scope.h. */
#include "scope.h"

#include <pthread.h>
#include <stdlib.h>

#include "../autograd/tape.h"
#include "live.h"

struct pg_scope {
    struct pg_scope *around;
    pg_impl *youngest;        /* the list, linked through scope_older and scope_younger */
    int token;
};

static PG_THREAD struct {
    pg_scope *innermost;
    int suspended;            /* depth */
    int token;                /* the last given out */
} here __attribute__((tls_model("initial-exec")));

/* One lock for all lists: a tensor may be released by another thread than the one whose scope lists it. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void link_into(pg_scope *s, pg_impl *x)
{
    x->scope = s;
    x->scope_younger = NULL;
    x->scope_older = s->youngest;
    if (s->youngest) s->youngest->scope_younger = x;
    s->youngest = x;
    x->scoped = 1;
}

static void take_out(pg_impl *x)
{
    pg_scope *s = x->scope;
    if (x->scope_younger) x->scope_younger->scope_older = x->scope_older;
    else s->youngest = x->scope_older;
    if (x->scope_older) x->scope_older->scope_younger = x->scope_younger;
    x->scoped = 0;
}

void pg_scope_note(pg_impl *x)
{
    if (!here.innermost || here.suspended) return;
    pthread_mutex_lock(&mutex);
    link_into(here.innermost, x);
    pthread_mutex_unlock(&mutex);
}

void pg_scope_forget(pg_impl *x)
{
    pthread_mutex_lock(&mutex);
    if (x->scoped) take_out(x);
    pthread_mutex_unlock(&mutex);
}

int pg_scope_enter(int *token)
{
    if (!token) return pg_fail("scope: expected a place for the token, got NULL");
    pg_scope *s = pg_malloc(sizeof *s);
    if (!s) return pg_out_of_memory(sizeof *s);
    *s = (pg_scope){here.innermost, NULL, ++here.token};
    here.innermost = s;
    *token = s->token;
    return PG_OK;
}

static const pg_impl *live(const pg_tensor *t)
{
    return t && t->magic == PG_HANDLE_MAGIC && t->impl && t->impl->storage ? t->impl : NULL;
}

int pg_scope_keep(const pg_tensor *t)
{
    if (!live(t)) return pg_fail("scope keep: expected a tensor, got a freed one or none");
    pg_impl *x = t->impl;
    pthread_mutex_lock(&mutex);
    if (x->scoped && x->scope == here.innermost) {
        pg_scope *around = x->scope->around;
        take_out(x);
        if (around) link_into(around, x);
    }
    pthread_mutex_unlock(&mutex);
    return PG_OK;
}

int pg_scope_exempt(const pg_tensor *t)
{
    if (!live(t)) return pg_fail("scope keep: expected a tensor, got a freed one or none");
    pg_scope_forget(t->impl);
    return PG_OK;
}

/* Drops what x holds. The caller owns a reference to x. */
static void empty(pg_impl *x)
{
    if (x->retains_grad && x->grad_fn) pg_node_forget_retained(x->grad_fn, x);
    x->retains_grad = false;
    pg_storage *storage = x->storage;
    pg_node *history = x->grad_fn;
    pg_impl *grad = x->grad, *base = x->base;
    x->storage = NULL;
    x->grad_fn = NULL;
    x->grad = NULL;
    x->base = NULL;
    x->view_kind = PG_VIEW_NONE;
    if (storage) pg_storage_release(storage);
    if (history) pg_node_release(history);
    pg_impl_unhold(grad);
    pg_impl_unhold(base);
}

/* Takes a reference to x if the one that there is belongs to a handle. */
static bool claim(pg_impl *x)
{
    int one = 1;
    return atomic_load_explicit(&x->held, memory_order_acquire) == 0 &&
        atomic_compare_exchange_strong(&x->refs, &one, 2);
}

/* Empties what can go now; true if anything went. */
static bool sweep(pg_scope *s)
{
    /* youngest first, linked through scope_older */
    pg_impl *doomed = NULL, **end = &doomed;
    pthread_mutex_lock(&mutex);
    for (pg_impl *x = s->youngest, *older; x; x = older) {
        older = x->scope_older;
        if (!claim(x)) continue;
        take_out(x);
        x->scope_older = NULL;
        *end = x;
        end = &x->scope_older;
    }
    pthread_mutex_unlock(&mutex);
    if (!doomed) return false;
    for (pg_impl *x = doomed; x; x = x->scope_older) empty(x);
    while (doomed) {
        pg_impl *x = doomed;
        doomed = x->scope_older;
        pg_impl_release(x);
    }
    return true;
}

int pg_scope_leave(int token)
{
    pg_scope **place = &here.innermost;
    while (*place && (*place)->token != token) place = &(*place)->around;
    pg_scope *s = *place;
    if (!s)
        return pg_fail("scope: a scope is left that this thread is not in (does a coroutine yield inside "
                       "one?)");
    bool innermost = place == &here.innermost;
    /* left out of order: nothing is emptied, what it lists goes to the scope around */
    while (innermost && sweep(s)) {}
    pthread_mutex_lock(&mutex);
    *place = s->around;
    pg_impl *oldest = s->youngest;
    while (oldest && oldest->scope_older) oldest = oldest->scope_older;
    for (pg_impl *x = oldest, *younger; x; x = younger) {
        younger = x->scope_younger;
        take_out(x);
        if (s->around) link_into(s->around, x);
    }
    pthread_mutex_unlock(&mutex);
    free(s);
    if (!innermost)
        return pg_fail("scope: scopes end in reverse order, and one inside has not ended (does a coroutine "
                       "yield inside one?)");
    return PG_OK;
}

int pg_scope_suspend(int *token)
{
    *token = here.suspended++;
    return PG_OK;
}

int pg_scope_resume(int token)
{
    if (here.suspended == 0 || token != here.suspended - 1) {
        if (token >= 0 && token < here.suspended) here.suspended = token;
        return pg_fail("scope: suspended stretches end in reverse order (does a coroutine yield inside "
                       "one?)");
    }
    here.suspended = token;
    return PG_OK;
}
