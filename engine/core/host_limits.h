/* host_limits.h: what this machine and the control group around this process allow. */
#ifndef PG_HOST_LIMITS_H
#define PG_HOST_LIMITS_H

#include <stddef.h>

/* Processors that the cpu quota amounts to (cgroup v2 cpu.max, v1 cpu.cfs_quota_us); 0 where there is
 * none. */
double pg_host_cpu_quota(void);
/* Bytes that may still be used: the least of MemAvailable and what every enclosing memory group leaves (v2
 * memory.max, v1 memory.limit_in_bytes; page cache that can be dropped counts as free). SIZE_MAX where
 * nothing is known. */
size_t pg_host_available(void);

#endif
