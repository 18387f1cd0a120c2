/* safetensors.c: reading and writing tensors by name (the safetensors format).
 *
 * A file is u64le n | n bytes of JSON | data. Nothing it says is believed: every length is checked against
 * the bytes that the file really has before anything is allocated, and the tensors must tile the data without
 * gap and overlap.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/tensor.h"
#include "json.h"

static const int64_t HEADER_MAX = 100000000;
enum { NAME_SHOWN = 100 };   /* of a name in a message */

/* dtypes of the format; those without a counterpart here can be listed, not loaded. */
static const struct { const char *name; int dtype, size; } dtypes[] = {
    {"BOOL", PG_BOOL, 1}, {"U8", PG_UINT8, 1}, {"I8", PG_INT8, 1}, {"I16", PG_INT16, 2}, {"I32", PG_INT32, 4},
    {"I64", PG_INT64, 8}, {"F16", PG_FLOAT16, 2}, {"BF16", PG_BFLOAT16, 2}, {"F32", PG_FLOAT32, 4},
    {"F64", PG_FLOAT64, 8},
    {"U16", -1, 2}, {"U32", -1, 4}, {"U64", -1, 8}, {"F8_E4M3", -1, 1}, {"F8_E5M2", -1, 1}, {"C64", -1, 8},
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

typedef struct entry {
    const char *name;
    int type, ndim;               /* type: position in dtypes */
    int64_t shape[PG_DIMS_MAX], begin, end;
} entry;

typedef struct pair { const char *key, *value; } pair;

/* A mapped file, kept by the open file and by every tensor over it. */
typedef struct mapping { atomic_int refs; char *memory; size_t bytes; } mapping;

struct pg_safetensors {
    int file;
    char *path, *header;
    int64_t data_start, data_bytes;
    entry *entries;
    int entries_n, entries_room;
    pair *metadata;
    int metadata_n, metadata_room;
    mapping *map;
};

/* ---- errors ---- */

static const char *errno_text(char *buffer, size_t size) { return strerror_r(errno, buffer, size); }
#define os_error() errno_text((char[128]){0}, 128)
#define bad_file(f, ...) bad_file_at((f)->path, __VA_ARGS__)
static int bad_file_at(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

static int bad_file_at(const char *path, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return pg_fail_status(PG_ERROR_IO, "safetensors file '%.300s': %s", path, text);
}

static int bad_json(const pg_safetensors *f, const pg_json *j)
{
    return bad_file(f, "the header is not as it should be: %s at byte %zu", j->error,
                    8 + pg_json_position(j));
}

/* ---- reading bytes ---- */

/* Exactly n bytes at offset. */
static int read_at(const pg_safetensors *f, void *to, int64_t n, int64_t offset)
{
    char *at = to;
    while (n > 0) {
        ssize_t got = pread(f->file, at, n > 1 << 30 ? 1 << 30 : (size_t)n, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return bad_file(f, "cannot be read: %s", os_error());
        if (got == 0) return bad_file(f, "ended while it was read: %lld bytes are missing", (long long)n);
        at += got;
        offset += got;
        n -= got;
    }
    return PG_OK;
}

/* ---- the header ---- */

static void *grow(void *items, int n, int *room, size_t size)
{
    if (n < *room) return items;
    int wanted = *room ? 2 * *room : 16;
    void *more = pg_realloc(items, (size_t)wanted * size);
    if (more) *room = wanted;
    return more;
}

/* {"key": "value", ...} behind its brace. */
static int read_metadata(pg_safetensors *f, pg_json *j)
{
    int token = pg_json_next(j);
    if (token == '}') return PG_OK;
    for (; token == PG_JSON_STRING; token = pg_json_next(j)) {
        pair p = {j->string, NULL};
        if (!pg_json_expect(j, ':', "expected ':'") ||
            !pg_json_expect(j, PG_JSON_STRING, "metadata values are strings"))
            return bad_json(f, j);
        p.value = j->string;
        pair *more = grow(f->metadata, f->metadata_n, &f->metadata_room, sizeof *more);
        if (!more) return pg_out_of_memory((size_t)f->metadata_n * sizeof *more);
        f->metadata = more;
        f->metadata[f->metadata_n++] = p;
        token = pg_json_next(j);
        if (token == '}') return PG_OK;
        if (token != ',') break;
    }
    pg_json_fail(j, "expected a key of the metadata");
    return bad_json(f, j);
}

/* [n, n, ...] behind its bracket; false with an error. Returns how many. */
static int read_integers(pg_json *j, int64_t *values, int most, const char *too_many)
{
    int n = 0, token = pg_json_next(j);
    if (token == ']') return 0;
    for (;; token = pg_json_next(j)) {
        int64_t v;
        if (token != PG_JSON_NUMBER || !pg_json_integer(j, &v)) {
            pg_json_fail(j, "expected a non-negative integer below 2^63");
            return -1;
        }
        if (n == most) {
            pg_json_fail(j, too_many);
            return -1;
        }
        values[n++] = v;
        token = pg_json_next(j);
        if (token == ']') return n;
        if (token != ',') {
            pg_json_fail(j, "expected ',' or ']'");
            return -1;
        }
    }
}

/* {"dtype": ..., "shape": ..., "data_offsets": ...} behind its brace. */
static int read_entry(pg_safetensors *f, pg_json *j, entry *e)
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    int seen = 0, token = pg_json_next(j);
    int64_t offsets[2];
    bool done = token == '}';
    for (; token == PG_JSON_STRING; token = pg_json_next(j)) {
        const char *key = j->string;
        int field = strcmp(key, "dtype") == 0 ? DTYPE : strcmp(key, "shape") == 0 ? SHAPE
            : strcmp(key, "data_offsets") == 0 ? OFFSETS : 0;
        if (seen & field) return bad_file(f, "tensor '%.*s' has two fields '%s'", NAME_SHOWN, e->name, key);
        seen |= field;
        if (!pg_json_expect(j, ':', "expected ':'")) return bad_json(f, j);
        if (field == DTYPE) {
            if (!pg_json_expect(j, PG_JSON_STRING, "a dtype is a string")) return bad_json(f, j);
            for (e->type = 0; e->type < DTYPES && strcmp(dtypes[e->type].name, j->string) != 0; e->type++) {}
            if (e->type == DTYPES)
                return bad_file(f, "tensor '%.*s' has the unknown dtype '%.30s'", NAME_SHOWN, e->name,
                                j->string);
        } else if (field == SHAPE) {
            if (!pg_json_expect(j, '[', "a shape is a list")) return bad_json(f, j);
            e->ndim = read_integers(j, e->shape, PG_DIMS_MAX, "a shape of more than 16 dimensions is not "
                                                              "supported");
            if (e->ndim < 0) return bad_json(f, j);
        } else if (field == OFFSETS) {
            if (!pg_json_expect(j, '[', "data_offsets is a list")) return bad_json(f, j);
            int n = read_integers(j, offsets, 2, "data_offsets has two numbers");
            if (n >= 0 && n < 2) pg_json_fail(j, "data_offsets has two numbers");
            if (n < 2) return bad_json(f, j);
        } else if (!pg_json_skip(j, pg_json_next(j))) {
            return bad_json(f, j);
        }
        token = pg_json_next(j);
        done = token == '}';
        if (done) break;
        if (token != ',') {
            pg_json_fail(j, "expected ',' or '}'");
            return bad_json(f, j);
        }
    }
    if (!done) {
        pg_json_fail(j, "expected a field of a tensor");
        return bad_json(f, j);
    }
    if (seen != (DTYPE | SHAPE | OFFSETS))
        return bad_file(f, "tensor '%.*s' has no field '%s'", NAME_SHOWN, e->name,
                        !(seen & DTYPE) ? "dtype" : !(seen & SHAPE) ? "shape" : "data_offsets");
    e->begin = offsets[0];
    e->end = offsets[1];
    return PG_OK;
}

static int read_header(pg_safetensors *f, size_t n)
{
    pg_json j;
    if (!pg_is_utf8(f->header, n)) return bad_file(f, "the header is not UTF-8");
    pg_json_begin(&j, f->header, n);
    if (n == 0 || f->header[0] != '{') return bad_file(f, "the header does not start with '{'");
    if (!pg_json_expect(&j, '{', "the header starts with '{'")) return bad_json(f, &j);
    bool metadata = false, done = false;
    int token = pg_json_next(&j);
    done = token == '}';
    for (; token == PG_JSON_STRING; token = pg_json_next(&j)) {
        const char *name = j.string;
        int status;
        if (!pg_json_expect(&j, ':', "expected ':'") || !pg_json_expect(&j, '{', "expected an object"))
            return bad_json(f, &j);
        if (strcmp(name, "__metadata__") == 0) {
            if (metadata) return bad_file(f, "there is more than one '__metadata__'");
            metadata = true;
            status = read_metadata(f, &j);
        } else {
            entry *more = grow(f->entries, f->entries_n, &f->entries_room, sizeof *more);
            if (!more) return pg_out_of_memory((size_t)f->entries_n * sizeof *more);
            f->entries = more;
            entry *e = &f->entries[f->entries_n++];
            e->name = name;
            status = read_entry(f, &j, e);
        }
        if (status < 0) return status;
        token = pg_json_next(&j);
        done = token == '}';
        if (done) break;
        if (token != ',') {
            pg_json_fail(&j, "expected ',' or '}'");
            return bad_json(f, &j);
        }
    }
    if (!done) {
        pg_json_fail(&j, "expected a name");
        return bad_json(f, &j);
    }
    if (!pg_json_expect(&j, PG_JSON_END, "there is text behind the header's object")) return bad_json(f, &j);
    return PG_OK;
}

/* ---- what the header says must fit the file ---- */

static int by_name(const void *p, const void *q)
{
    return strcmp((*(entry *const *)p)->name, (*(entry *const *)q)->name);
}
static int by_key(const void *p, const void *q)
{
    return strcmp(((const pair *)p)->key, ((const pair *)q)->key);
}

static int by_place(const void *p, const void *q)
{
    const entry *a = *(entry *const *)p, *b = *(entry *const *)q;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return a->end < b->end ? -1 : a->end > b->end;
}

static int check_sizes(const pg_safetensors *f, const entry *e)
{
    int64_t n = pg_product(e->shape, e->ndim), bytes;
    if (n < 0 || __builtin_mul_overflow(n, dtypes[e->type].size, &bytes))
        return bad_file(f, "tensor '%.*s': the shape's product overflows", NAME_SHOWN, e->name);
    if (e->begin > e->end || e->end > f->data_bytes)
        return bad_file(f, "tensor '%.*s': data_offsets [%lld, %lld] are not within the %lld bytes of data",
                        NAME_SHOWN, e->name, (long long)e->begin, (long long)e->end,
                        (long long)f->data_bytes);
    if (e->end - e->begin != bytes)
        return bad_file(f, "tensor '%.*s': %lld bytes of data, but %s of shape %s has %lld", NAME_SHOWN,
                        e->name, (long long)(e->end - e->begin), dtypes[e->type].name,
                        pg_shape_text((char[PG_TEXT]){0}, e->shape, e->ndim), (long long)bytes);
    return PG_OK;
}

static int check_header(pg_safetensors *f)
{
    int n = f->entries_n, status = PG_OK;
    for (int i = 0; i < n && status >= 0; i++) status = check_sizes(f, &f->entries[i]);
    entry **order = pg_malloc((size_t)(n > 0 ? n : 1) * sizeof *order);
    if (!order) return pg_out_of_memory((size_t)n * sizeof *order);
    for (int i = 0; i < n; i++) order[i] = &f->entries[i];
    if (n > 1) qsort(order, (size_t)n, sizeof *order, by_name);
    for (int i = 1; i < n && status >= 0; i++)
        if (strcmp(order[i - 1]->name, order[i]->name) == 0)
            status = bad_file(f, "the tensor '%.*s' is there twice", NAME_SHOWN, order[i]->name);
    if (n > 1) qsort(order, (size_t)n, sizeof *order, by_place);
    int64_t reached = 0;
    for (int i = 0; i < n && status >= 0; i++) {
        if (order[i]->begin != reached)
            status = bad_file(f, "tensor '%.*s': its data starts at %lld, expected %lld: tensors leave no "
                                 "gap and do not overlap", NAME_SHOWN, order[i]->name,
                                 (long long)order[i]->begin, (long long)reached);
        reached = order[i]->end;
    }
    if (status >= 0 && reached != f->data_bytes)
        status = bad_file(f, "%lld bytes of data, but the tensors end at %lld", (long long)f->data_bytes,
                          (long long)reached);
    free(order);
    if (f->metadata_n > 1) qsort(f->metadata, (size_t)f->metadata_n, sizeof *f->metadata, by_key);
    for (int i = 1; i < f->metadata_n && status >= 0; i++)
        if (strcmp(f->metadata[i - 1].key, f->metadata[i].key) == 0)
            status = bad_file(f, "the metadata's key '%.*s' is there twice", NAME_SHOWN, f->metadata[i].key);
    return status;
}

/* ---- opening ---- */

static void mapping_release(mapping *m)
{
    if (!m || atomic_fetch_sub(&m->refs, 1) != 1) return;
    munmap(m->memory, m->bytes);
    free(m);
}

static int map_file(pg_safetensors *f, int64_t bytes)
{
    mapping *m = pg_malloc(sizeof *m);
    if (!m) return pg_out_of_memory(sizeof *m);
    /* private: a tensor over it may be changed, the file is not */
    m->memory = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, f->file, 0);
    if (m->memory == MAP_FAILED) {
        free(m);
        return bad_file(f, "cannot be mapped: %s", os_error());
    }
    m->bytes = (size_t)bytes;
    atomic_init(&m->refs, 1);
    f->map = m;
    return PG_OK;
}

static int open_file(pg_safetensors *f, bool map)
{
    /* not blocking: a pipe without a writer must not hold the caller */
    f->file = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat s;
    if (f->file < 0 || fstat(f->file, &s) < 0) return bad_file(f, "cannot be opened: %s", os_error());
    if (!S_ISREG(s.st_mode)) return bad_file(f, "is not a file");
    int64_t size = s.st_size;
    unsigned char first[8];
    if (size < 8)
        return bad_file(f, "has %lld bytes, fewer than the 8 of the header's length", (long long)size);
    int status = read_at(f, first, 8, 0);
    if (status < 0) return status;
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | first[i];
    if (n > (uint64_t)HEADER_MAX)
        return bad_file(f, "the header's length is given as %llu, more than %lld", (unsigned long long)n,
                        (long long)HEADER_MAX);
    if ((int64_t)n > size - 8)
        return bad_file(f, "the header's length is given as %llu, but the file has only %lld bytes",
                        (unsigned long long)n, (long long)size);
    f->header = pg_malloc((size_t)n + 1);
    if (!f->header) return pg_out_of_memory((size_t)n + 1);
    if ((status = read_at(f, f->header, (int64_t)n, 8)) < 0) return status;
    f->data_start = 8 + (int64_t)n;
    f->data_bytes = size - f->data_start;
    if ((status = read_header(f, (size_t)n)) < 0 || (status = check_header(f)) < 0) return status;
    return map ? map_file(f, size) : PG_OK;
}

int pg_safetensors_open(pg_safetensors **file, const char *path, bool map)
{
    if (!file || !path) return pg_fail("safetensors: expected a path, got nil");
    pg_safetensors *f = pg_calloc(1, sizeof *f);
    if (!f) return pg_out_of_memory(sizeof *f);
    f->file = -1;
    f->path = pg_strdup(path);
    int status = f->path ? open_file(f, map) : pg_out_of_memory(strlen(path));
    if (status < 0) pg_safetensors_close(f);
    else *file = f;
    return status;
}

void pg_safetensors_close(pg_safetensors *f)
{
    if (!f) return;
    if (f->file >= 0) close(f->file);
    mapping_release(f->map);
    free(f->entries);
    free(f->metadata);
    free(f->header);
    free(f->path);
    free(f);
}

int pg_safetensors_count(const pg_safetensors *file) { return file ? file->entries_n : 0; }
int pg_safetensors_metadata_count(const pg_safetensors *file) { return file ? file->metadata_n : 0; }

const char *pg_safetensors_name(const pg_safetensors *file, int k)
{
    return file && k >= 0 && k < file->entries_n ? file->entries[k].name : NULL;
}

const char *pg_safetensors_metadata_key(const pg_safetensors *file, int k)
{
    return file && k >= 0 && k < file->metadata_n ? file->metadata[k].key : NULL;
}

const char *pg_safetensors_metadata_value(const pg_safetensors *file, int k)
{
    return file && k >= 0 && k < file->metadata_n ? file->metadata[k].value : NULL;
}

/* ---- a tensor ---- */

static void storage_release(pg_storage *s) { mapping_release(s->owner); }

/* Bytes other than 0 and 1 in a file's bools are true. */
static void clean_bools(unsigned char *bytes, int64_t n)
{
    for (int64_t i = 0; i < n; i++) bytes[i] = bytes[i] != 0;
}

static int load(pg_tensor *out, const pg_safetensors *f, const entry *e, const pg_device *device)
{
    int dtype = dtypes[e->type].dtype;
    int64_t bytes = e->end - e->begin, at = f->data_start + e->begin;
    /* a bool's bytes may need cleaning, an unaligned tensor must be moved */
    if (f->map && device->host && bytes > 0 && dtype != PG_BOOL && at % dtypes[e->type].size == 0) {
        int status = pg_wrap(out, device, dtype, e->ndim, e->shape, f->map->memory + at, (size_t)bytes,
                             storage_release, f->map);
        if (status >= 0) atomic_fetch_add(&f->map->refs, 1);
        return status;
    }
    pg_tensor host = PG_HANDLE;
    int status = pg_new(&host, pg_device_cpu(), dtype, e->ndim, e->shape);
    if (status >= 0 && f->map && bytes > 0) memcpy(pg_data(&host), f->map->memory + at, (size_t)bytes);
    else if (status >= 0) status = read_at(f, pg_data(&host), bytes, at);
    if (status >= 0 && dtype == PG_BOOL) clean_bools(pg_data(&host), bytes);
    if (status >= 0 && !device->host) {
        status = pg_new(out, device, dtype, e->ndim, e->shape);
        if (status >= 0) status = device->from_host(device, pg_data(out), pg_data(&host), (size_t)bytes);
    } else if (status >= 0) {
        pg_move(out, &host);
    }
    pg_tensor_release(&host);
    if (status < 0) pg_tensor_release(out);
    return status;
}

int pg_safetensors_tensor(pg_tensor *out, pg_safetensors *file, int k, const char *device)
{
    if (!out || out->magic != PG_HANDLE_MAGIC || out->impl)
        return pg_fail("safetensors: expected an empty handle");
    if (!file || k < 0 || k >= file->entries_n)
        return pg_fail_status(PG_ERROR_INDEX, "safetensors: no tensor %d (there are %d)", k,
                              file ? file->entries_n : 0);
    const pg_device *d;
    int status = pg_device_find(&d, device ? device : "cpu");
    if (status < 0) return status;
    const entry *e = &file->entries[k];
    if (dtypes[e->type].dtype < 0)
        return bad_file(file, "tensor '%.*s' has dtype %s, which is not supported", NAME_SHOWN, e->name,
                        dtypes[e->type].name);
    return load(out, file, e, d);
}

/* ---- saving ---- */

typedef struct writer {
    int file, failed;             /* failed: errno */
    char *buffer;
    size_t n;
} writer;
enum { BUFFER_BYTES = 1 << 16 };

static void write_out(writer *w, const char *bytes, size_t n)
{
    while (n > 0 && !w->failed) {
        ssize_t put = write(w->file, bytes, n > 1 << 30 ? 1 << 30 : n);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) {
            w->failed = put < 0 ? errno : EIO;
            return;
        }
        bytes += put;
        n -= (size_t)put;
    }
}

