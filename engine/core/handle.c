/* handle.c: what the interface tells about a tensor. */
#include "../autograd/tape.h"
#include "live.h"

static const pg_impl *live(const pg_tensor *t) {
    if (!t || t->magic != PG_HANDLE_MAGIC || !t->impl || !t->impl->storage) return NULL;
    return t->impl;
}

static int not_live(const char *what) { return pg_fail("%s: expected a tensor, got a freed one or none", what); }

int pg_tensor_retain(pg_tensor *out, const pg_tensor *t) {
    if (!live(t)) return not_live("retain");
    if (!out || out->magic != PG_HANDLE_MAGIC || out->impl) return pg_fail("retain: expected an empty handle");
    pg_share(out, t);
    return PG_OK;
}

int pg_tensor_free(pg_tensor *t) {
    if (!t || t->magic != PG_HANDLE_MAGIC) return not_live("free");
    pg_tensor_release(t);
    return PG_OK;
}

double pg_tensor_id(const pg_tensor *t) { return live(t) ? (double)t->impl->id : 0; }
int pg_tensor_dtype(const pg_tensor *t) { return live(t) ? t->impl->dtype : -1; }
int pg_tensor_dim(const pg_tensor *t) { return live(t) ? t->impl->ndim : -1; }
double pg_tensor_numel(const pg_tensor *t) { return live(t) ? (double)t->impl->numel : -1; }

int pg_tensor_sizes(const pg_tensor *t, int64_t *sizes) {
    if (!live(t)) return -1;
    for (int i = 0; i < t->impl->ndim; i++) sizes[i] = t->impl->shape[i];
    return t->impl->ndim;
}

int pg_tensor_strides(const pg_tensor *t, int64_t *strides) {
    if (!live(t)) return -1;
    for (int i = 0; i < t->impl->ndim; i++) strides[i] = t->impl->stride[i];
    return t->impl->ndim;
}

double pg_tensor_storage_offset(const pg_tensor *t) { return live(t) ? (double)t->impl->offset : -1; }
const char *pg_tensor_device(const pg_tensor *t) { return live(t) ? pg_device_of(t)->name : NULL; }
int pg_tensor_is_contiguous(const pg_tensor *t) { return live(t) ? t->impl->contiguous : -1; }
int pg_tensor_requires_grad(const pg_tensor *t) { return live(t) ? pg_requires(t) : -1; }
int pg_tensor_is_leaf(const pg_tensor *t) { return live(t) ? !t->impl->grad_fn : -1; }
int pg_tensor_is_view(const pg_tensor *t) { return live(t) ? t->impl->base != NULL : -1; }
int pg_tensor_retains_grad(const pg_tensor *t) { return live(t) ? t->impl->retains_grad : -1; }
double pg_tensor_version(const pg_tensor *t) { return live(t) ? (double)pg_version_of(t->impl) : -1; }

int pg_tensor_same_storage(const pg_tensor *a, const pg_tensor *b) {
    return live(a) && live(b) ? a->impl->storage == b->impl->storage : -1;
}

void *pg_tensor_data_ptr(const pg_tensor *t) {
    if (!live(t)) {
        not_live("data_ptr");
        return NULL;
    }
    if (!pg_device_of(t)->host) {
        pg_fail("data_ptr: the tensor is on %s, whose memory the host cannot read", pg_device_of(t)->name);
        return NULL;
    }
    t->impl->storage->exposed = true;
    return pg_data(t);
}

const char *pg_tensor_grad_fn(const pg_tensor *t) {
    if (!live(t) || pg_refresh_view(t->impl) < 0 || !t->impl->grad_fn) return NULL;
    return pg_node_name(t->impl->grad_fn);
}

int pg_detach(pg_tensor *out, const pg_tensor *t) {
    if (!live(t)) return not_live("detach");
    if (!out || out->magic != PG_HANDLE_MAGIC || out->impl) return pg_fail("detach: expected an empty handle");
    return pg_alias_same(out, t);
}

int pg_mark_dirty(const pg_tensor *t) {
    if (!live(t)) return not_live("mark_dirty");
    pg_bump_version(t);
    return PG_OK;
}
