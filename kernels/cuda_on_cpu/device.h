/* device.h: the one lock. Whatever touches memory lists, streams, graphs or the block that runs holds it;
 * a kernel runs under it. */
#ifndef PG_ON_CPU_DEVICE_H
#define PG_ON_CPU_DEVICE_H

#include <mutex>

namespace on_cpu {

extern std::recursive_mutex device_mutex;
typedef std::lock_guard<std::recursive_mutex> device_lock;

}   // namespace on_cpu

#endif