static void flush(writer *w)
{
    write_out(w, w->buffer, w->n);
    w->n = 0;
}

static void put_bytes(writer *w, const char *bytes, size_t n)
{
    if (n > BUFFER_BYTES - w->n) flush(w);
    if (n > BUFFER_BYTES) {
        write_out(w, bytes, n);
        return;
    }
    memcpy(w->buffer + w->n, bytes, n);
    w->n += n;
}

/* Text that is being made; the header, in memory. */
typedef struct text { char *bytes; size_t n, room; bool failed; } text;

static void append(text *t, const char *bytes, size_t n)
{
    if (t->failed) return;
    if (t->room - t->n < n) {
        size_t room = t->room ? t->room : 4096;
        while (room - t->n < n) room *= 2;
        char *more = pg_realloc(t->bytes, room);
        if (!more) {
            t->failed = true;
            return;
        }
        t->bytes = more;
        t->room = room;
    }
    memcpy(t->bytes + t->n, bytes, n);
    t->n += n;
}

static void append_text(text *t, const char *s) { append(t, s, strlen(s)); }

static void append_string(text *t, const char *s)
{
    append_text(t, "\"");
    for (const char *p = s; *p; p++) {
        char escaped[8];
        if (*p == '"' || *p == '\\') {
            escaped[0] = '\\';
            escaped[1] = *p;
            append(t, escaped, 2);
        } else if ((unsigned char)*p < 0x20) {
            append(t, escaped, (size_t)snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)*p));
        } else {
            append(t, p, 1);
        }
    }
    append_text(t, "\"");
}

