/* custom.c: nodes of functions written in Lua. Lua runs them; C keeps what they saved and where their gradients go. */
#include <stdlib.h>
#include <string.h>

#include "node.h"

static int never_run(pg_backward *b) {
    (void)b;
    return pg_fail("a custom function's backward is run by Lua alone");
}
const pg_rule pg_custom_rule = {.name = "custom", .backward = never_run, .undefined_grads = true};

static int position(const pg_tensor *t, int n, const pg_tensor *const *list) {
    for (int i = 0; i < n; i++)
        if (list[i] && list[i]->impl == t->impl) return i;
    return -1;
}

static bool listed(int k, const int64_t *list, int n) {
    for (int i = 0; i < n; i++)
        if (list[i] == k) return true;
    return false;
}

static int check_all(const pg_tensor *const *list, int n, const char *what) {
    for (int i = 0; i < n; i++)
        if (list[i] && (list[i]->magic != PG_HANDLE_MAGIC || !list[i]->impl || !list[i]->impl->storage))
            return pg_fail("%s %d: expected a tensor, got a freed one or something else", what, i);
    return PG_OK;
}

/* An output that is an input, a view or has a history of its own becomes a plain alias, so that it can take this node as history. */
static int make_plain(pg_tensor *out, int inputs_n, const pg_tensor *const *inputs) {
    const pg_impl *x = out->impl;
    if (!x->base && !x->grad_fn && !x->requires_grad && position(out, inputs_n, inputs) < 0) return PG_OK;
    pg_tensor alias = PG_HANDLE;
    int status = pg_alias_same(&alias, out);
    if (status < 0) return status;
    pg_tensor_release(out);
    pg_move(out, &alias);
    return PG_OK;
}

int pg_custom_record(const char *name, double id, const pg_tensor *const *inputs, int inputs_n, pg_tensor *const *outputs,
                     int outputs_n, const pg_tensor *const *saved, int saved_n, const int64_t *non_differentiable,
                     int non_differentiable_n) {
    int status = check_all(inputs, inputs_n, "input");
    if (status >= 0) status = check_all((const pg_tensor *const *)outputs, outputs_n, "output");
    if (status >= 0) status = check_all(saved, saved_n, "saved tensor");
    if (status < 0) return status;
    bool record = pg_will_record(inputs_n, inputs);
    int *saved_output = pg_malloc((size_t)(saved_n > 0 ? saved_n : 1) * sizeof *saved_output);
    if (!saved_output) return pg_out_of_memory((size_t)saved_n * sizeof *saved_output);
    for (int i = 0; i < saved_n; i++) saved_output[i] = position(saved[i], outputs_n, (const pg_tensor *const *)outputs);
    for (int i = 0; i < outputs_n && status >= 0; i++) status = make_plain(outputs[i], inputs_n, inputs);
    pg_node *n = NULL;
    if (status >= 0 && record)
        status = pg_node_make(&n, &pg_custom_rule, outputs_n, outputs, inputs_n, inputs, saved_n, NULL, 0);
    if (status >= 0 && n && !(n->custom_name = pg_strdup(name ? name : "custom"))) status = pg_out_of_memory(64);
    for (int i = 0; i < saved_n && status >= 0 && n; i++) {
        /* `which` of a saved output is its position among the outputs: it comes back as output k of this node */
        int k = saved_output[i];
        status = pg_node_save(n, k >= 0 ? outputs[k] : saved[i], k >= 0 ? k : i, k >= 0);
    }
    free(saved_output);
    if (status < 0) {
        pg_node_release(n);
        return status;
    }
    if (!n) return PG_OK;
    n->custom_id = id;
    for (int i = 0; i < outputs_n; i++) {
        pg_impl *x = outputs[i]->impl;
        if (!pg_is_float(x->dtype) || listed(i, non_differentiable, non_differentiable_n)) continue;
        x->grad_fn = pg_node_retain(n);
        x->output_nr = i;
    }
    pg_node_release(n);
    return PG_OK;
}
