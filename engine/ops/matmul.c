/* matmul.c: matrix products. Strides are looked at, not copied away: a transposed operand is a flag of the kernel, batches that
 * lie evenly are a stride, and only what is dense in neither of its last two dimensions is copied. */
#include <stdatomic.h>
#include <stdlib.h>

#include "networks.h"

/* Of the process, as PyTorch's. */
static _Atomic int precision;

int pg_set_float32_matmul_precision(int level) {
    if (level < 0 || level > 2) return pg_fail("set_float32_matmul_precision: expected 0, 1 or 2, got %d", level);
    atomic_store_explicit(&precision, level, memory_order_relaxed);
    return PG_OK;
}
int pg_get_float32_matmul_precision(void) { return atomic_load_explicit(&precision, memory_order_relaxed); }

/* ---- the shared path ---- */

/* One factor: its last two dimensions as a matrix, and the batch dimensions before them. */
typedef struct side {
    const pg_tensor *t;
    bool vector;
    int nb;
    const int64_t *batch, *batch_stride;
    int64_t rows, cols, rs, cs;
} side;

static void look(side *s, const pg_tensor *t, bool transposed, bool left) {
    const pg_impl *x = t->impl;
    s->t = t;
    s->vector = x->ndim == 1;
    s->batch = x->shape;
    s->batch_stride = x->stride;
    if (s->vector) {
        s->nb = 0;
        s->rows = left ? 1 : x->shape[0];
        s->cols = left ? x->shape[0] : 1;
        s->rs = s->cs = x->stride[0];
        return;
    }
    const int r = x->ndim - (transposed ? 1 : 2), c = x->ndim - (transposed ? 2 : 1);
    s->nb = x->ndim - 2;
    s->rows = x->shape[r];
    s->cols = x->shape[c];
    s->rs = x->stride[r];
    s->cs = x->stride[c];
}

/* Whether the kernel can read the matrix as it is; then ld and flag. */
static bool fits(const side *s, bool *transposed, int64_t *ld) {
    if ((s->cols <= 1 || s->cs == 1) && (s->rows <= 1 || s->rs >= s->cols)) {
        *transposed = false;
        *ld = s->rows <= 1 || s->rs < 1 ? (s->cols > 0 ? s->cols : 1) : s->rs;
        return true;
    }
    if ((s->rows <= 1 || s->rs == 1) && (s->cols <= 1 || s->cs >= s->rows)) {
        *transposed = true;
        *ld = s->cols <= 1 || s->cs < 1 ? (s->rows > 0 ? s->rows : 1) : s->cs;
        return true;
    }
    return false;
}

/* Batch dimensions of both, broadcast; dimensions that lie evenly in both are merged. */
typedef struct batches {
    int ndim, merged_n;
    int64_t shape[PG_DIMS_MAX], count;
    int64_t merged[PG_DIMS_MAX], a[PG_DIMS_MAX], b[PG_DIMS_MAX];
} batches;

static int broadcast_batches(batches *out, const side *a, const side *b) {
    out->ndim = a->nb > b->nb ? a->nb : b->nb;
    out->count = 1;
    out->merged_n = 0;
    if (out->ndim + 2 > PG_DIMS_MAX) return pg_fail("at most %d dimensions are supported", PG_DIMS_MAX);
    for (int i = 0; i < out->ndim; i++) {
        const int ia = i - (out->ndim - a->nb), ib = i - (out->ndim - b->nb);
        const int64_t na = ia < 0 ? 1 : a->batch[ia], nb = ib < 0 ? 1 : b->batch[ib];
        if (na != nb && na != 1 && nb != 1)
            return pg_fail("batch sizes do not broadcast: %s @ %s", pg_text(a->t), pg_text(b->t));
        const int64_t n = na == 1 ? nb : na, sa = na == 1 ? 0 : a->batch_stride[ia], sb = nb == 1 ? 0 : b->batch_stride[ib];
        out->shape[i] = n;
        out->count *= n;
        if (n == 1) continue;
        const int last = out->merged_n - 1;
        if (last >= 0 && out->a[last] == sa * n && out->b[last] == sb * n) {
            out->merged[last] *= n;
            out->a[last] = sa;
            out->b[last] = sb;
        } else {
            out->merged[out->merged_n] = n;
            out->a[out->merged_n] = sa;
            out->b[out->merged_n++] = sb;
        }
    }
    return PG_OK;
}

