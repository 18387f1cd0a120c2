/* node.h: the tape's inside, for engine/autograd alone.
 *
 * A node is one recorded op. It owns references to the nodes and leaves that its inputs came from (edges), to what it saved, and to
 * nothing that was made after it: no cycles. A saved output is kept without its history, which is this node itself.
 * Sequence numbers grow with creation, so an op's node is always younger than those of its inputs: running the youngest first is a
 * reverse topological order.
 */
#ifndef PG_NODE_H
#define PG_NODE_H

#include "../core/live.h"
#include "tape.h"

/* Where a gradient goes: output `nr` of `node`, or the leaf; neither where none is needed. */
typedef struct pg_edge { pg_node *node; pg_impl *leaf; int32_t nr; } pg_edge;

typedef struct pg_slot {        /* shape and dtype of an input or output */
    const pg_device *device;
    int8_t dtype;               /* -1: an absent input */
    uint8_t ndim;
    int32_t first;              /* its sizes: node->sizes + first */
} pg_slot;

typedef struct pg_save {
    pg_impl *tensor;            /* an alias (inputs), a twin without history (outputs); owned; NULL once freed */
    uint32_t version;           /* of the storage when saved */
    int16_t which;              /* PG_IN(k) or PG_OUT(k); for list rules the position */
    bool is_output;
} pg_save;

typedef struct pg_watch {       /* hooks and kept gradients of an output */
    struct pg_watch *next;
    int32_t nr;
    double hook_id;             /* or 0 */
    pg_impl *retained;          /* or NULL; not owned: the tensor removes itself when it goes */
} pg_watch;

struct pg_node {
    atomic_int refs;
    int32_t n_inputs, n_outputs, n_saved;
    bool freed;                 /* what was saved, or hooks, are gone: a second backward run is an error */
    uint64_t sequence;
    const pg_rule *rule;
    double custom_id;           /* a custom function's, else 0 */
    char *custom_name;          /* owned; or NULL */
    pg_watch *watches;
    pg_edge *edges;             /* the rest lies behind the struct, in one allocation */
    pg_slot *inputs, *outputs;
    int64_t *sizes;
    pg_save *saved;
    void *args;
    size_t bytes;               /* of the allocation */
    pg_node *waiting;           /* link of nodes to be freed */
};

/* A node for an op with these inputs and outputs, edges filled, nothing saved yet (room for saved_max). */
int pg_node_make(pg_node **out, const pg_rule *rule, int n_outputs, pg_tensor *const *outputs, int n_inputs,
                 const pg_tensor *const *inputs, int saved_max, const void *args, size_t args_size);
int pg_node_save(pg_node *n, const pg_tensor *t, int which, bool is_output);
/* Gives the outputs this node as history. */
void pg_node_attach(pg_node *n, int n_outputs, pg_tensor *const *outputs);
/* After a run that keeps no graph: what was saved goes, and so do hooks, whose closures may hold what came out of this node. */
void pg_node_spend(pg_node *n);
/* The edge that a gradient for t takes. References are added. */
int pg_edge_of(pg_edge *e, const pg_tensor *t);
void pg_edge_release(pg_edge *e);
/* An error where the node is spent. */
int pg_node_check(const pg_node *n);
/* A saved tensor as a handle with its history, into out. */
int pg_node_unpack(pg_tensor *out, pg_node *n, const pg_save *s);
int pg_node_watch(pg_watch **out, pg_node *n, int nr);
/* The region that is open sees these: see tape.h. */
extern const pg_rule pg_custom_rule;

#endif
