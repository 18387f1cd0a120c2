/* scope.h: memory scopes: at a scope's end the memory of what was made inside and cannot be reached goes at
 * once, without waiting for Lua's collector.
 *
 * The rule. A scope lists, without owning them, the tensors that were made in its thread while it was
 * innermost; one that dies earlier leaves the list. At the end a tensor is emptied (its memory, history and
 * gradient are dropped; its handle stays, and using it is an error) when one Lua handle is all that still
 * refers to it:
 *   refs == 1 and held == 0.
 * `held` counts the references that the engine's own structures own (the base of a view, the leaf of an edge,
 * what a node saved, .grad): those are reachable from something that lives, so the tensor stays. Emptying
 * one may release others: the youngest go first (an output's history refers to what was made before it),
 * again and again until nothing more goes.
 * What stays moves to the scope around, to be looked at again at its end, or out of all scopes.
 *
 * What one handle refers to and the program still wants must be said: pg_scope_keep (what the function
 * returns, at any depth of tables) or pg_scope_exempt (what is stored in a module, an optimizer, a queue to
 * another thread). Two handles of one tensor keep it. Memory is shared: emptying a view frees nothing while
 * another tensor of the storage lives.
 */
#ifndef PG_SCOPE_H
#define PG_SCOPE_H

#include "tensor.h"

/* x, just made, is listed in this thread's innermost scope, if any. */
void pg_scope_note(pg_impl *x);
/* Takes x off its list (x->scoped only). Any thread. */
void pg_scope_forget(pg_impl *x);

#endif
