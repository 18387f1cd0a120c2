/* make.c: new tensors from sizes and numbers. */
#include <math.h>
#include <string.h>

#include "ops.h"

/* ---- the shared path ---- */

/* A new tensor of the given or the default dtype on the named (NULL: default) device; checks what
 * requires_grad needs. */
static int make(pg_tensor *out, const int64_t *size, int n, int dtype, const char *device,
                bool requires_grad) {
    const pg_device *d;
    int status = pg_device_find(&d, device), result = dtype >= 0 ? dtype : pg_default_dtype();
    if (status < 0) return status;
    if (requires_grad && !pg_is_float(result))
        return pg_fail("only floating-point tensors can require gradients, got %s", pg_dtype_name(result));
    return pg_new(out, d, result, n, size);
}

static int finish(pg_tensor *out, int status, bool requires_grad) {
    if (status < 0) pg_tensor_release(out);
    else out->impl->requires_grad = requires_grad;
    return status;
}

static int filled(pg_tensor *out, const int64_t *size, int n, int dtype, const char *device,
                  bool requires_grad, pg_value v) {
    int status = make(out, size, n, dtype, device, requires_grad);
    if (status >= 0) status = pg_fill_value(out, v);
    return finish(out, status, requires_grad);
}

static const char *like_device(const pg_tensor *input, const char *device) {
    return device ? device : pg_device_of(input)->name;
}
static int like_dtype(const pg_tensor *input, int dtype) { return dtype >= 0 ? dtype : pg_dtype_of(input); }

/* ---- empty, zeros, ones, full ---- */

int op_empty(pg_tensor *out, const int64_t *size, int size_n, int dtype, const char *device,
             bool requires_grad) {
    return finish(out, make(out, size, size_n, dtype, device, requires_grad), requires_grad);
}

int op_zeros(pg_tensor *out, const int64_t *size, int size_n, int dtype, const char *device,
             bool requires_grad) {
    return filled(out, size, size_n, dtype, device, requires_grad, (pg_value){0, 0});
}

int op_ones(pg_tensor *out, const int64_t *size, int size_n, int dtype, const char *device,
            bool requires_grad) {
    return filled(out, size, size_n, dtype, device, requires_grad, (pg_value){1, 1});
}

int op_full(pg_tensor *out, const int64_t *size, int size_n, const pg_number *fill_value, int dtype,
            const char *device, bool requires_grad) {
    int result = dtype >= 0 ? dtype : fill_value->kind == PG_NUMBER_BOOL ? PG_BOOL : pg_default_dtype();
    return filled(out, size, size_n, result, device, requires_grad, pg_value_of(fill_value, result));
}

int op_empty_like(pg_tensor *out, const pg_tensor *input, int dtype, const char *device, bool requires_grad) {
    return op_empty(out, pg_shape(input), pg_ndim(input), like_dtype(input, dtype),
                    like_device(input, device), requires_grad);
}

int op_zeros_like(pg_tensor *out, const pg_tensor *input, int dtype, const char *device, bool requires_grad) {
    return op_zeros(out, pg_shape(input), pg_ndim(input), like_dtype(input, dtype),
                    like_device(input, device), requires_grad);
}

int op_ones_like(pg_tensor *out, const pg_tensor *input, int dtype, const char *device, bool requires_grad) {
    return op_ones(out, pg_shape(input), pg_ndim(input), like_dtype(input, dtype), like_device(input, device),
                   requires_grad);
}

int op_full_like(pg_tensor *out, const pg_tensor *input, const pg_number *fill_value, int dtype,
                 const char *device, bool requires_grad) {
    return op_full(out, pg_shape(input), pg_ndim(input), fill_value, like_dtype(input, dtype),
                   like_device(input, device), requires_grad);
}

int op_new_zeros(pg_tensor *out, const pg_tensor *input, const int64_t *size, int size_n, int dtype,
                 const char *device, bool requires_grad) {
    return op_zeros(out, size, size_n, like_dtype(input, dtype), like_device(input, device), requires_grad);
}

int op_new_ones(pg_tensor *out, const pg_tensor *input, const int64_t *size, int size_n, int dtype,
                const char *device, bool requires_grad) {
    return op_ones(out, size, size_n, like_dtype(input, dtype), like_device(input, device), requires_grad);
}

