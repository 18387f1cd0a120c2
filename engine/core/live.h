/* live.h: what tensor.c and the tape tell each other, and the counts that leak checks read. */
#ifndef PG_LIVE_H
#define PG_LIVE_H

#include "tensor.h"

extern atomic_long pg_live_tensors, pg_live_storages;
void pg_storage_release(pg_storage *s);
/* n empty handles, owned by the list. */
int pg_list_make(pg_tensor_list *list, int n);
/* Puts an id of hooks or of a custom function into the queue that pg_dead_ids drains. */
void pg_dead_id(double id);
/* x, which asked its node to keep its gradient, is going. */
void pg_node_forget_retained(pg_node *n, const pg_impl *x);

#endif
