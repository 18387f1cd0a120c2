/* registry.c: which devices there are, and what a kernel's status means. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/dtype.h"
#include "cuda.h"
#include "device.h"

const pg_device *pg_device_at(int k) { return k == 0 ? pg_device_cpu() : pg_cuda_known(k - 1); }

/* Where tensors are made that are not told where: this thread's, NULL for the cpu. */
static PG_THREAD const pg_device *default_device;

/* "cuda:1" is of type "cuda" with index 1; -1 where no index is given, -2 where the text after the colon is
 * none. */
static size_t type_length(const char *name, long *index)
{
    const char *colon = strchr(name, ':');
    *index = -1;
    if (!colon) return strlen(name);
    char *end;
    *index = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end || *index < 0 || colon[1] == '+') *index = -2;
    return (size_t)(colon - name);
}

int pg_device_find(const pg_device **out, const char *name)
{
    int status = pg_device_find_known(out, name);
    return status < 0 || !(*out)->start ? status : (*out)->start(*out);
}

int pg_device_find_known(const pg_device **out, const char *name)
{
    const char *problem = pg_cpu_problem();
    if (problem) return pg_fail("%s", problem);
    if (!pg_device_cpu()->allocator) return pg_out_of_memory(0);
    if (!name) {
        *out = default_device ? default_device : pg_device_cpu();
        return PG_OK;
    }
    long index;
    size_t n = type_length(name, &index);
    const bool cuda = n == 4 && memcmp(name, "cuda", 4) == 0 && index != -2;
    const char *why = cuda ? pg_cuda_why_not() : NULL;
    if (cuda && !why && index == -1) index = pg_cuda_current_device();
    const pg_device *d;
    for (int k = 0; (d = pg_device_at(k)); k++)
        if (strlen(d->type) == n && memcmp(d->type, name, n) == 0 && (index == -1 || index == d->index)) {
            *out = d;
            return PG_OK;
        }
    char there[160];
    size_t used = 0;
    there[0] = 0;
    for (int k = 0; (d = pg_device_at(k)) && used < sizeof there; k++)
        used += (size_t)snprintf(there + used, sizeof there - used, "%s%s", k ? ", " : "", d->name);
    if (why) return pg_fail("device '%.60s': %s (devices here: %s)", name, why, there);
    if (cuda) return pg_fail("device '%.60s': there is no such CUDA device (devices here: %s)", name, there);
    return pg_fail("unknown device '%.60s' (devices here: %s)", name, there);
}

int pg_set_default_device(const char *name)
{
    const pg_device *d = NULL;
    int status = name ? pg_device_find(&d, name) : PG_OK;
    if (status >= 0) default_device = d;
    return status;
}

const char *pg_device_name(const char *name)
{
    const pg_device *d;
    return pg_device_find_known(&d, name) < 0 ? NULL : d->name;
}

const char *pg_get_default_device(void) { return default_device ? default_device->name : "cpu"; }

int pg_device_count(const char *type)
{
    int n = 0;
    const pg_device *d;
    if (type && strcmp(type, "cuda") == 0) pg_cuda_why_not();
    for (int k = 0; (d = pg_device_at(k)); k++) n += type != NULL && strcmp(d->type, type) == 0;
    return n;
}

int pg_kernel_complaint(int64_t kind, const int64_t *bad)
{
    if (kind == PG_KERNEL_ZERO_DIVISION) return pg_fail("integer division by zero");
    if (!bad || !bad[0]) return pg_fail_status(PG_ERROR_INDEX, "an index is out of range");
    if (!bad[2]) return pg_fail_status(PG_ERROR_INDEX, "index %lld is out of range", (long long)bad[1]);
    return pg_fail_status(PG_ERROR_INDEX, "index %lld is out of range for a dimension of size %lld",
                          (long long)bad[1], (long long)bad[2]);
}

int pg_kernel_status(const pg_device *d, pg_context *context, int kernel_status, const char *kernel,
                     int dtype)
{
    int status = PG_OK;
    switch (kernel_status) {
    case PG_KERNEL_OK: break;
    case PG_KERNEL_UNSUPPORTED:
        if (dtype >= 0 && dtype < PG_DTYPES)
            status = pg_fail("\"%s\" is not defined for %s on %s", kernel, pg_dtype_name(dtype), d->name);
        else
            status = pg_fail("\"%s\" is not defined for these dtypes on %s", kernel, d->name);
        break;
    case PG_KERNEL_NO_SCRATCH:
        /* the allocator has left the message with the sizes */
        status = PG_ERROR_MEMORY;
        break;
    case PG_KERNEL_BAD_INDEX:
    case PG_KERNEL_ZERO_DIVISION:
        status = pg_kernel_complaint(kernel_status, context->bad_index);
        break;
    case PG_KERNEL_INTERRUPTED:
        status = pg_fail_status(PG_ERROR_INTERRUPT, "interrupted");
        break;
    case PG_KERNEL_FAILED:
        status = pg_fail("\"%s\" failed on %s: %s", kernel, d->name,
                         d->failure ? d->failure(d) : "no reason given");
        break;
    default:
        status = pg_fail("\"%s\" failed on %s with kernel status %d", kernel, d->name, kernel_status);
    }
    d->context_end(d, context);
    if (__builtin_expect(d->after != NULL, 0) && status >= 0) status = d->after(d);
    return status;
}
