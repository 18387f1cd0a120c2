#include "autocast.h"

#include <stdlib.h>
#include <string.h>

#include "../core/debt.h"
#include "../core/scope.h"
#include "../device/device.h"
#include "tape.h"

enum { CPU, CUDA, TYPES };

PG_THREAD unsigned pg_autocast_mode;

/* What a region changes. */
typedef struct settings { unsigned mode; int dtype[TYPES]; bool uncached; } settings;
static PG_THREAD int dtypes[TYPES];      /* 0: the default */
static PG_THREAD bool uncached;
static PG_THREAD settings *saved;        /* what regions go back to, the outermost first */
static PG_THREAD int depth, room;

/* Conversions of leaves, by the leaf's address: a table of `slots` places, linear probing; held references. */
typedef struct conversion { pg_impl *source, *copy; unsigned version; } conversion;
static PG_THREAD conversion *cache;
static PG_THREAD int slots, used;

static void cache_clear(void) {
    for (int i = 0; i < slots; i++)
        if (cache[i].source) {
            pg_impl_unhold(cache[i].source);
            pg_impl_unhold(cache[i].copy);
        }
    free(cache);
    cache = NULL;
    slots = used = 0;
}
static conversion *place_of(const pg_impl *source) {
    uint64_t h = (uint64_t)(uintptr_t)source * UINT64_C(0x9e3779b97f4a7c15) >> 32;
    while (cache[h % (unsigned)slots].source && cache[h % (unsigned)slots].source != source) h++;
    return &cache[h % (unsigned)slots];
}
static bool cache_room(void) {
    if (2 * (used + 1) <= slots) return true;
    conversion *before = cache, *more = pg_malloc((size_t)(slots ? 2 * slots : 64) * sizeof *more);
    const int n = slots;
    if (!more) return false;
    slots = n ? 2 * n : 64;
    memset(more, 0, (size_t)slots * sizeof *more);
    cache = more;
    for (int i = 0; i < n; i++)
        if (before[i].source) *place_of(before[i].source) = before[i];
    free(before);
    return true;
}

/* ---- conversions ---- */

static int type_of(const pg_device *d) { return strcmp(d->type, "cuda") == 0 ? CUDA : CPU; }
static int low_dtype(int type) { return dtypes[type] ? dtypes[type] : type == CUDA ? PG_FLOAT16 : PG_BFLOAT16; }

void pg_autocast_begin_slow(pg_autocast *a, const pg_door *d, int kind, bool given) {
    if (d->before || given || !d->device) return;
    const int type = type_of(d->device);
    if (!(pg_autocast_mode >> type & 1) || (kind & PG_AUTOCAST_CUDA && type != CUDA)) return;
    a->kind = kind & ~PG_AUTOCAST_CUDA;
    a->dtype = a->kind == PG_AUTOCAST_LOW || a->kind == PG_AUTOCAST_LOSS ? low_dtype(type) : a->kind == PG_AUTOCAST_F32 ? PG_FLOAT32 : -1;
    a->type = type;
    a->list = NULL;
    pg_pool_begin(&a->pool);
}

static bool eligible(const pg_autocast *a, const pg_tensor *t) {
    return pg_is_float(t->impl->dtype) && t->impl->dtype != PG_FLOAT64 && type_of(pg_device_of(t)) == a->type;
}

void pg_autocast_see(pg_autocast *a, const pg_tensor *t) {
    if (!t || !eligible(a, t)) return;
    a->dtype = a->dtype < 0 ? t->impl->dtype : pg_promote_types(a->dtype, t->impl->dtype);
}

/* x, a leaf that requires gradients, in `dtype`: out of the cache, or into it. */
static int converted_leaf(pg_tensor *out, const pg_tensor *t, int dtype) {
    pg_impl *x = t->impl;
    conversion *c = slots ? place_of(x) : NULL;
    if (c && c->source) {
        if (c->version == pg_version_of(x) && c->copy->dtype == dtype && c->copy->storage && (c->copy->grad_fn || !pg_grad_enabled())) {
            out->impl = pg_impl_retain(c->copy);
            return PG_OK;
        }
    }
    int status = pg_to_dtype(out, t, dtype);
    if (status < 0) return status;
    if (!c || !c->source) {
        if (!cache_room()) return PG_OK;   /* no memory for the cache: the conversion itself is there */
        c = place_of(x);
        c->source = pg_impl_hold(x);
        c->copy = NULL;
        used++;
    }
    pg_impl_unhold(c->copy);
    c->copy = pg_impl_hold(out->impl);
    c->version = pg_version_of(x);
    return PG_OK;
}

