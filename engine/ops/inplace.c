/* inplace.c: see inplace.h. */
#include "inplace.h"

int pg_inplace_open(pg_tensor *twin, const pg_tensor *self, const pg_rule *rule, const void *args,
                    size_t args_size, int n, const pg_tensor *const *inputs)
{
    pg_door door = {0};
    int status = pg_door_inplace_begin(&door, self);
    if (status >= 0) status = pg_check_view_writable(self, self);
    if (status < 0 || !pg_will_record(n, inputs)) return status;
    status = pg_alias_same(twin, self);
    if (status >= 0) status = pg_record(rule, 1, (pg_tensor *[]){twin}, n, inputs, args, args_size);
    if (status >= 0) status = pg_node_isolate(twin->impl->grad_fn, self->impl->storage);
    if (status >= 0) status = pg_check_view_writable(self, twin);
    if (status < 0) pg_tensor_release(twin);
    return status;
}

int pg_inplace_close(pg_tensor *twin, const pg_tensor *self, int status)
{
    pg_bump_version(self);
    if (status >= 0 && twin->impl) status = pg_rebase_history(self, twin);
    /* self may have changed: trying once more could change it twice */
    if (status == PG_ERROR_MEMORY) status = PG_ERROR;
    pg_tensor_release(twin);
    return status;
}