/* Where each batch entry starts; one block of 2 * count. */
static int64_t *offsets_of(const batches *s) {
    int64_t *offset = pg_malloc(2 * (size_t)s->count * sizeof *offset), at[PG_DIMS_MAX] = {0}, a = 0, b = 0;
    if (!offset) return NULL;
    for (int64_t i = 0; i < s->count; i++) {
        offset[i] = a;
        offset[s->count + i] = b;
        for (int d = s->merged_n - 1; d >= 0; d--) {
            a += s->a[d];
            b += s->b[d];
            if (++at[d] < s->merged[d]) break;
            a -= s->a[d] * s->merged[d];
            b -= s->b[d] * s->merged[d];
            at[d] = 0;
        }
    }
    return offset;
}

/* What goes with a product: c = act(alpha * a b + beta * c + bias), see kernels.h. start: what c holds before, spread over it. */
typedef struct extras {
    double alpha, beta;
    const pg_tensor *bias, *start;
    int activation;
    pg_tensor *aux;
    bool padded;            /* the result, of two matrices, is pg_new_padded's */
} extras;
static const extras PLAIN = {.alpha = 1};

/* a's rows of all batch entries lie evenly and b is one matrix: one tall product. */
static bool folds(const side *a, const side *b) {
    if (b->nb > 0 || a->nb == 0 || a->cs != 1) return false;
    int64_t stride = a->rs * a->rows;
    if (a->rs < a->cols) return false;
    for (int i = a->nb - 1; i >= 0; i--) {
        if (a->batch[i] != 1 && a->batch_stride[i] != stride) return false;
        stride *= a->batch[i];
    }
    return true;
}

static int check_factors(const pg_tensor *a, const pg_tensor *b) {
    if (a->impl->ndim == 0 || b->impl->ndim == 0)
        return pg_fail("both arguments need at least one dimension, got %s and %s", pg_text(a), pg_text(b));
    if (a->impl->dtype != b->impl->dtype)
        return pg_fail("expected both arguments to have the same dtype, got %s and %s", pg_dtype_name(a->impl->dtype),
                       pg_dtype_name(b->impl->dtype));
    if (a->impl->dtype == PG_BOOL) return pg_fail("not available for bool: convert with :to(pg.int64) or a float dtype");
    return PG_OK;
}

