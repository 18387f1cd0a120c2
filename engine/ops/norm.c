/* norm.c: normalisations. */
#include "networks.h"

/* ---- layer_norm, and add_layer_norm, which makes the sum that it normalises ----
 *
 * Both have the inputs x (and residual), weight, bias: `first` is the position of weight. add_layer_norm's second output is the sum. */

typedef struct norm_args { int32_t dims, first; double eps; } norm_args;

enum { ADDS = 2, NORM_SUM = PG_OUT(1) };   /* ADDS: `first` where there is a residual */
static int norm_mean(const norm_args *a) { return a->first == ADDS ? PG_OUT(2) : PG_OUT(1); }
static int norm_rstd(const norm_args *a) { return norm_mean(a) + 1; }
static int norm_x(const norm_args *a) { return a->first == ADDS ? NORM_SUM : PG_IN(0); }

/* With z = (x - mean) rstd and h = g w: dx = rstd (h - mean(h) - z mean(h z)), dw = sum of g z, db = sum of g; the tape sums the
 * last two down to their shapes. Mean and rstd are made again here, so that they too can be differentiated. What arrives at the sum
 * is added to dx, which is the gradient of both its terms. */
static int layer_norm_backward(pg_backward *b) {
    const norm_args *a = b->args;
    pg_pool *p = b->pool;
    const pg_meta m = pg_input_meta(b, 0);
    const int weight = a->first, bias = a->first + 1;
    const bool wants_x = b->needs[0] || (a->first == ADDS && b->needs[1]);
    const pg_tensor *g = b->grad[0], *arrived = a->first == ADDS ? b->grad[1] : NULL, *dx = NULL;
    int64_t dims[PG_DIMS_MAX];
    for (int i = 0; i < a->dims; i++) dims[i] = i - a->dims;
    const double count = (double)pg_product(m.shape + m.ndim - a->dims, a->dims), inverse = count > 0 ? 1 / count : 0;
#define MEAN(x) x_scaled(p, x_sum(p, x, dims, a->dims, true, -1), inverse)
    if (g && b->needs[bias]) b->input[bias] = g;
    if (g && (wants_x || b->needs[weight])) {
        const pg_tensor *x = pg_saved(b, norm_x(a));
        const pg_tensor *centred = x_minus(p, x, MEAN(x));
        const pg_tensor *rstd = x_rsqrt(p, x_shifted(p, MEAN(x_times(p, centred, centred)), a->eps));
        const pg_tensor *z = x_times(p, centred, rstd);
        if (b->needs[weight]) b->input[weight] = x_times(p, g, z);
        if (wants_x) {
            const bool weighted = pg_input_meta(b, weight).dtype >= 0;
            const pg_tensor *h = weighted ? x_times(p, g, pg_saved(b, PG_IN(weight))) : g;
            dx = x_times(p, rstd, x_minus(p, x_minus(p, h, MEAN(h)), x_times(p, z, MEAN(x_times(p, h, z)))));
        }
    }
#undef MEAN
    if (arrived) dx = dx ? x_plus(p, dx, arrived) : arrived;
    for (int k = 0; k < a->first; k++)
        if (b->needs[k]) b->input[k] = dx;
    return p->status;
}
static int layer_norm_fused(pg_backward *b) {
    const norm_args *a = b->args;
    pg_pool *p = b->pool;
    const pg_meta m = pg_input_meta(b, 0);
    const int64_t n = pg_product(m.shape + m.ndim - a->dims, a->dims), rows = pg_product(m.shape, m.ndim - a->dims);
    if (n == 0 || rows == 0 || !b->grad[0]) return layer_norm_backward(b);
    const bool weighted = pg_input_meta(b, a->first).dtype >= 0;
    const bool needs[3] = {b->needs[0] || (a->first == ADDS && b->needs[1]), b->needs[a->first], b->needs[a->first + 1]};
    pg_tensor *x = pg_pool_new(p), *g = pg_pool_new(p), *w = pg_pool_new(p), *more = pg_pool_new(p);
    pg_tensor *d[3] = {pg_pool_new(p), pg_pool_new(p), pg_pool_new(p)};
    const pg_tensor *mean = NULL, *rstd = NULL;
    int status = p->status < 0 ? p->status : pg_dense_as(g, b->grad[0], m.dtype);
    if (status >= 0 && a->first == ADDS && b->grad[1] && needs[0]) status = pg_dense_as(more, b->grad[1], m.dtype);
    if (status < 0) return status;
    if (needs[0] || needs[1]) {
        mean = pg_saved(b, norm_mean(a));
        rstd = pg_saved(b, norm_rstd(a));
        const pg_tensor *saved = pg_saved(b, norm_x(a));
        if (p->status < 0) return p->status;
        status = pg_dense(x, saved);
    }
    if (status >= 0 && needs[0] && weighted) {
        const pg_tensor *saved = pg_saved(b, PG_IN(a->first));
        status = p->status < 0 ? p->status : pg_dense_as(w, saved, m.dtype);
    }
    for (int k = 0; k < 3 && status >= 0; k++)
        if (needs[k])
            status = pg_new(d[k], m.device, m.dtype, k ? a->dims : m.ndim, k ? m.shape + m.ndim - a->dims : m.shape);
    if (status < 0) return status;
    for (int k = 0; k < a->first + 2; k++)
        if (b->needs[k]) b->input[k] = k < a->first ? d[0] : d[k - a->first + 1];
#define DATA(t) ((t) && (t)->impl ? pg_data(t) : NULL)
    return PG_RUN(m.device, layer_norm_backward, m.dtype, rows, n, pg_data(g), DATA(x), DATA(w), DATA(mean), DATA(rstd),
                  DATA(more), DATA(d[0]), DATA(d[1]), DATA(d[2]));
#undef DATA
}
static const pg_rule layer_norm_rule = {
    .name = "layer_norm", .backward = layer_norm_backward, .fused = layer_norm_fused, .undefined_grads = true,
    .uses = {PG_USE(PG_IN(0)) | PG_USE(PG_IN(1)) | PG_USE(PG_OUT(1)) | PG_USE(PG_OUT(2)),
             PG_USE(PG_IN(0)) | PG_USE(PG_OUT(1)) | PG_USE(PG_OUT(2))}};
