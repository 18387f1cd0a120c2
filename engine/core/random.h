/* random.h: one Philox stream a thread and device, seeded by the thread itself or, where it does not, by
 * chance. A draw of n elements takes the state as it stands and moves the offset by ceil(n / 4) (float64:
 * ceil(n / 2)), whatever the workers. */
#ifndef PG_RANDOM_H
#define PG_RANDOM_H

#include "error.h"
#include "../../kernels/kernels.h"

typedef struct pg_device pg_device;

/* The state for a draw of `blocks` counter steps; advances this thread's stream. */
pg_philox pg_random_draw(const pg_device *device, uint64_t blocks);
void pg_random_set(const pg_device *device, pg_philox state);

#endif
