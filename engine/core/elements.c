/* elements.c: elements in from Lua and out to it. NaNs leave canonical: LuaJIT keeps its tags in the others. */
#include <math.h>
#include <string.h>

#include "tensor.h"

static int check_live(const pg_tensor *t, const char *what) {
    if (!t || t->magic != PG_HANDLE_MAGIC || !t->impl || !t->impl->storage)
        return pg_fail("%s: expected a tensor, got a freed one or none", what);
    return PG_OK;
}

static int check_empty(const pg_tensor *out, const char *what) {
    if (!out || out->magic != PG_HANDLE_MAGIC || out->impl) return pg_fail("%s: expected an empty handle", what);
    return PG_OK;
}

static const int64_t lowest[] = {0, 0, -128, -32768, INT32_MIN, INT64_MIN}, highest[] = {1, 255, 127, 32767, INT32_MAX, INT64_MAX};

static int check_range(const double *d, const int64_t *i, int64_t n, int dtype) {
    if (pg_is_float(dtype) || dtype == PG_BOOL) return PG_OK;
    for (int64_t k = 0; k < n; k++) {
        if (d && isnan(d[k])) return pg_fail("cannot convert float NaN to integer (%s)", pg_dtype_name(dtype));
        double whole = d ? trunc(d[k]) : 0;
        bool bad = d ? dtype == PG_INT64 ? !(whole >= -0x1p63 && whole < 0x1p63)
                                         : whole < (double)lowest[dtype] || whole > (double)highest[dtype]
                     : i[k] < lowest[dtype] || i[k] > highest[dtype];
        if (bad && d) return pg_fail("value %g cannot be converted to type %s without overflow", d[k], pg_dtype_name(dtype));
        if (bad) return pg_fail("value %lld cannot be converted to type %s without overflow", (long long)i[k], pg_dtype_name(dtype));
    }
    return PG_OK;
}

/* Moves a dense host tensor to the device that was asked for. */
static int place(pg_tensor *out, pg_tensor *host, const pg_device *device) {
    if (pg_device_of(host) == device) {
        pg_move(out, host);
        return PG_OK;
    }
    int status = pg_new(out, device, host->impl->dtype, host->impl->ndim, host->impl->shape);
    if (status >= 0 && (status = pg_copy_into(out, host)) < 0) pg_tensor_release(out);
    return status;
}

static int from_host(pg_tensor *out, const void *memory, int from, int64_t n, const int64_t *sizes, int sizes_n, int dtype,
                     const pg_device *device) {
    pg_tensor raw = PG_HANDLE, converted = PG_HANDLE;
    int status = pg_new(&raw, pg_device_cpu(), from, sizes_n, sizes);
    if (status >= 0 && n > 0) memcpy(pg_data(&raw), memory, (size_t)n * (size_t)pg_size_of(from));
    if (status >= 0) status = pg_converted(&converted, &raw, dtype);
    pg_tensor_release(&raw);
    if (status >= 0) status = place(out, &converted, device);
    pg_tensor_release(&converted);
    return status;
}

static int check_count(int64_t n, const int64_t *sizes, int sizes_n) {
    if (sizes_n < 0 || sizes_n > PG_DIMS_MAX) return pg_fail("at most %d dimensions are supported, got %d", PG_DIMS_MAX, sizes_n);
    if (n != pg_product(sizes, sizes_n))
        return pg_fail("shape %s needs %lld elements, got %lld", pg_shape_text((char[PG_TEXT]){0}, sizes, sizes_n),
                       (long long)pg_product(sizes, sizes_n), (long long)n);
    return PG_OK;
}

int pg_from_values(pg_tensor *out, const double *d, const int64_t *i, int64_t n, const int64_t *sizes, int sizes_n, int dtype,
                   const char *device) {
    const pg_device *target;
    int status = check_empty(out, "tensor");
    if (status >= 0) status = pg_device_find(&target, device);
    if (status < 0) return status;
    if (dtype < 0 || dtype >= PG_DTYPES) return pg_fail("tensor: no dtype with number %d", dtype);
    if (!d == !i && n > 0) return pg_fail("tensor: expected values as doubles or as integers");
    const char *before = pg_error_set_op("tensor");
    status = check_count(n, sizes, sizes_n);
    if (status >= 0) status = check_range(d, i, n, dtype);
    if (status >= 0)
        status = from_host(out, d ? (const void *)d : i, d ? PG_FLOAT64 : PG_INT64, n, sizes, sizes_n, dtype, target);
    pg_error_set_op(before);
    return status;
}

