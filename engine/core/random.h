/* random.h: one Philox stream a device. A draw of n elements takes the state as it stands and moves the offset by ceil(n / 4)
 * (float64: ceil(n / 2)), whatever the threads. */
#ifndef PG_RANDOM_H
#define PG_RANDOM_H

#include "error.h"
#include "../../kernels/kernels.h"

typedef struct pg_device pg_device;
typedef struct pg_generator { pg_philox state; } pg_generator;

/* The state for a draw of `blocks` counter steps; advances the device's generator. Thread-safe. */
pg_philox pg_random_draw(const pg_device *device, uint64_t blocks);
/* What generators start from where the user gave no seed: other in every process, the same for every device of one. */
uint64_t pg_random_fresh_seed(void);

#endif
