/* optim.c: what optimizers call: one pass over many parameters, and the norm of many gradients.
 *
 * Nothing here is recorded on the tape. Each call sorts its tensors by dtype and runs one kernel a dtype. Tensors
 * that are not contiguous go through dense copies, written back where the kernel changes them. */
#include <math.h>
#include <stdlib.h>

#include "pg_ops.h"

enum { ROLE_PARAM, ROLE_GRAD, ROLE_STATE1, ROLE_STATE2, ROLE_STATE3, ROLES };

/* Which roles a kernel writes. */
#define WRITES(role) (1u << (role))

typedef struct role_list {
    const pg_tensor *const *items;   /* NULL: this role is absent */
    int n;
    const char *name;                /* for messages */
} role_list;

/* The tensors of one dtype, as kernels take them. One block of memory. */
typedef struct batch {
    int count;
    int64_t *sizes;
    void **data[ROLES];
    pg_tensor *dense[ROLES];  /* copies of what was not contiguous, else empty handles */
    int *index;               /* positions in the caller's lists */
    void *memory;
} batch;

static int batch_begin(batch *b, int n) {
    size_t room = (size_t)(n > 0 ? n : 1);
    size_t each = sizeof(int64_t) + ROLES * (sizeof(void *) + sizeof(pg_tensor)) + sizeof(int);
    *b = (batch){0};
    if (!(b->memory = pg_malloc(room * each))) return pg_out_of_memory(room * each);
    char *at = b->memory;
    b->sizes = (int64_t *)at;
    at += room * sizeof(int64_t);
    for (int r = 0; r < ROLES; r++) {
        b->data[r] = (void **)at;
        at += room * sizeof(void *);
    }
    for (int r = 0; r < ROLES; r++) {
        b->dense[r] = (pg_tensor *)at;
        at += room * sizeof(pg_tensor);
        for (size_t k = 0; k < room; k++) b->dense[r][k] = PG_HANDLE;
    }
    b->index = (int *)at;
    return PG_OK;
}

static void batch_clear(batch *b) {
    for (int r = 0; r < ROLES; r++)
        for (int k = 0; k < b->count; k++) pg_tensor_release(&b->dense[r][k]);
    b->count = 0;
}

static void batch_end(batch *b) {
    if (b->memory) batch_clear(b);
    free(b->memory);
}

/* Gathers the tensors of one dtype. */
static int batch_fill(batch *b, const role_list *roles, int dtype) {
    batch_clear(b);
    const role_list *first = roles[ROLE_PARAM].items ? &roles[ROLE_PARAM] : &roles[ROLE_GRAD];
    for (int k = 0; k < first->n; k++) {
        if (pg_dtype_of(first->items[k]) != dtype) continue;
        int at = b->count++;
        b->index[at] = k;
        b->sizes[at] = pg_numel(first->items[k]);
        for (int r = 0; r < ROLES; r++) {
            b->data[r][at] = NULL;
            if (!roles[r].items) continue;
            const pg_tensor *x = roles[r].items[k];
            if (!x->impl->contiguous) {
                int status = pg_dense(&b->dense[r][at], x);
                if (status < 0) return status;
                x = &b->dense[r][at];
            }
            b->data[r][at] = pg_data(x);
        }
    }
    return PG_OK;
}

/* What a kernel changed: written back where it worked on a copy, and counted. */
static int batch_written(batch *b, const role_list *roles, unsigned writes) {
    for (int r = 0; r < ROLES; r++) {
        if (!(writes & WRITES(r)) || !roles[r].items) continue;
        for (int k = 0; k < b->count; k++) {
            const pg_tensor *x = roles[r].items[b->index[k]];
            if (b->dense[r][k].impl) {
                int status = pg_copy_into(x, &b->dense[r][k]);
                if (status < 0) return status;
            }
            pg_bump_version(x);
        }
    }
    return PG_OK;
}

