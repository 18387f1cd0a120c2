/* libraries.h: NVIDIA's libraries that are opened by name at run time, as dlopen, dlsym and dlerror would.
 *
 * There is one, cuBLASLt's stand-in, under each of its file names. PERIGEE_CUDA_WITHOUT takes away the
 * library, or one of its functions.
 */
#ifndef PG_ON_CPU_LIBRARIES_H
#define PG_ON_CPU_LIBRARIES_H

#pragma GCC visibility push(hidden)
namespace on_cpu {

void *library_open(const char *file);
void *library_function(void *library, const char *name);
/* Why the last file could not be opened, in the loader's words. */
const char *library_error(void);

}   // namespace on_cpu
#pragma GCC visibility pop

#endif