static int product(pg_tensor *out, const pg_tensor *a, bool ta, const pg_tensor *b, bool tb, const extras *e) {
    side l, r;
    pg_gemm g = {.alpha = e->alpha, .beta = e->beta, .activation = e->activation};
    g.tf32 = pg_get_float32_matmul_precision() > 0;
    pg_tensor dense_a = PG_HANDLE, dense_b = PG_HANDLE;
    int status = check_factors(a, b);
    if (status < 0) return status;
    look(&l, a, ta, true);
    look(&r, b, tb, false);
    if (l.cols != r.rows) return pg_fail("inner sizes differ: %s @ %s", pg_text(a), pg_text(b));
    if (!fits(&l, &g.ta, &g.lda)) {
        status = pg_dense(&dense_a, a);
        if (status >= 0) look(&l, &dense_a, ta, true), fits(&l, &g.ta, &g.lda);
    }
    if (status >= 0 && !fits(&r, &g.tb, &g.ldb)) {
        status = pg_dense(&dense_b, b);
        if (status >= 0) look(&r, &dense_b, tb, false), fits(&r, &g.tb, &g.ldb);
    }
    batches s;
    if (status >= 0) status = broadcast_batches(&s, &l, &r);
    int64_t *offsets = NULL;
    if (status >= 0) {
        int64_t shape[PG_DIMS_MAX + 2];
        int ndim = 0;
        for (; ndim < s.ndim; ndim++) shape[ndim] = s.shape[ndim];
        if (!l.vector) shape[ndim++] = l.rows;
        if (!r.vector) shape[ndim++] = r.cols;
        status = e->padded ? pg_new_padded(out, pg_device_of(a), a->impl->dtype, shape[0], shape[1])
                           : pg_new(out, pg_device_of(a), a->impl->dtype, ndim, shape);
        if (status >= 0 && e->aux) status = pg_new(e->aux, pg_device_of(a), a->impl->dtype, ndim, shape);
    }
    if (status >= 0 && e->start) status = pg_copy_into(out, e->start);
    if (status >= 0 && out->impl->numel > 0) {
        g.m = l.rows;
        g.n = r.cols;
        g.k = l.cols;
        g.batch = s.count;
        if (s.ndim > 0 && folds(&l, &r) && !g.ta) {
            g.m *= s.count;
            g.batch = 1;
            s.merged_n = 0;
            g.lda = l.rs;
        }
        g.ldc = e->padded ? out->impl->stride[0] : g.n;
        g.c_batch = g.m * g.n;
        g.a = pg_data(l.t);
        g.b = pg_data(r.t);
        g.c = pg_data(out);
        if (e->aux) g.aux = pg_data(e->aux);
        if (e->bias) g.bias = pg_data(e->bias);
        if (s.merged_n == 1) {
            g.a_batch = s.a[0];
            g.b_batch = s.b[0];
        } else if (s.merged_n > 1) {
            if ((offsets = offsets_of(&s))) g.a_offset = offsets, g.b_offset = offsets + s.count;
            else status = pg_out_of_memory(2 * (size_t)s.count * sizeof *offsets);
        }
        if (status >= 0) status = PG_RUN(pg_device_of(a), gemm, a->impl->dtype, &g);
    }
    free(offsets);
    pg_tensor_release(&dense_a);
    pg_tensor_release(&dense_b);
    if (status < 0) {
        pg_tensor_release(out);
        if (e->aux) pg_tensor_release(e->aux);
    }
    return status;
}

int pg_product_of(pg_tensor *out, const pg_tensor *a, bool ta, const pg_tensor *b, bool tb) {
    return product(out, a, ta, b, tb, &PLAIN);
}

enum { PADDED_TO = 64 };
int pg_new_padded(pg_tensor *out, const pg_device *device, int dtype, int64_t rows, int64_t columns) {
    if (columns > INT64_MAX - PADDED_TO) return pg_fail("a matrix of %lld columns is too large", (long long)columns);
    const int64_t apart = (columns + PADDED_TO - 1) / PADDED_TO * PADDED_TO;
    pg_tensor whole = PG_HANDLE;
    int status = pg_new(&whole, device, dtype, 2, (const int64_t[]){rows, apart});
    if (status >= 0) status = pg_alias(out, &whole, 2, (const int64_t[]){rows, columns}, (const int64_t[]){apart, 1}, 0);
    pg_tensor_release(&whole);
    return status;
}

int pg_padded_linear(pg_tensor *out, const pg_tensor *input, const pg_tensor *weight, const pg_tensor *bias) {
    pg_tensor dense = PG_HANDLE;
    int status = bias && !bias->impl->contiguous ? pg_dense(&dense, bias) : PG_OK;
    const extras e = {.alpha = 1, .bias = dense.impl ? &dense : bias, .padded = true};
    if (status >= 0) status = product(out, input, false, weight, true, &e);
    pg_tensor_release(&dense);
    return status;
}

/* ---- matmul and its special cases ---- */

/* x with a dimension of size 1 before (a left vector) or after (a right one), or x itself. */
static const pg_tensor *as_matrix(pg_pool *p, const pg_tensor *x, bool left) {
    return x->impl && x->impl->ndim == 1 ? x_unsqueeze(p, x, left ? 0 : 1) : x;
}
/* The gradient with the dimensions that vectors left out. */
static const pg_tensor *full_grad(pg_pool *p, const pg_tensor *g, const pg_meta *a, const pg_meta *b) {
    if (b->ndim == 1) g = x_unsqueeze(p, g, -1);
    if (a->ndim == 1) g = x_unsqueeze(p, g, -2);
    return g;
}

