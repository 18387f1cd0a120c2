/* tensor.h: what stands behind a handle.
 *
 * A pg_impl is a strided view of a storage, reference-counted (atomically: threads may pass tensors on). Views share storage and
 * version counter. Inside the engine tensors travel as handles too (pg_tensor): an op gets `const pg_tensor *` inputs that the door
 * has checked (live, right device) and fills the empty handle `out`.
 */
#ifndef PG_TENSOR_H
#define PG_TENSOR_H

#include <stdatomic.h>

#include "../device/device.h"
#include "dtype.h"

typedef struct pg_node pg_node;
typedef struct pg_scope pg_scope;
typedef struct pg_stream_use pg_stream_use;

typedef struct pg_storage {
    atomic_int refs;
    atomic_uint version;          /* counts in-place changes: shared by a tensor, its views and its detached twins */
    bool exposed;                 /* its address was given out: it stays, and is never swapped */
    void *data;
    size_t bytes, got;            /* asked for; what the allocator gave */
    const pg_device *device;
    pg_allocator *from;           /* whose memory this is; NULL where release says how it goes */
    void (*release)(struct pg_storage *s);
    void *owner;                  /* for release: a mapped file */
    pg_stream_use *uses;          /* streams other than the pool's own that use it (device/stream.h), or NULL */
    atomic_int watched;           /* ops put off that read this, and one where its own elements wait for such: deferred.h */
    struct pg_deferred *deferred; /* how its elements come about that wait, or NULL */
} pg_storage;

/* Computes what s waits for, and what would read it. */
void pg_settle(pg_storage *s);

/* Made by a view op: plain; one of several (split, unbind, chunk); made without gradient mode. The last two refuse in-place
 * changes that would need the base's history. */
enum { PG_VIEW_NONE, PG_VIEW_PLAIN, PG_VIEW_MULTI, PG_VIEW_NO_GRAD };

/* Sizes and strides of up to so many dimensions lie in the struct itself: tensors that wait for Lua's collector by the thousand
 * should touch few cache lines. */
enum { PG_FEW_DIMS = 4 };

struct pg_impl {
    atomic_int refs;
    uint8_t dtype, ndim;
    uint8_t view_kind;
    bool requires_grad;           /* set by the user on a leaf; for others grad_fn says it */
    bool retains_grad;
    bool contiguous;              /* kept up to date by pg_impl_geometry */
    uint8_t scoped;               /* lives in a scope's list */
    atomic_int held;              /* how many of refs the engine's own structures own: bases, leaves of edges, .grad (scope.h) */
    pg_storage *storage;
    int64_t offset, numel;        /* elements */
    pg_node *grad_fn;             /* owned; with output_nr */
    pg_impl *base;                /* of a view: the tensor that is no view; owned */
    pg_impl *grad;                /* of a leaf or a retained one; owned */
    int32_t output_nr;
    uint32_t view_generation;     /* the base's history generation that grad_fn belongs to */
    uint32_t generation;          /* of a base: counts changes of history through views */
    uint64_t id;
    double hook_id;               /* 0: no hooks */
    int64_t *shape, *stride;      /* ndim each; in `few`, or a block of their own (pg_impl_room) */
    int64_t few[2 * PG_FEW_DIMS];
    pg_scope *scope;              /* where scoped: the list that x is on; the rest is undefined where not */
    pg_impl *scope_older, *scope_younger;
};

static inline void *pg_data(const pg_tensor *t) {
    const pg_impl *x = t->impl;
    if (__builtin_expect(atomic_load_explicit(&x->storage->watched, memory_order_relaxed) != 0, 0)) pg_settle(x->storage);
    return (char *)x->storage->data + x->offset * pg_size_of(x->dtype);
}
static inline const pg_device *pg_device_of(const pg_tensor *t) { return t->impl->storage->device; }
static inline int pg_ndim(const pg_tensor *t) { return t->impl->ndim; }
static inline int pg_dtype_of(const pg_tensor *t) { return t->impl->dtype; }
static inline int64_t pg_numel(const pg_tensor *t) { return t->impl->numel; }
static inline const int64_t *pg_shape(const pg_tensor *t) { return t->impl->shape; }
static inline int64_t pg_dim_size(const pg_tensor *t, int d) { return t->impl->shape[d]; }

/* ---- making ---- */

/* A new tensor with memory of its own, contiguous, elements undefined. Fails for ndim > PG_DIMS_MAX, negative or overflowing sizes. */
int pg_new(pg_tensor *out, const pg_device *device, int dtype, int ndim, const int64_t *shape);
static inline int pg_new_like(pg_tensor *out, const pg_tensor *x, int dtype) {
    return pg_new(out, pg_device_of(x), dtype, x->impl->ndim, x->impl->shape);
}
/* The same with memory from a pool that is not the device's usual one. */
int pg_new_from(pg_tensor *out, const pg_device *device, pg_allocator *from, int dtype, int ndim, const int64_t *shape);
/* A 0-dim tensor of a value. */
int pg_new_scalar(pg_tensor *out, const pg_device *device, int dtype, double value);
/* out becomes a tensor over x's storage with another geometry (offset in elements from the storage's start), without history and
 * without view relation. */