static void append_integer(text *t, int64_t v)
{
    char digits[32];
    append(t, digits, (size_t)snprintf(digits, sizeof digits, "%lld", (long long)v));
}

typedef struct item { const char *name; const pg_tensor *tensor; int type; int64_t bytes; } item;

/* Larger elements first, so that all are aligned; then by name. */
static int by_alignment(const void *p, const void *q)
{
    const item *a = p, *b = q;
    int x = dtypes[a->type].size, y = dtypes[b->type].size;
    return x != y ? y - x : strcmp(a->name, b->name);
}

static int by_item_name(const void *p, const void *q)
{
    return strcmp(((const item *)p)->name, ((const item *)q)->name);
}

static int check_save(item *items, const char *const *names, const pg_tensor *const *tensors, int n,
                      const char *const *keys, const char *const *values, int metadata_n)
{
    if (n < 0 || metadata_n < 0 || (n > 0 && (!names || !tensors)) || (metadata_n > 0 && (!keys || !values)))
        return pg_fail("safetensors: expected names and tensors");
    for (int i = 0; i < n; i++) {
        const pg_tensor *t = tensors[i];
        if (!names[i]) return pg_fail("safetensors: tensor %d has no name", i);
        if (!pg_is_utf8(names[i], strlen(names[i])))
            return pg_fail("safetensors: the name of tensor %d is not UTF-8", i);
        if (strcmp(names[i], "__metadata__") == 0)
            return pg_fail("safetensors: a tensor cannot be called '__metadata__'");
        if (!t || t->magic != PG_HANDLE_MAGIC || !t->impl || !t->impl->storage)
            return pg_fail("safetensors: '%.*s': expected a tensor, got a freed one or something else",
                           NAME_SHOWN, names[i]);
        int type = 0;
        while (type < DTYPES && dtypes[type].dtype != pg_dtype_of(t)) type++;
        items[i] = (item){names[i], t, type, pg_numel(t) * dtypes[type].size};
    }
    if (n > 1) qsort(items, (size_t)n, sizeof *items, by_item_name);
    for (int i = 1; i < n; i++)
        if (strcmp(items[i - 1].name, items[i].name) == 0)
            return pg_fail("safetensors: two tensors are called '%.*s'", NAME_SHOWN, items[i].name);
    if (n > 1) qsort(items, (size_t)n, sizeof *items, by_alignment);
    for (int i = 0; i < metadata_n; i++) {
        if (!keys[i] || !values[i]) return pg_fail("safetensors: metadata are strings, got nil at %d", i);
        if (!pg_is_utf8(keys[i], strlen(keys[i])) || !pg_is_utf8(values[i], strlen(values[i])))
            return pg_fail("safetensors: the metadata's entry %d is not UTF-8", i);
        for (int k = 0; k < i; k++)
            if (strcmp(keys[k], keys[i]) == 0)
                return pg_fail("safetensors: the metadata's key '%.*s' is given twice", NAME_SHOWN, keys[i]);
    }
    return PG_OK;
}

