/* device.h: the one lock, and which device is meant. Whatever touches memory lists, streams, graphs or the
 * block that runs holds it; a kernel runs under it. */
#ifndef PG_ON_CPU_DEVICE_H
#define PG_ON_CPU_DEVICE_H

#include <mutex>

namespace on_cpu {

extern std::recursive_mutex device_mutex;
typedef std::lock_guard<std::recursive_mutex> device_lock;

/* The one that the calling thread chose last: cudaSetDevice. */
int current_device(void);

}   // namespace on_cpu

#endif