static pg_parameters batch_parameters(const batch *b) {
    return (pg_parameters){
        .count = b->count, .sizes = b->sizes, .param = b->data[ROLE_PARAM],
        .grad = (const void *const *)b->data[ROLE_GRAD], .state1 = b->data[ROLE_STATE1],
        .state2 = b->data[ROLE_STATE2], .state3 = b->data[ROLE_STATE3],
    };
}

static int check_dtype(const pg_tensor *x, const char *name, int k) {
    int dtype = pg_dtype_of(x);
    if (pg_is_float(dtype)) return PG_OK;
    return pg_fail("%s[%d]: expected a floating dtype, got %s", name, k, pg_dtype_name(dtype));
}

/* Lists of one length, and each tensor as its parameter is. */
static int check_roles(const role_list *roles) {
    const role_list *params = &roles[ROLE_PARAM];
    for (int r = 0; r < ROLES; r++) {
        if (!roles[r].items) continue;
        if (roles[r].n != params->n)
            return pg_fail("%d params but %d %s", params->n, roles[r].n, roles[r].name);
        for (int k = 0; k < params->n; k++) {
            const pg_tensor *p = params->items[k], *x = roles[r].items[k];
            if (r == ROLE_PARAM) {
                int status = check_dtype(p, "params", k);
                if (status < 0) return status;
            } else if (!pg_same_shape(p, x)) {
                return pg_fail("%s[%d] has shape %s, its parameter %s", roles[r].name, k, pg_text(x), pg_text(p));
            } else if (pg_dtype_of(x) != pg_dtype_of(p)) {
                return pg_fail("%s[%d] is %s, its parameter %s", roles[r].name, k, pg_dtype_name(pg_dtype_of(x)),
                               pg_dtype_name(pg_dtype_of(p)));
            }
        }
    }
    return PG_OK;
}

static int check_hyper(const pg_tensor *hyper, int n) {
    if (pg_dtype_of(hyper) == PG_FLOAT64 && pg_ndim(hyper) == 1 && pg_numel(hyper) == n && hyper->impl->contiguous)
        return PG_OK;
    return pg_fail("hyper: expected %d float64 values, got %s of shape %s", n, pg_dtype_name(pg_dtype_of(hyper)),
                   pg_text(hyper));
}

enum { FLOATS = 4 };
static const int float_dtypes[FLOATS] = {PG_FLOAT32, PG_FLOAT64, PG_FLOAT16, PG_BFLOAT16};

enum { STEP_SGD, STEP_ADAM };

/* One kernel a dtype. */
static int step(int which, const pg_tensor *hyper, const role_list *roles, unsigned writes) {
    batch b;
    const pg_device *device = pg_device_of(hyper);
    bool begun = false;
    pg_memory_here.asks = false;
    int status = batch_begin(&b, roles[ROLE_PARAM].n);
    for (int d = 0; d < FLOATS && status >= 0; d++) {
        status = batch_fill(&b, roles, float_dtypes[d]);
        if (status < 0 || b.count == 0) continue;
        pg_parameters p = batch_parameters(&b);
        begun = true;
        status = which == STEP_SGD ? PG_RUN(device, sgd, float_dtypes[d], &p, pg_data(hyper))
                                   : PG_RUN(device, adam, float_dtypes[d], &p, pg_data(hyper));
        if (status >= 0) status = batch_written(&b, roles, writes);
    }
    batch_end(&b);
    /* some may have been stepped: trying once more would step them twice */
    return status == PG_ERROR_MEMORY && begun ? PG_ERROR : status;
}

