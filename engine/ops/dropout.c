/* dropout.c: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting". */
#include "networks.h"

typedef struct dropout_args { double scale; } dropout_args;

/* The mask is kept as bools, a quarter of float32. */
static int dropout_backward(pg_backward *b) {
    const dropout_args *a = b->args;
    pg_pool *p = b->pool;
    b->input[0] = x_scaled(p, x_times(p, b->grad[0], pg_saved(b, PG_OUT(1))), a->scale);
    return p->status;
}
static const pg_rule dropout_rule = {.name = "dropout", .backward = dropout_backward, .undefined_grads = true,
                                     .uses = {PG_USE(PG_OUT(1))}};

int op_dropout(pg_tensor *out, const pg_tensor *input, double p, bool training) {
    if (!(p >= 0 && p <= 1)) return pg_fail("probability must be between 0 and 1, got %g", p);
    if (!pg_is_float(input->impl->dtype))
        return pg_fail("expected a floating input, got %s", pg_dtype_name(input->impl->dtype));
    if (!training || p == 0) {
        pg_share(out, input);
        return PG_OK;
    }
    pg_tensor x = PG_HANDLE, mask = PG_HANDLE;
    const pg_device *device = pg_device_of(input);
    int status = pg_dense(&x, input);
    if (status >= 0) status = pg_new_like(out, input, input->impl->dtype);
    if (status >= 0) status = pg_new_like(&mask, input, PG_BOOL);
    if (status >= 0 && input->impl->numel > 0) {
        const pg_philox state = pg_random_draw(device, ((uint64_t)input->impl->numel + 3) / 4);
        status = PG_RUN(device, dropout, input->impl->dtype, input->impl->numel, p, &state, pg_data(&x), pg_data(out),
                        pg_data(&mask));
    }
    const dropout_args args = {p < 1 ? 1 / (1 - p) : 0};
    if (status < 0) pg_tensor_release(out);
    else status = pg_record(&dropout_rule, 2, (pg_tensor *[]){out, &mask}, 1, (const pg_tensor *[]){input}, &args, sizeof args);
    pg_tensor_release(&x);
    pg_tensor_release(&mask);
    return status;
}