static void make_header(text *t, const item *items, int n, const char *const *keys, const char *const *values,
                        int metadata_n)
{
    append(t, "\0\0\0\0\0\0\0\0{", 9);
    if (metadata_n > 0) {
        append_text(t, "\"__metadata__\":{");
        for (int i = 0; i < metadata_n; i++) {
            if (i > 0) append_text(t, ",");
            append_string(t, keys[i]);
            append_text(t, ":");
            append_string(t, values[i]);
        }
        append_text(t, n > 0 ? "}," : "}");
    }
    int64_t at = 0;
    for (int i = 0; i < n; i++) {
        const pg_impl *x = items[i].tensor->impl;
        if (i > 0) append_text(t, ",");
        append_string(t, items[i].name);
        append_text(t, ":{\"dtype\":\"");
        append_text(t, dtypes[items[i].type].name);
        append_text(t, "\",\"shape\":[");
        for (int k = 0; k < x->ndim; k++) {
            if (k > 0) append_text(t, ",");
            append_integer(t, x->shape[k]);
        }
        append_text(t, "],\"data_offsets\":[");
        append_integer(t, at);
        append_text(t, ",");
        append_integer(t, at += items[i].bytes);
        append_text(t, "]}");
    }
    append_text(t, "}");
    while (t->n % 8 != 0 && !t->failed) append_text(t, " ");
    for (int i = 0; i < 8 && !t->failed; i++) t->bytes[i] = (char)((uint64_t)(t->n - 8) >> (8 * i));
}