static int matmul_backward(pg_backward *b) {
    pg_pool *p = b->pool;
    const pg_meta ma = pg_input_meta(b, 0), mb = pg_input_meta(b, 1);
    const pg_tensor *g = full_grad(p, b->grad[0], &ma, &mb);
    if (b->needs[0]) {
        const pg_tensor *d = x_matmul(p, g, x_swapped(p, as_matrix(p, pg_saved(b, PG_IN(1)), false)));
        b->input[0] = ma.ndim == 1 ? x_squeeze(p, d, (const int64_t[]){-2}, 1) : d;
    }
    if (b->needs[1]) {
        const pg_tensor *a = as_matrix(p, pg_saved(b, PG_IN(0)), true);
        if (mb.ndim == 2 && ma.ndim > 2) {
            /* (..., m, k) and (..., m, n) as two tall matrices: the sum over the batch is part of the product. */
            a = x_reshape(p, a, (const int64_t[]){pg_product(ma.shape, ma.ndim - 1), ma.shape[ma.ndim - 1]}, 2);
            g = x_reshape(p, g, (const int64_t[]){pg_product(ma.shape, ma.ndim - 1), mb.shape[1]}, 2);
        }
        const pg_tensor *d = x_matmul(p, x_swapped(p, a), g);
        b->input[1] = mb.ndim == 1 ? x_squeeze(p, d, (const int64_t[]){-1}, 1) : d;
    }
    return p->status;
}
static int matmul_fused(pg_backward *b) {
    pg_pool *p = b->pool;
    const pg_meta ma = pg_input_meta(b, 0), mb = pg_input_meta(b, 1);
    if (ma.ndim < 2 || mb.ndim < 2) return matmul_backward(b);
    const pg_tensor *g = b->grad[0];
    if (b->needs[0]) b->input[0] = pg_product_in(p, g, false, pg_saved(b, PG_IN(1)), true);
    if (b->needs[1]) {
        const pg_tensor *a = pg_saved(b, PG_IN(0));
        if (mb.ndim == 2 && ma.ndim > 2) {
            a = x_reshape(p, a, (const int64_t[]){pg_product(ma.shape, ma.ndim - 1), ma.shape[ma.ndim - 1]}, 2);
            g = x_reshape(p, g, (const int64_t[]){pg_product(ma.shape, ma.ndim - 1), mb.shape[1]}, 2);
        }
        b->input[1] = pg_product_in(p, a, true, g, false);
    }
    return p->status;
}
#define PRODUCT_USES {PG_USE(PG_IN(1)), PG_USE(PG_IN(0))}
static const pg_rule matmul_rule = {.name = "matmul", .backward = matmul_backward, .fused = matmul_fused, .uses = PRODUCT_USES};
static const pg_rule mm_rule = {.name = "mm", .backward = matmul_backward, .fused = matmul_fused, .uses = PRODUCT_USES};
static const pg_rule bmm_rule = {.name = "bmm", .backward = matmul_backward, .fused = matmul_fused, .uses = PRODUCT_USES};
static const pg_rule mv_rule = {.name = "mv", .backward = matmul_backward, .fused = matmul_fused, .uses = PRODUCT_USES};
static const pg_rule dot_rule = {.name = "dot", .backward = matmul_backward, .fused = matmul_fused, .uses = PRODUCT_USES};

static int recorded_product(pg_tensor *out, const pg_tensor *a, const pg_tensor *b, const pg_rule *rule) {
    int status = pg_product_of(out, a, false, b, false);
    return status < 0 ? status : pg_record1(rule, out, NULL, 0, a, b);
}

static int check_dims(const pg_tensor *t, const char *name, int ndim) {
    return t->impl->ndim == ndim ? PG_OK : pg_fail("%s must be %d-dimensional, got shape %s", name, ndim, pg_text(t));
}

