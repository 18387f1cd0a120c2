/* rows.h: sums and maxima of dense rows, and the exponential of one, each in an order that the length alone decides. */
#ifndef PG_ROWS_H
#define PG_ROWS_H

#include "mathf.h"
#include "vector.h"

#define BODY "rows_body.h"
#include "each_float.h"

#endif