static int write_tensor(writer *w, const item *it)
{
    pg_tensor dense = PG_HANDLE;
    const pg_device *d = pg_device_of(it->tensor);
    int status = pg_dense(&dense, it->tensor);
    if (status >= 0 && d->host) {
        put_bytes(w, pg_data(&dense), (size_t)it->bytes);
    } else if (status >= 0) {
        /* in pieces: the host need not hold it all */
        enum { PIECE = 16 << 20 };
        char *piece = pg_malloc(PIECE);
        if (!piece) status = pg_out_of_memory(PIECE);
        for (int64_t done = 0; done < it->bytes && status >= 0;) {
            size_t n = it->bytes - done < PIECE ? (size_t)(it->bytes - done) : PIECE;
            status = d->to_host(d, piece, (const char *)pg_data(&dense) + done, n);
            if (status >= 0) put_bytes(w, piece, n);
            done += (int64_t)n;
        }
        free(piece);
    }
    pg_tensor_release(&dense);
    return status;
}

/* The folder's entry of a renamed file reaches the disk too. */
static void sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : pg_strdup(".");
    int file = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (file >= 0) {
        fsync(file);
        close(file);
    }
    free(folder);
}

static int write_file(const char *path, const char *temporary, const text *header, const item *items, int n)
{
    writer w = {.buffer = pg_malloc(BUFFER_BYTES)};
    if (!w.buffer) return pg_out_of_memory(BUFFER_BYTES);
    struct stat before;
    bool replaces = stat(path, &before) == 0;
    int status = PG_OK;
    w.file = -1;
    if (replaces && !S_ISREG(before.st_mode))
        status = bad_file_at(path, "cannot be saved: it is there and is no file");
    if (status >= 0 && (w.file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) < 0)
        status = bad_file_at(path, "cannot be saved: %s", os_error());
    if (status >= 0) {
        if (replaces && fchmod(w.file, before.st_mode & 07777) < 0) w.failed = errno;
        put_bytes(&w, header->bytes, header->n);
        for (int i = 0; i < n && status >= 0 && !w.failed; i++) status = write_tensor(&w, &items[i]);
        flush(&w);
        if (!w.failed && fsync(w.file) < 0) w.failed = errno;
        if (close(w.file) < 0 && !w.failed) w.failed = errno;
        if (status >= 0 && !w.failed && rename(temporary, path) < 0) w.failed = errno;
        if (w.failed) {
            errno = w.failed;
            status = bad_file_at(path, "cannot be saved (what was there before is untouched): %s",
                                 os_error());
        }
        if (status < 0) unlink(temporary);
        else sync_folder(path);
    }
    free(w.buffer);
    return status;
}