int op_matmul(pg_tensor *out, const pg_tensor *input, const pg_tensor *other) {
    return recorded_product(out, input, other, &matmul_rule);
}
int op_mm(pg_tensor *out, const pg_tensor *input, const pg_tensor *mat2) {
    int status = check_dims(input, "input", 2);
    if (status >= 0) status = check_dims(mat2, "mat2", 2);
    return status < 0 ? status : recorded_product(out, input, mat2, &mm_rule);
}
int op_bmm(pg_tensor *out, const pg_tensor *input, const pg_tensor *mat2) {
    int status = check_dims(input, "input", 3);
    if (status >= 0) status = check_dims(mat2, "mat2", 3);
    if (status < 0) return status;
    if (input->impl->shape[0] != mat2->impl->shape[0])
        return pg_fail("batch sizes differ: %s @ %s", pg_text(input), pg_text(mat2));
    return recorded_product(out, input, mat2, &bmm_rule);
}
int op_mv(pg_tensor *out, const pg_tensor *input, const pg_tensor *vec) {
    int status = check_dims(input, "input", 2);
    if (status >= 0) status = check_dims(vec, "vec", 1);
    return status < 0 ? status : recorded_product(out, input, vec, &mv_rule);
}
int op_dot(pg_tensor *out, const pg_tensor *input, const pg_tensor *other) {
    int status = check_dims(input, "input", 1);
    if (status >= 0) status = check_dims(other, "other", 1);
    return status < 0 ? status : recorded_product(out, input, other, &dot_rule);
}

/* ---- addmm ---- */

typedef struct addmm_args { pg_number beta, alpha; } addmm_args;

static double value_of(const pg_number *n) { return n->kind == PG_NUMBER_FLOAT ? n->d : (double)n->i; }

static int addmm_backward(pg_backward *b) {
    const addmm_args *args = b->args;
    pg_pool *p = b->pool;
    const pg_tensor *g = b->grad[0];
    if (b->needs[0]) b->input[0] = value_of(&args->beta) == 1 ? g : x_mul(p, g, NULL, &args->beta);
    if (!b->needs[1] && !b->needs[2]) return p->status;
    if (value_of(&args->alpha) != 1) g = x_mul(p, g, NULL, &args->alpha);
    if (b->needs[1]) b->input[1] = x_matmul(p, g, x_swapped(p, pg_saved(b, PG_IN(2))));
    if (b->needs[2]) b->input[2] = x_matmul(p, x_swapped(p, pg_saved(b, PG_IN(1))), g);
    return p->status;
}
static const pg_rule addmm_rule = {.name = "addmm", .backward = addmm_backward, .uses = {0, PG_USE(PG_IN(2)), PG_USE(PG_IN(1))}};

int op_addmm(pg_tensor *out, const pg_tensor *input, const pg_tensor *mat1, const pg_tensor *mat2, const pg_number *beta,
             const pg_number *alpha) {
    int status = check_dims(mat1, "mat1", 2);
    if (status >= 0) status = check_dims(mat2, "mat2", 2);
    if (status >= 0 && input->impl->dtype != mat1->impl->dtype)
        status = pg_fail("expected input and mat1 to have the same dtype, got %s and %s", pg_dtype_name(input->impl->dtype),
                         pg_dtype_name(mat1->impl->dtype));
    if (status >= 0 && !pg_is_float(mat1->impl->dtype) && (alpha->kind == PG_NUMBER_FLOAT || beta->kind == PG_NUMBER_FLOAT))
        status = pg_fail("for integral tensors, alpha and beta must be integers");
    if (status < 0) return status;
    const int64_t want[2] = {mat1->impl->shape[0], mat2->impl->shape[1]};
    const pg_impl *x = input->impl;
    bool expands = x->ndim <= 2;
    for (int i = 0; i < x->ndim && expands; i++) expands = x->shape[i] == 1 || x->shape[i] == want[2 - x->ndim + i];
    if (!expands)
        return pg_fail("input of shape %s does not expand to %s", pg_text(input), pg_shape_text((char[PG_TEXT]){0}, want, 2));
    const addmm_args args = {*beta, *alpha};
    const extras e = {.alpha = value_of(alpha), .beta = value_of(beta), .start = value_of(beta) != 0 ? input : NULL};
    status = product(out, mat1, false, mat2, false, &e);
    return status < 0 ? status : pg_record1(&addmm_rule, out, &args, sizeof args, input, mat1, mat2);
}

/* ---- linear ---- */

