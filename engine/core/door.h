/* door.h: what every public op entry does before and after the op itself. The entries are generated from perigee_api.h. */
#ifndef PG_DOOR_H
#define PG_DOOR_H

#include "tensor.h"

enum { PG_AUTOCAST_NONE, PG_AUTOCAST_LOW, PG_AUTOCAST_F32, PG_AUTOCAST_PROMOTE, PG_AUTOCAST_LOSS, PG_AUTOCAST_CUDA = 8 };   /* autograd/autocast.h */
/* flags of pg_door_tensor: this argument may be on another device, or where it is a 0-dim tensor on the cpu */
enum { PG_ARG_ANY_DEVICE = 1, PG_ARG_CPU_SCALAR = 2 };

typedef struct pg_door {
    const char *before;           /* the op that called, if any */
    const pg_device *device;      /* of the first tensor argument */
    const char *device_argument;
} pg_door;

/* name: as messages call the op. */
int pg_door_enter(pg_door *d, const char *name);
int pg_door_tensor(pg_door *d, const pg_tensor *t, const char *argument, int flags);
int pg_door_tensors(pg_door *d, const pg_tensor *const *t, int n, const char *argument, int flags);
/* An out handle: right magic, and empty unless `may_be_filled`. */
int pg_door_out(pg_door *d, const pg_tensor *out, bool may_be_filled);
/* Restores the caller's op; turns PG_OK into PG_COLLECT when the debt is due and this is the outermost door. */
int pg_door_leave(pg_door *d, int status);
/* out=: writes result into the filled out (resized where its shape differs), refusing gradients; releases result. */
int pg_door_write_out(pg_door *d, pg_tensor *out, pg_tensor *result);
/* In-place twins: begin refuses what PyTorch refuses (a leaf that requires gradients, expanded memory, views of several outputs);
 * then result is written into self with its history, dtype and shape kept; releases result. */
int pg_door_inplace_begin(pg_door *d, const pg_tensor *self);
int pg_door_inplace(pg_door *d, const pg_tensor *self, pg_tensor *result);

#endif