int op_sgd_step_(pg_tensor *hyper, const pg_tensor *const *params, int params_n, const pg_tensor *const *grads,
                 int grads_n, const pg_tensor *const *momentum_buffers, int momentum_buffers_n) {
    role_list roles[ROLES] = {
        [ROLE_PARAM] = {params, params_n, "params"}, [ROLE_GRAD] = {grads, grads_n, "grads"},
        [ROLE_STATE1] = {momentum_buffers, momentum_buffers_n, "momentum_buffers"},
    };
    int status = check_hyper(hyper, 7);
    if (status >= 0) status = check_roles(roles);
    return status < 0 ? status : step(STEP_SGD, hyper, roles, WRITES(ROLE_PARAM) | WRITES(ROLE_STATE1));
}

int op_adam_step_(pg_tensor *hyper, const pg_tensor *const *params, int params_n, const pg_tensor *const *grads,
                  int grads_n, const pg_tensor *const *exp_avgs, int exp_avgs_n, const pg_tensor *const *exp_avg_sqs,
                  int exp_avg_sqs_n, const pg_tensor *const *max_exp_avg_sqs, int max_exp_avg_sqs_n) {
    role_list roles[ROLES] = {
        [ROLE_PARAM] = {params, params_n, "params"}, [ROLE_GRAD] = {grads, grads_n, "grads"},
        [ROLE_STATE1] = {exp_avgs, exp_avgs_n, "exp_avgs"},
        [ROLE_STATE2] = {exp_avg_sqs, exp_avg_sqs_n, "exp_avg_sqs"},
        [ROLE_STATE3] = {max_exp_avg_sqs, max_exp_avg_sqs_n, "max_exp_avg_sqs"},
    };
    const unsigned writes = WRITES(ROLE_PARAM) | WRITES(ROLE_STATE1) | WRITES(ROLE_STATE2) | WRITES(ROLE_STATE3);
    int status = check_hyper(hyper, 9);
    if (status >= 0) status = check_roles(roles);
    return status < 0 ? status : step(STEP_ADAM, hyper, roles, writes);
}

/* The norms by dtype are doubles on the device; the norm of those is the norm of all. */
static int norms(batch *b, const role_list *roles, double order, pg_tensor *by_dtype, pg_tensor *total) {
    const pg_device *device = pg_device_of(total);
    double *place = pg_data(by_dtype);
    for (int d = 0; d < FLOATS; d++) {
        int status = batch_fill(b, roles, float_dtypes[d]);
        if (status < 0) return status;
        if (b->count == 0) continue;
        pg_parameters p = batch_parameters(b);
        status = PG_RUN(device, total_norm, float_dtypes[d], &p, order, place + d);
        if (status < 0) return status;
    }
    int64_t size = FLOATS;
    const void *data = place;
    pg_parameters p = {.count = 1, .sizes = &size, .grad = &data};
    return PG_RUN(device, total_norm, PG_FLOAT64, &p, order, pg_data(total));
}

/* The kernel scales its parameters: here these are the gradients. */
static int clip(batch *b, const role_list *gradients, double max_norm, const pg_tensor *total) {
    role_list roles[ROLES] = {[ROLE_PARAM] = gradients[ROLE_GRAD]};
    for (int d = 0; d < FLOATS; d++) {
        int status = batch_fill(b, roles, float_dtypes[d]);
        if (status < 0) return status;
        if (b->count == 0) continue;
        pg_parameters p = batch_parameters(b);
        status = PG_RUN(pg_device_of(total), clip_scale, float_dtypes[d], &p, max_norm, pg_data(total));
        if (status >= 0) status = batch_written(b, roles, WRITES(ROLE_PARAM));
        if (status < 0) return status;
    }
    return PG_OK;
}

static int check_finite(const pg_tensor *total, double order) {
    double value;
    int status = pg_device_of(total)->to_host(pg_device_of(total), &value, pg_data(total), sizeof value);
    if (status >= 0 && !isfinite(value))
        status = pg_fail("the total norm of order %g of the gradients is %g, so they cannot be clipped; to go on "
                         "nevertheless, leave error_if_nonfinite away", order, value);
    return status;
}

