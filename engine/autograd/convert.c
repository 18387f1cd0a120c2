/* convert.c: dtype conversion with its gradient, which the tape itself needs. */
#include "tape.h"

static int convert_backward(pg_backward *b) {
    pg_tensor *t = pg_pool_new(b->pool);
    pg_pool_note(b->pool, pg_to_dtype(t, b->grad[0], pg_input_meta(b, 0).dtype));
    b->input[0] = t;
    return b->pool->status;
}
static const pg_rule convert_rule = {.name = "to_copy", .backward = convert_backward};

int pg_to_dtype(pg_tensor *out, const pg_tensor *x, int dtype) {
    if (x->impl->dtype == dtype) {
        pg_share(out, x);
        return PG_OK;
    }
    int status = pg_dense_as(out, x, dtype);
    return status < 0 ? status : pg_record1(&convert_rule, out, NULL, 0, x);
}
