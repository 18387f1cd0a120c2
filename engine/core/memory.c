/* memory.c: what users ask about memory, and the debt counter. */
#include <string.h>

#include "../autograd/tape.h"
#include "debt.h"
#include "live.h"

static const int64_t LIMIT_MIN = INT64_C(256) << 20, FLOOR_MAX = INT64_C(896) << 20;

PG_THREAD pg_debt pg_debt_here = {0, INT64_C(256) << 20};

/* How much is let pass between collections: a floor, and a part of what is live. Both grow while collecting
 * is expensive. */
static PG_THREAD struct { int64_t floor; double part; } pace = {INT64_C(256) << 20, 0.5};

bool pg_debt_due(void) { return pg_debt_here.bytes > pg_debt_here.limit; }

void pg_debt_clear(double collect_seconds, double since_seconds)
{
    double share = since_seconds > 0 ? collect_seconds / since_seconds : 0;
    if (share > 0.05) {
        pace.part = 1;
        pace.floor = pace.floor < FLOOR_MAX / 2 ? 2 * pace.floor : FLOOR_MAX;
    } else if (share < 0.01) {
        pace.part = 0.5;
        pace.floor = pace.floor > 2 * LIMIT_MIN ? pace.floor / 2 : LIMIT_MIN;
    }
    int64_t live = (int64_t)(pace.part * (double)pg_allocated_everywhere());
    pg_debt_here.bytes = 0;
    pg_debt_here.limit = live > pace.floor ? live : pace.floor;
}

int pg_memory_statistics(pg_memory_stats *stats, const char *device)
{
    if (!stats) return pg_fail("memory_statistics: expected a place for the result, got NULL");
    const pg_device *d;
    int status = pg_device_find(&d, device);
    if (status < 0) return status;
    memset(stats, 0, sizeof *stats);
    pg_allocator_statistics(d->allocator, stats);
    stats->live_tensors = (double)atomic_load(&pg_live_tensors);
    stats->live_storages = (double)atomic_load(&pg_live_storages);
    stats->live_nodes = (double)pg_live_nodes();
    return PG_OK;
}

int pg_reset_peak_memory_stats(const char *device)
{
    const pg_device *d;
    int status = pg_device_find(&d, device);
    if (status >= 0) pg_allocator_reset_peak(d->allocator);
    return status;
}

int pg_empty_cache(const char *device)
{
    const pg_device *d;
    int status = pg_device_find(&d, device);
    if (status < 0) return status;
    if (device) pg_allocator_empty_cache(d->allocator);
    else
        for (int k = 0; (d = pg_device_at(k)); k++) pg_allocator_empty_cache(d->allocator);
    return PG_OK;
}