int pg_from_memory(pg_tensor *out, const void *memory, int64_t bytes, const int64_t *sizes, int sizes_n, int dtype,
                   const char *device) {
    const pg_device *target;
    int status = check_empty(out, "from_memory");
    if (status >= 0) status = pg_device_find(&target, device);
    if (status < 0) return status;
    if (dtype < 0 || dtype >= PG_DTYPES) return pg_fail("from_memory: no dtype with number %d", dtype);
    int64_t n = pg_product(sizes, sizes_n > PG_DIMS_MAX ? 0 : sizes_n);
    const char *before = pg_error_set_op("from_memory");
    status = check_count(n, sizes, sizes_n);
    if (status >= 0 && (n < 0 || bytes / pg_size_of(dtype) < n || (!memory && n > 0)))
        status = pg_fail("%lld bytes do not hold shape %s of %s", (long long)bytes,
                         pg_shape_text((char[PG_TEXT]){0}, sizes, sizes_n), pg_dtype_name(dtype));
    if (status >= 0) status = from_host(out, memory, dtype, n, sizes, sizes_n, dtype, target);
    pg_error_set_op(before);
    return status;
}

/* x dense, of dtype, in host memory. */
static int on_host(pg_tensor *out, const pg_tensor *x, int dtype) {
    if (pg_device_of(x)->host) return pg_dense_as(out, x, dtype);
    int status = pg_new(out, pg_device_cpu(), dtype, x->impl->ndim, x->impl->shape);
    if (status >= 0 && (status = pg_copy_into(out, x)) < 0) pg_tensor_release(out);
    return status;
}

int pg_to_memory(const pg_tensor *t, void *memory, int64_t bytes) {
    int status = check_live(t, "to_memory");
    if (status < 0) return status;
    int64_t need = t->impl->numel * pg_size_of(t->impl->dtype);
    if (bytes < need || (!memory && need > 0))
        return pg_fail("to_memory: shape %s of %s needs %lld bytes, got %lld", pg_text(t), pg_dtype_name(t->impl->dtype),
                       (long long)need, (long long)bytes);
    pg_tensor host = PG_HANDLE;
    status = on_host(&host, t, t->impl->dtype);
    if (status >= 0 && need > 0) memcpy(memory, pg_data(&host), (size_t)need);
    pg_tensor_release(&host);
    return status;
}

static double canonical(double d) { return isnan(d) ? (double)NAN : d; }

int pg_to_values(double *d, int64_t *i, const pg_tensor *t, int64_t start, int64_t n) {
    int status = check_live(t, "to_values");
    if (status < 0) return status;
    if (start < 0 || n < 0 || start > t->impl->numel - n)
        return pg_fail_status(PG_ERROR_INDEX, "to_values: elements %lld to %lld of %lld", (long long)start,
                              (long long)(start + n), (long long)t->impl->numel);
    if (n == 0) return PG_OK;
    /* Rows of the first dimensions are skipped by views, so that a look at a corner reads a corner. */
    pg_tensor part = pg_borrow(t->impl), narrowed = PG_HANDLE, wide = PG_HANDLE;
    const pg_impl *x = t->impl;
    int64_t first = 0;
    if (x->ndim > 0 && n < x->numel) {
        int64_t inner = x->numel / x->shape[0], from = start / inner, to = (start + n + inner - 1) / inner;
        int64_t shape[PG_DIMS_MAX];
        memcpy(shape, x->shape, (size_t)x->ndim * sizeof *shape);
        shape[0] = to - from;
        first = start - from * inner;
        status = pg_alias(&narrowed, t, x->ndim, shape, x->stride, x->offset + from * x->stride[0]);
        part = pg_borrow(narrowed.impl);
    }
    int as = pg_is_float(x->dtype) ? PG_FLOAT64 : PG_INT64;
    if (status >= 0) status = on_host(&wide, &part, as);
    if (status >= 0) {
        const double *wd = pg_data(&wide);
        const int64_t *wi = pg_data(&wide);
        for (int64_t k = 0; k < n; k++) {
            if (d) d[k] = as == PG_FLOAT64 ? canonical(wd[first + k]) : (double)wi[first + k];
            if (i) i[k] = as == PG_INT64 ? wi[first + k] : (int64_t)(isnan(wd[first + k]) ? 0 : wd[first + k]);
        }
    }
    pg_tensor_release(&narrowed);
    pg_tensor_release(&wide);
    return status;
}

int pg_item(pg_number *out, const pg_tensor *t) {
    int status = check_live(t, "item");
    if (status < 0) return status;
    if (t->impl->numel != 1)
        return pg_fail("item: a tensor with %lld elements (shape %s) cannot be converted to a number",
                       (long long)t->impl->numel, pg_text(t));
    int dtype = t->impl->dtype;
    out->kind = pg_is_float(dtype) ? PG_NUMBER_FLOAT : dtype == PG_BOOL ? PG_NUMBER_BOOL : PG_NUMBER_INT;
    out->i = 0;
    out->d = 0;
    if (dtype == PG_FLOAT32 && pg_device_of(t)->host) {
        out->d = canonical(*(const float *)pg_data(t));
        return PG_OK;
    }
    return pg_is_float(dtype) ? pg_to_values(&out->d, NULL, t, 0, 1) : pg_to_values(NULL, &out->i, t, 0, 1);
}