int op_new_empty(pg_tensor *out, const pg_tensor *input, const int64_t *size, int size_n, int dtype,
                 const char *device, bool requires_grad) {
    return op_empty(out, size, size_n, like_dtype(input, dtype), like_device(input, device), requires_grad);
}

int op_new_full(pg_tensor *out, const pg_tensor *input, const int64_t *size, int size_n,
                const pg_number *fill_value, int dtype, const char *device, bool requires_grad) {
    return op_full(out, size, size_n, fill_value, like_dtype(input, dtype), like_device(input, device),
                   requires_grad);
}

/* ---- arange, linspace, eye ---- */

static double number_double(const pg_number *n) { return n->kind == PG_NUMBER_FLOAT ? n->d : (double)n->i; }

int op_arange_range(pg_tensor *out, const pg_number *start, const pg_number *stop, const pg_number *step,
                    int dtype, const char *device, bool requires_grad) {
    double a = number_double(start), b = number_double(stop), s = number_double(step);
    bool whole = start->kind != PG_NUMBER_FLOAT && stop->kind != PG_NUMBER_FLOAT
        && step->kind != PG_NUMBER_FLOAT;
    if (s == 0) return pg_fail("step must be nonzero");
    if (!isfinite(a) || !isfinite(b) || isnan(s)) return pg_fail("unsupported range: %g -> %g", a, b);
    if ((s > 0 && b < a) || (s < 0 && b > a))
        return pg_fail("upper bound and larger bound inconsistent with step sign: %g -> %g by %g", a, b, s);
    int64_t n;
    if (whole) {
        /* exact where doubles are not: the distance in unsigned arithmetic */
        uint64_t distance = s > 0 ? (uint64_t)stop->i - (uint64_t)start->i
            : (uint64_t)start->i - (uint64_t)stop->i;
        uint64_t by = s > 0 ? (uint64_t)step->i : 0 - (uint64_t)step->i;
        n = (int64_t)(distance / by + (distance % by != 0));
    } else {
        double count = ceil((b - a) / s);
        if (!(count < 0x1p62)) return pg_fail("%g elements are more than memory can address", count);
        n = (int64_t)count;
    }
    int result = dtype >= 0 ? dtype : whole ? PG_INT64 : pg_default_dtype();
    int status = make(out, &n, 1, result, device, requires_grad);
    if (status >= 0 && n > 0)
        status = PG_RUN(pg_device_of(out), arange, result, n, pg_value_of(start, result),
                        pg_value_of(step, result), pg_data(out));
    return finish(out, status, requires_grad);
}

int op_arange(pg_tensor *out, const pg_number *stop, int dtype, const char *device, bool requires_grad) {
    pg_number zero = {PG_NUMBER_INT, 0, 0}, one = {PG_NUMBER_INT, 1, 0};
    return op_arange_range(out, &zero, stop, &one, dtype, device, requires_grad);
}

int op_linspace(pg_tensor *out, double start, double stop, int64_t steps, int dtype, const char *device,
                bool requires_grad) {
    if (steps < 0) return pg_fail("number of steps must be non-negative, got %lld", (long long)steps);
    int status = make(out, &steps, 1, dtype, device, requires_grad);
    if (status >= 0 && steps > 0)
        status = PG_RUN(pg_device_of(out), linspace, pg_dtype_of(out), steps, start, stop, pg_data(out));
    return finish(out, status, requires_grad);
}

int op_eye(pg_tensor *out, int64_t n, const int64_t *m, int dtype, const char *device, bool requires_grad) {
    int64_t size[] = {n, m ? *m : n};
    if (size[0] < 0 || size[1] < 0)
        return pg_fail("sizes must be non-negative, got %lld and %lld", (long long)size[0],
                       (long long)size[1]);
    int status = filled(out, size, 2, dtype, device, requires_grad, (pg_value){0, 0});
    if (status < 0) return status;
    int64_t length = size[0] < size[1] ? size[0] : size[1], stride = size[1] + 1;
    pg_tensor diagonal = PG_HANDLE;
    status = pg_alias(&diagonal, out, 1, &length, &stride, 0);
    if (status >= 0) status = pg_fill_value(&diagonal, (pg_value){1, 1});
    pg_tensor_release(&diagonal);
    return finish(out, status, requires_grad);
}