int pg_alias(pg_tensor *out, const pg_tensor *x, int ndim, const int64_t *shape, const int64_t *stride, int64_t offset);
/* The same geometry: PyTorch's detach. */
int pg_alias_same(pg_tensor *out, const pg_tensor *x);
/* A differentiable view: alias, view relation and (given a rule) history; see pg_record for args. */
typedef struct pg_rule pg_rule;
int pg_view_of(pg_tensor *out, const pg_tensor *x, int ndim, const int64_t *shape, const int64_t *stride, int64_t offset,
               int view_kind, const pg_rule *rule, const void *args, size_t args_size);
/* A tensor over memory that is not the allocator's; release(storage) is called with owner when the last user goes. */
int pg_wrap(pg_tensor *out, const pg_device *device, int dtype, int ndim, const int64_t *shape, void *memory, size_t bytes,
            void (*release)(pg_storage *), void *owner);

/* ---- references ---- */

pg_impl *pg_impl_retain(pg_impl *x);
void pg_impl_release(pg_impl *x);     /* NULL is fine; frees chains of history without recursion */
/* References that an engine structure owns, and that keep a tensor through the end of its scope. adopt: the reference is there. */
static inline pg_impl *pg_impl_adopt(pg_impl *x) {
    atomic_fetch_add_explicit(&x->held, 1, memory_order_relaxed);
    return x;
}
static inline pg_impl *pg_impl_hold(pg_impl *x) { return pg_impl_adopt(pg_impl_retain(x)); }
static inline void pg_impl_unhold(pg_impl *x) {
    if (!x) return;
    atomic_fetch_sub_explicit(&x->held, 1, memory_order_release);
    pg_impl_release(x);
}
/* A handle that borrows: never released. */
static inline pg_tensor pg_borrow(pg_impl *x) { return (pg_tensor){PG_HANDLE_MAGIC, 0, x}; }
/* Moves from's reference into the empty handle out. */
static inline void pg_move(pg_tensor *out, pg_tensor *from) { out->impl = from->impl; from->impl = NULL; }
static inline void pg_share(pg_tensor *out, const pg_tensor *x) { out->impl = pg_impl_retain(x->impl); }

/* ---- geometry ---- */

/* Product of sizes; -1 where it overflows or a size is negative. */
int64_t pg_product(const int64_t *shape, int ndim);
void pg_dense_strides(int64_t *stride, const int64_t *shape, int ndim);
/* Makes room for ndim sizes and strides, whose values are then undefined. */
int pg_impl_room(pg_impl *x, int ndim);
/* Recomputes numel and contiguous. */
void pg_impl_geometry(pg_impl *x);
bool pg_same_shape(const pg_tensor *a, const pg_tensor *b);
/* Wraps a negative dimension; error "dimension out of range (expected to be in [-2, 1], but got 5)". ndim 0 counts as 1. */
int pg_wrap_dim(int *out, int64_t dim, int ndim);
/* The set of dims (NULL or n = 0 with all_when_empty: all) as a mask. Duplicates are errors. */
int pg_dim_mask(uint32_t *mask, const int64_t *dims, int n, int ndim, bool all_when_empty);
/* Broadcasts b's shape into shape/ndim (in place). Error: "shapes do not broadcast: [2, 3] and [4]". */
int pg_broadcast(int64_t *shape, int *ndim, const int64_t *b, int b_ndim);
/* "[2, 3]" into a buffer of PG_TEXT bytes; returns it. */
enum { PG_TEXT = 192 };
const char *pg_shape_text(char *buffer, const int64_t *shape, int ndim);
/* pg_text(t): shape of a tensor as text, in an expression. */
#define pg_text(t) pg_shape_text((char[PG_TEXT]){0}, (t)->impl->shape, (t)->impl->ndim)

/* ---- strided iteration ---- */

/* Operand k of s over shape (broadcast, aligned at the right); operands are added in order. */
void pg_strided_begin(pg_strided *s, int ndim, const int64_t *shape);
void pg_strided_add(pg_strided *s, const pg_tensor *t);
/* The same for x whose elements begin at data, and for dense elements of s's own shape. */
void pg_strided_add_at(pg_strided *s, const pg_impl *x, void *data);
void pg_strided_add_dense(pg_strided *s, void *data);
void pg_strided_add_value(pg_strided *s, pg_value value);
/* Orders and coalesces dimensions. Call last. */
void pg_strided_end(pg_strided *s);

/* ---- basic conversions used by every family (no history) ---- */

/* Elements copied (converted, broadcast) into `to`, which may have any strides; devices may differ. */
int pg_copy_into(const pg_tensor *to, const pg_tensor *from);
/* The same, but between pinned memory and another device the copy may run after the return: when the stream comes to it. */
int pg_copy_into_later(const pg_tensor *to, const pg_tensor *from);
/* out: x itself where it already is contiguous (shared), else a dense copy. */
int pg_dense(pg_tensor *out, const pg_tensor *x);
/* out: x converted (shared where dtype is the same already). */
int pg_converted(pg_tensor *out, const pg_tensor *x, int dtype);
/* Both: dense and of dtype. */
int pg_dense_as(pg_tensor *out, const pg_tensor *x, int dtype);
int pg_fill_value(const pg_tensor *t, pg_value v);
pg_value pg_value_of(const pg_number *n, int dtype);

/* ---- in-place ---- */

void pg_bump_version(const pg_tensor *t);
static inline unsigned pg_version_of(const pg_impl *x) { return atomic_load_explicit(&x->storage->version, memory_order_relaxed); }

/* Scopes see every tensor made through pg_new and friends: scope.h. */
void pg_scope_note(pg_impl *x);
void pg_scope_forget(pg_impl *x);

#endif