int pg_autocast_tensor(pg_autocast *a, const pg_tensor **t) {
    if (!*t || a->dtype < 0 || !eligible(a, *t) || (*t)->impl->dtype == a->dtype) return PG_OK;
    const pg_impl *x = (*t)->impl;
    pg_tensor *out = pg_pool_new(&a->pool);
    if (a->pool.status < 0) return a->pool.status;
    const bool low = a->kind == PG_AUTOCAST_LOW || a->kind == PG_AUTOCAST_LOSS;
    const bool kept = !uncached && low && x->dtype == PG_FLOAT32 && x->requires_grad && !x->grad_fn && !x->base;
    const int status = kept ? converted_leaf(out, *t, a->dtype) : pg_to_dtype(out, *t, a->dtype);
    if (status < 0) return status;
    *t = out;
    return PG_OK;
}

int pg_autocast_list(pg_autocast *a, const pg_tensor *const **list, int n) {
    if (n <= 0) return PG_OK;
    if (!(a->list = pg_malloc((size_t)n * sizeof *a->list))) return pg_out_of_memory((size_t)n * sizeof *a->list);
    int status = PG_OK;
    for (int i = 0; i < n && status >= 0; i++) {
        a->list[i] = (*list)[i];
        status = pg_autocast_tensor(a, &a->list[i]);
    }
    *list = a->list;
    return status;
}

int pg_autocast_end(pg_autocast *a, int status) {
    if (a->kind == PG_AUTOCAST_NONE) return status;
    free(a->list);
    pg_pool_end(&a->pool);
    return status;
}

/* ---- regions ---- */

static int type_named(const char *name, const char *what) {
    if (name && strcmp(name, "cpu") == 0) return CPU;
    if (name && (strcmp(name, "cuda") == 0)) return CUDA;
    return pg_fail("%s: expected a device type, 'cpu' or 'cuda', got '%s'", what, name ? name : "nil");
}

int pg_autocast_enter(int *token, const char *device_type, int dtype, int enabled, int cache_enabled) {
    const int type = type_named(device_type, "autocast");
    if (type < 0) return type;
    if (dtype >= 0 && dtype != PG_FLOAT16 && dtype != PG_BFLOAT16)
        return pg_fail("autocast: expected dtype float16 or bfloat16, got %s", dtype < PG_DTYPES ? pg_dtype_name(dtype) : "an unknown one");
    if (depth == room) {
        const int more = room ? 2 * room : 8;
        settings *grown = pg_realloc(saved, (size_t)more * sizeof *grown);
        if (!grown) return pg_out_of_memory((size_t)more * sizeof *grown);
        saved = grown;
        room = more;
    }
    saved[depth] = (settings){.mode = pg_autocast_mode, .dtype = {dtypes[CPU], dtypes[CUDA]}, .uncached = uncached};
    *token = depth++;
    pg_autocast_mode = (pg_autocast_mode & ~(1u << type)) | (enabled ? 1u << type : 0);
    dtypes[type] = dtype < 0 ? (type == CUDA ? PG_FLOAT16 : PG_BFLOAT16) : dtype;
    uncached = !cache_enabled;
    return PG_OK;
}

int pg_autocast_leave(int token) {
    if (token < 0 || token >= depth) return pg_fail("an autocast region was left that is not open");
    const bool in_order = token == depth - 1;
    const settings *s = &saved[token];
    pg_autocast_mode = s->mode;
    for (int i = 0; i < TYPES; i++) dtypes[i] = s->dtype[i];
    uncached = s->uncached;
    depth = token;
    if (depth == 0) {
        cache_clear();
        free(saved);
        saved = NULL;
        room = 0;
    }
    if (!in_order)
        return pg_fail("autocast regions were not left in reverse order: a coroutine must not yield inside autocast");
    return PG_OK;
}

int pg_is_autocast_enabled(const char *device_type) {
    const int type = type_named(device_type, "is_autocast_enabled");
    return type < 0 ? type : (int)(pg_autocast_mode >> type & 1);
}
int pg_get_autocast_dtype(const char *device_type) {
    const int type = type_named(device_type, "get_autocast_dtype");
    return type < 0 ? type : low_dtype(type);
}
int pg_is_autocast_cache_enabled(void) { return !uncached; }
