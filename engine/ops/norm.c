/* norm.c: normalisations. */
#include "networks.h"

/* ---- layer_norm ---- */

typedef struct norm_args { int32_t dims; double eps; } norm_args;

enum { NORM_MEAN = PG_OUT(1), NORM_RSTD = PG_OUT(2) };

/* With z = (x - mean) rstd and h = g w: dx = rstd (h - mean(h) - z mean(h z)), dw = sum of g z, db = sum of g; the tape sums the
 * last two down to their shapes. Mean and rstd are made again here, so that they too can be differentiated. */
static int layer_norm_backward(pg_backward *b) {
    const norm_args *a = b->args;
    pg_pool *p = b->pool;
    const pg_meta m = pg_input_meta(b, 0);
    const pg_tensor *g = b->grad[0];
    int64_t dims[PG_DIMS_MAX];
    for (int i = 0; i < a->dims; i++) dims[i] = i - a->dims;
    const double count = (double)pg_product(m.shape + m.ndim - a->dims, a->dims), inverse = count > 0 ? 1 / count : 0;
#define MEAN(x) x_scaled(p, x_sum(p, x, dims, a->dims, true, -1), inverse)
    if (b->needs[2]) b->input[2] = g;
    if (!b->needs[0] && !b->needs[1]) return p->status;
    const pg_tensor *x = pg_saved(b, PG_IN(0));
    const pg_tensor *centred = x_minus(p, x, MEAN(x));
    const pg_tensor *rstd = x_rsqrt(p, x_shifted(p, MEAN(x_times(p, centred, centred)), a->eps));
    const pg_tensor *z = x_times(p, centred, rstd);
    if (b->needs[1]) b->input[1] = x_times(p, g, z);
    if (b->needs[0]) {
        const bool weighted = pg_input_meta(b, 1).dtype >= 0;
        const pg_tensor *h = weighted ? x_times(p, g, pg_saved(b, PG_IN(1))) : g;
        b->input[0] = x_times(p, rstd, x_minus(p, x_minus(p, h, MEAN(h)), x_times(p, z, MEAN(x_times(p, h, z)))));
    }
#undef MEAN
    return p->status;
}
static int layer_norm_fused(pg_backward *b) {
    const norm_args *a = b->args;
    pg_pool *p = b->pool;
    const pg_meta m = pg_input_meta(b, 0);
    const int64_t n = pg_product(m.shape + m.ndim - a->dims, a->dims), rows = pg_product(m.shape, m.ndim - a->dims);
    if (n == 0 || rows == 0) return layer_norm_backward(b);
    const bool weighted = pg_input_meta(b, 1).dtype >= 0;
    pg_tensor *x = pg_pool_new(p), *g = pg_pool_new(p), *w = pg_pool_new(p);
    pg_tensor *d[3] = {pg_pool_new(p), pg_pool_new(p), pg_pool_new(p)};
    const pg_tensor *mean = NULL, *rstd = NULL;
    int status = p->status < 0 ? p->status : pg_dense_as(g, b->grad[0], m.dtype);
    if (status < 0) return status;
    if (b->needs[0] || b->needs[1]) {
        mean = pg_saved(b, NORM_MEAN);
        rstd = pg_saved(b, NORM_RSTD);
        const pg_tensor *saved = pg_saved(b, PG_IN(0));
        if (p->status < 0) return p->status;
        status = pg_dense(x, saved);
    }
    if (status >= 0 && b->needs[0] && weighted) {
        const pg_tensor *saved = pg_saved(b, PG_IN(1));
        status = p->status < 0 ? p->status : pg_dense_as(w, saved, m.dtype);
    }
    for (int k = 0; k < 3 && status >= 0; k++)
        if (b->needs[k]) {
            status = pg_new(d[k], m.device, m.dtype, k ? a->dims : m.ndim, k ? m.shape + m.ndim - a->dims : m.shape);
            b->input[k] = d[k];
        }
    if (status < 0) return status;
#define DATA(t) ((t) && (t)->impl ? pg_data(t) : NULL)
    return PG_RUN(m.device, layer_norm_backward, m.dtype, rows, n, pg_data(g), DATA(x), DATA(w), DATA(mean), DATA(rstd),
                  DATA(d[0]), DATA(d[1]), DATA(d[2]));
#undef DATA
}
static const pg_rule layer_norm_rule = {
    .name = "layer_norm", .backward = layer_norm_backward, .fused = layer_norm_fused, .undefined_grads = true,
    .uses = {PG_USE(PG_IN(0)) | PG_USE(PG_IN(1)) | PG_USE(NORM_MEAN) | PG_USE(NORM_RSTD),
             PG_USE(PG_IN(0)) | PG_USE(NORM_MEAN) | PG_USE(NORM_RSTD)}};

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

int op_layer_norm(pg_tensor *out, const pg_tensor *input, const int64_t *normalized_shape, int normalized_shape_n,
                  const pg_tensor *weight, const pg_tensor *bias, double eps) {
    const pg_impl *t = input->impl;
    const int dims = normalized_shape_n, first = t->ndim - dims;
    if (dims < 1) return pg_fail("normalized_shape needs at least one size");
    bool same = first >= 0;
    for (int i = 0; i < dims && same; i++) same = t->shape[first + i] == normalized_shape[i];
    if (!same)
        return pg_fail("expected input whose last sizes are %s, got %s",
                       pg_shape_text((char[PG_TEXT]){0}, normalized_shape, dims), pg_text(input));
    if (!pg_is_float(t->dtype)) return pg_fail("expected a floating input, got %s", pg_dtype_name(t->dtype));
    int status = check_parameter(weight, "weight", normalized_shape, dims, input);
    if (status >= 0) status = check_parameter(bias, "bias", normalized_shape, dims, input);
    if (status < 0) return status;
    const int64_t n = pg_product(normalized_shape, dims), rows = pg_product(t->shape, first);
    pg_tensor x = PG_HANDLE, w = PG_HANDLE, c = PG_HANDLE, mean = PG_HANDLE, rstd = PG_HANDLE;
    const bool keeps = pg_will_record(3, (const pg_tensor *[]){input, weight, bias});
    status = pg_dense(&x, input);
    if (status >= 0 && weight) status = pg_dense(&w, weight);
    if (status >= 0 && bias) status = pg_dense(&c, bias);
    if (status >= 0) status = pg_new_like(out, input, t->dtype);
    if (status >= 0 && keeps) status = pg_new(&mean, pg_device_of(input), pg_accumulate_dtype(t->dtype), 1, &rows);
    if (status >= 0 && keeps) status = pg_new(&rstd, pg_device_of(input), pg_accumulate_dtype(t->dtype), 1, &rows);
    if (status >= 0 && n > 0 && rows > 0)
        status = PG_RUN(pg_device_of(input), layer_norm, t->dtype, rows, n, pg_data(&x), weight ? pg_data(&w) : NULL,
                        bias ? pg_data(&c) : NULL, eps, pg_data(out), keeps ? pg_data(&mean) : NULL,
                        keeps ? pg_data(&rstd) : NULL);
    if (status < 0) pg_tensor_release(out);
    const norm_args args = {dims, eps};
    if (status >= 0 && keeps)
        status = pg_record(&layer_norm_rule, 3, (pg_tensor *[]){out, &mean, &rstd}, 3, (const pg_tensor *[]){input, weight, bias},
                           &args, sizeof args);
    pg_tensor_release(&x);
    pg_tensor_release(&w);
    pg_tensor_release(&c);
    pg_tensor_release(&mean);
    pg_tensor_release(&rstd);
    return status;
}
