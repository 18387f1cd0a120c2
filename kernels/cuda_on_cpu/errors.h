/* errors.h: how the stand-ins report. */
#ifndef PG_ON_CPU_ERRORS_H
#define PG_ON_CPU_ERRORS_H

#include "include/on_cpu/runtime_api.h"

namespace on_cpu {

/* Keeps the error for the calling thread, where it is one, and gives it back. */
cudaError_t outcome(cudaError_t error);
/* From now on the outcome of everything is that an illegal address was met. */
void lose_device(void);

/* A kernel's launch ended badly: the next call that waits, or the launch itself where it ran at once,
 * gives cudaErrorLaunchFailure. */
void launch_failed(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The failure that nobody has been told of, and forgets it: cudaSuccess or cudaErrorLaunchFailure. */
cudaError_t take_failure(void);

}   // namespace on_cpu

#endif