/* A file size limit answers with a signal that ends the process; here it is to be an error like a full
 * disk. */
typedef struct quiet { sigset_t limit, before; bool pending; } quiet;

static void quiet_begin(quiet *q)
{
    sigset_t pending;
    sigemptyset(&q->limit);
    sigaddset(&q->limit, SIGXFSZ);
    sigemptyset(&pending);
    sigpending(&pending);
    q->pending = sigismember(&pending, SIGXFSZ) == 1;
    pthread_sigmask(SIG_BLOCK, &q->limit, &q->before);
}

static void quiet_end(quiet *q)
{
    const struct timespec none = {0, 0};
    if (!q->pending)
        while (sigtimedwait(&q->limit, NULL, &none) == SIGXFSZ) {}
    pthread_sigmask(SIG_SETMASK, &q->before, NULL);
}

int pg_safetensors_save(const char *path, const char *const *names, const pg_tensor *const *tensors,
                        int tensors_n, const char *const *keys, const char *const *values, int metadata_n)
{
    if (!path || !*path) return pg_fail("safetensors: expected a path to save to");
    item *items = pg_malloc((size_t)(tensors_n > 0 ? tensors_n : 1) * sizeof *items);
    if (!items) return pg_out_of_memory((size_t)tensors_n * sizeof *items);
    text header = {0};
    char *temporary = NULL;
    int status = check_save(items, names, tensors, tensors_n, keys, values, metadata_n);
    if (status >= 0) {
        make_header(&header, items, tensors_n, keys, values, metadata_n);
        if (header.failed) status = pg_out_of_memory(header.room * 2);
        else if (header.n - 8 > (size_t)HEADER_MAX)
            status = pg_fail("safetensors: the header would have %zu bytes, at most %lld are allowed",
                             header.n - 8, (long long)HEADER_MAX);
    }
    if (status >= 0) {
        static atomic_uint count;
        size_t n = strlen(path) + 64;
        temporary = pg_malloc(n);
        if (!temporary) status = pg_out_of_memory(n);
        else snprintf(temporary, n, "%s.saving-%ld-%u", path, (long)getpid(), atomic_fetch_add(&count, 1));
    }
    if (status >= 0) {
        quiet q;
        quiet_begin(&q);
        status = write_file(path, temporary, &header, items, tensors_n);
        quiet_end(&q);
    }
    free(temporary);
    free(header.bytes);
    free(items);
    return status;
}
