/* perigee.h: Perigee for C programs. Lua reads perigee_api.h itself. */
#ifndef PERIGEE_H
#define PERIGEE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#include "perigee_api.h"

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif

/* An empty handle, ready to be filled. */
#define PG_HANDLE ((pg_tensor){PG_HANDLE_MAGIC, 0, NULL})
#define PG_LIST ((pg_tensor_list){PG_LIST_MAGIC, 0, NULL})

#endif