int op_clip_grad_norm_(pg_tensor *out, const pg_tensor *const *grads, int grads_n, double max_norm, double norm_type,
                       bool error_if_nonfinite) {
    if (grads_n == 0) return pg_fail("expected at least one gradient");
    if (!(norm_type > 0)) return pg_fail("norm_type: expected a positive order or inf, got %g", norm_type);
    if (max_norm != max_norm) return pg_fail("max_norm: expected a number, got nan");
    int dtype = pg_dtype_of(grads[0]);   /* the result's: float32 wherever there is one */
    for (int k = 0; k < grads_n; k++) {
        int status = check_dtype(grads[k], "grads", k);
        if (status < 0) return status;
        if (pg_dtype_of(grads[k]) != dtype) dtype = PG_FLOAT32;
    }
    const pg_device *device = pg_device_of(grads[0]);
    role_list roles[ROLES] = {[ROLE_GRAD] = {grads, grads_n, "grads"}};
    pg_tensor by_dtype = PG_HANDLE, total = PG_HANDLE;
    batch b = {0};
    int64_t floats = FLOATS;
    pg_memory_here.asks = false;
    int status = pg_new(&by_dtype, device, PG_FLOAT64, 1, &floats);
    if (status >= 0) status = pg_fill_value(&by_dtype, (pg_value){0, 0.0});
    if (status >= 0) status = pg_new(&total, device, PG_FLOAT64, 0, NULL);
    if (status >= 0) status = batch_begin(&b, grads_n);
    if (status >= 0) status = norms(&b, roles, norm_type, &by_dtype, &total);
    if (status >= 0 && error_if_nonfinite) status = check_finite(&total, norm_type);
    bool begun = status >= 0 && max_norm < HUGE_VAL;
    if (begun) status = clip(&b, roles, max_norm, &total);
    if (status >= 0) status = pg_converted(out, &total, dtype);
    /* once gradients may be scaled, trying once more would give another norm */
    if (status == PG_ERROR_MEMORY && begun) status = PG_ERROR;
    batch_end(&b);
    pg_tensor_release(&total);
    pg_tensor_release(&by_dtype);
    return status;
}

/* ---- gradient scaling ---- */

static int check_single(const pg_tensor *x, const char *name) {
    if (pg_dtype_of(x) == PG_FLOAT32 && pg_numel(x) == 1) return PG_OK;
    return pg_fail("%s: expected one float32, got %s of shape %s", name, pg_dtype_name(pg_dtype_of(x)), pg_text(x));
}

int op_unscale_(pg_tensor *found_inf, const pg_tensor *const *grads, int grads_n, const pg_tensor *inverse_scale) {
    int status = check_single(found_inf, "found_inf");
    if (status >= 0) status = check_single(inverse_scale, "inverse_scale");
    for (int k = 0; k < grads_n && status >= 0; k++)
        if (!pg_is_float(pg_dtype_of(grads[k])))
            status = pg_fail("grads[%d]: expected a floating dtype, got %s", k, pg_dtype_name(pg_dtype_of(grads[k])));
    if (status < 0 || grads_n == 0) return status;
    const role_list roles[ROLES] = {[ROLE_PARAM] = {grads, grads_n, "grads"}};
    batch b;
    bool begun = false;
    status = batch_begin(&b, grads_n);
    for (int d = 0; d < FLOATS && status >= 0; d++) {
        status = batch_fill(&b, roles, float_dtypes[d]);
        if (status < 0 || b.count == 0) continue;
        pg_parameters p = batch_parameters(&b);
        begun = true;
        status = PG_RUN(pg_device_of(found_inf), unscale, float_dtypes[d], &p, pg_data(inverse_scale), pg_data(found_inf));
        if (status >= 0) status = batch_written(&b, roles, WRITES(ROLE_PARAM));
    }
    batch_end(&b);
    if (begun) pg_bump_version(found_inf);
    /* some may have been multiplied: trying once more would do it twice */
    return status == PG_ERROR_MEMORY && begun ? PG_ERROR : status;
}
