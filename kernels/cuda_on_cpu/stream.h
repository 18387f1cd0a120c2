/* stream.h: streams as queues of work, events as marks in them, captures as lists. All under the device's
 * lock. */
#ifndef PG_ON_CPU_STREAM_H
#define PG_ON_CPU_STREAM_H

#include "include/on_cpu/launch.h"

namespace on_cpu {

/* Runs the work now, queues it (late mode), or records it (capture). A launch that fails at once is
 * reported here. */
cudaError_t stream_submit(cudaStream_t stream, work &work);

/* Until nothing is queued there, or anywhere; gives the failure of what ran. */
cudaError_t stream_drain(cudaStream_t stream);
cudaError_t stream_drain_all(void);

bool stream_capturing(cudaStream_t stream);
/* Whether some capture under way forbids the calling thread to allocate or to wait; that capture is then
 * invalid. */
bool capture_forbids(void);

}   // namespace on_cpu

#endif