enum { ADD_USES_X = PG_USE(NORM_SUM) | PG_USE(PG_IN(2)) | PG_USE(PG_OUT(2)) | PG_USE(PG_OUT(3)) };
static const pg_rule add_layer_norm_rule = {
    .name = "add_layer_norm", .backward = layer_norm_backward, .fused = layer_norm_fused, .undefined_grads = true,
    .uses = {ADD_USES_X, ADD_USES_X, PG_USE(NORM_SUM) | PG_USE(PG_OUT(2)) | PG_USE(PG_OUT(3))}};

static int check_parameter(const pg_tensor *t, const char *name, const int64_t *shape, int n, const pg_tensor *input) {
    if (!t) return PG_OK;
    bool same = t->impl->ndim == n;
    for (int i = 0; i < n && same; i++) same = t->impl->shape[i] == shape[i];
    if (!same)
        return pg_fail("expected %s of shape %s, got %s", name, pg_shape_text((char[PG_TEXT]){0}, shape, n), pg_text(t));
    if (t->impl->dtype != input->impl->dtype)
        return pg_fail("expected %s to have the dtype of input, %s, got %s", name, pg_dtype_name(input->impl->dtype),
                       pg_dtype_name(t->impl->dtype));
    return PG_OK;
}

static int check_norm(const pg_tensor *input, const pg_tensor *residual, const int64_t *shape, int dims, const pg_tensor *weight,
                      const pg_tensor *bias) {
    const pg_impl *t = input->impl;
    const int first = t->ndim - dims;
    if (dims < 1) return pg_fail("normalized_shape needs at least one size");
    bool same = first >= 0;
    for (int i = 0; i < dims && same; i++) same = t->shape[first + i] == shape[i];
    if (!same)
        return pg_fail("expected input whose last sizes are %s, got %s", pg_shape_text((char[PG_TEXT]){0}, shape, dims),
                       pg_text(input));
    if (!pg_is_float(t->dtype)) return pg_fail("expected a floating input, got %s", pg_dtype_name(t->dtype));
    if (residual && !pg_same_shape(input, residual))
        return pg_fail("expected residual of the shape of input, %s, got %s", pg_text(input), pg_text(residual));
    if (residual && residual->impl->dtype != t->dtype)
        return pg_fail("expected residual to have the dtype of input, %s, got %s", pg_dtype_name(t->dtype),
                       pg_dtype_name(residual->impl->dtype));
    int status = check_parameter(weight, "weight", shape, dims, input);
    return status < 0 ? status : check_parameter(bias, "bias", shape, dims, input);
}