/* x (*, in) and a gradient (*, out) as two tall matrices. */
static const pg_tensor *tall(pg_pool *p, const pg_tensor *x) {
    if (!x->impl || x->impl->ndim == 2) return x;
    const int n = x->impl->ndim;
    return x_reshape(p, x, (const int64_t[]){pg_product(x->impl->shape, n - 1), x->impl->shape[n - 1]}, 2);
}
static int linear_backward(pg_backward *b) {
    pg_pool *p = b->pool;
    const pg_tensor *g = b->grad[0];
    if (b->needs[0]) b->input[0] = x_matmul(p, g, pg_saved(b, PG_IN(1)));
    if (b->needs[1]) b->input[1] = x_matmul(p, x_swapped(p, tall(p, g)), tall(p, pg_saved(b, PG_IN(0))));
    if (b->n_inputs > 2 && b->needs[2]) b->input[2] = x_sum(p, tall(p, g), (const int64_t[]){0}, 1, false, -1);
    return p->status;
}
static int linear_fused(pg_backward *b) {
    pg_pool *p = b->pool;
    const pg_tensor *g = b->grad[0];
    if (b->needs[0]) b->input[0] = pg_product_in(p, g, false, pg_saved(b, PG_IN(1)), false);
    if (b->needs[1]) b->input[1] = pg_product_in(p, tall(p, g), true, tall(p, pg_saved(b, PG_IN(0))), false);
    if (b->n_inputs > 2 && b->needs[2]) b->input[2] = x_sum(p, tall(p, g), (const int64_t[]){0}, 1, false, -1);
    return p->status;
}
static const pg_rule linear_rule = {.name = "linear", .backward = linear_backward, .fused = linear_fused,
                                    .uses = {PG_USE(PG_IN(1)), PG_USE(PG_IN(0))}};

/* With an activation the tape sees two ops, linear and the activation, as if they had been called one after the other. */
int op_linear(pg_tensor *out, const pg_tensor *input, const pg_tensor *weight, const pg_tensor *bias, int activation) {
    const int n = input->impl->ndim;
    int status = check_dims(weight, "weight", 2);
    if (status < 0) return status;
    if (n == 0 || input->impl->shape[n - 1] != weight->impl->shape[1])
        return pg_fail("input of shape %s does not fit weight of shape %s: expected a last dimension of %lld", pg_text(input),
                       pg_text(weight), (long long)weight->impl->shape[1]);
    if (bias && (bias->impl->ndim != 1 || bias->impl->shape[0] != weight->impl->shape[0]))
        return pg_fail("expected bias of shape [%lld] for weight of shape %s, got %s", (long long)weight->impl->shape[0],
                       pg_text(weight), pg_text(bias));
    if (bias && bias->impl->dtype != input->impl->dtype)
        return pg_fail("expected bias to have the dtype of input, %s, got %s", pg_dtype_name(input->impl->dtype),
                       pg_dtype_name(bias->impl->dtype));
    pg_tensor dense = PG_HANDLE;
    if (bias && !bias->impl->contiguous) {
        status = pg_dense(&dense, bias);
        if (status < 0) return status;
    }
    /* words: relu, gelu, gelu_tanh */
    static const int kinds[] = {PG_K_ACT_RELU, PG_K_ACT_GELU, PG_K_ACT_GELU_TANH};
    const int kind = activation < 0 ? PG_K_ACT_NONE : kinds[activation];
    const bool records = pg_will_record(3, (const pg_tensor *[]){input, weight, bias});
    pg_tensor before = PG_HANDLE;
    const bool keeps = records && kind != PG_K_ACT_NONE && kind != PG_K_ACT_RELU;
    if (kind != PG_K_ACT_NONE && !pg_is_float(input->impl->dtype))
        status = pg_fail("an activation needs a floating input, got %s", pg_dtype_name(input->impl->dtype));
    const extras e = {.alpha = 1, .bias = dense.impl ? &dense : bias, .activation = kind, .aux = keeps ? &before : NULL};
    if (status >= 0) status = product(out, input, false, weight, true, &e);
    pg_tensor_release(&dense);
    if (status < 0 || kind == PG_K_ACT_NONE)
        return status < 0 ? status : pg_record1(&linear_rule, out, NULL, 0, input, weight, bias);
    if (records) {
        if (!keeps) status = pg_alias_same(&before, out);
        if (status >= 0) status = pg_record1(&linear_rule, &before, NULL, 0, input, weight, bias);
        if (status >= 0) status = pg_record_activation(kind, out, &before);
        if (status < 0) pg_tensor_release(out);
    }
    pg_tensor_release(&before);
    return status;
}
