/* ops.h: what every op file includes: the generated prototypes (op_NAME, x_NAME) and the tape. */
#ifndef PG_OPS_ALL_H
#define PG_OPS_ALL_H

#include "pg_ops.h"
#include "../autograd/tape.h"

#endif