/* residual and sum, which takes input + residual: both or neither. */
static int layer_norm(pg_tensor *out, pg_tensor *sum, const pg_tensor *input, const pg_tensor *residual, const int64_t *shape,
                      int dims, const pg_tensor *weight, const pg_tensor *bias, double eps) {
    int status = check_norm(input, residual, shape, dims, weight, bias);
    if (status < 0) return status;
    const pg_impl *t = input->impl;
    const pg_device *device = pg_device_of(input);
    const int64_t n = pg_product(shape, dims), rows = pg_product(t->shape, t->ndim - dims);
    const int wide = pg_accumulate_dtype(t->dtype);
    pg_tensor x = PG_HANDLE, r = PG_HANDLE, w = PG_HANDLE, c = PG_HANDLE, mean = PG_HANDLE, rstd = PG_HANDLE;
    const bool keeps = pg_will_record(4, (const pg_tensor *[]){input, weight, bias, residual});
    status = pg_dense(&x, input);
    if (status >= 0 && residual) status = pg_dense(&r, residual);
    if (status >= 0 && weight) status = pg_dense(&w, weight);
    if (status >= 0 && bias) status = pg_dense(&c, bias);
    if (status >= 0) status = pg_new_like(out, input, t->dtype);
    if (status >= 0 && residual) status = pg_new_like(sum, input, t->dtype);
    if (status >= 0 && keeps) status = pg_new(&mean, device, wide, 1, &rows);
    if (status >= 0 && keeps) status = pg_new(&rstd, device, wide, 1, &rows);
#define DATA(t) ((t)->impl ? pg_data(t) : NULL)
    if (status >= 0 && n > 0 && rows > 0)
        status = PG_RUN(device, layer_norm, t->dtype, rows, n, pg_data(&x), DATA(&r), DATA(&w), DATA(&c), eps, pg_data(out),
                        residual ? pg_data(sum) : NULL, DATA(&mean), DATA(&rstd));
#undef DATA
    const norm_args args = {dims, residual ? ADDS : 1, eps};
    if (status >= 0 && keeps)
        status = residual ? pg_record(&add_layer_norm_rule, 4, (pg_tensor *[]){out, sum, &mean, &rstd}, 4,
                                      (const pg_tensor *[]){input, residual, weight, bias}, &args, sizeof args)
                          : pg_record(&layer_norm_rule, 3, (pg_tensor *[]){out, &mean, &rstd}, 3,
                                      (const pg_tensor *[]){input, weight, bias}, &args, sizeof args);
    if (status < 0) {
        pg_tensor_release(out);
        if (sum) pg_tensor_release(sum);
    }
    pg_tensor_release(&x);
    pg_tensor_release(&r);
    pg_tensor_release(&w);
    pg_tensor_release(&c);
    pg_tensor_release(&mean);
    pg_tensor_release(&rstd);
    return status;
}

int op_layer_norm(pg_tensor *out, const pg_tensor *input, const int64_t *normalized_shape, int normalized_shape_n,
                  const pg_tensor *weight, const pg_tensor *bias, double eps) {
    return layer_norm(out, NULL, input, NULL, normalized_shape, normalized_shape_n, weight, bias, eps);
}

int op_add_layer_norm(pg_tensor *out, pg_tensor *sum, const pg_tensor *input, const pg_tensor *residual,
                      const int64_t *normalized_shape, int normalized_shape_n, const pg_tensor *weight, const pg_tensor *bias,
                      double eps) {
    return layer_norm(out, sum, input, residual, normalized_shape, normalized_shape_n, weight, bias, eps);
}
