/* table.c: one instruction set's kernels as a table. */
#include "cpu.h"

extern const pg_kernels PG_K(kernels);
const pg_kernels PG_K(kernels) = {
    .hash = PG_KERNELS_HASH,
#define PG_TEXT_(x) #x
#define PG_TEXT(x) PG_TEXT_(x)
    .name = PG_TEXT(PG_ISA),
    .pointwise = PG_K(pointwise),
    .copy = PG_K(copy),
    .fill = PG_K(fill),
    .reduce = PG_K(reduce),
    .scan = PG_K(scan),
    .sort = PG_K(sort),
    .topk = PG_K(topk),
    .arange = PG_K(arange),
    .linspace = PG_K(linspace),
    .random = PG_K(random),
    .dropout = PG_K(dropout),
    .index_select = PG_K(index_select),
    .index_add = PG_K(index_add),
    .gather = PG_K(gather),
    .scatter_add = PG_K(scatter_add),
    .scatter = PG_K(scatter),
    .index_get = PG_K(index_get),
    .index_put = PG_K(index_put),
    .nonzero = PG_K(nonzero),
    .triangle = PG_K(triangle),
    .gemm = PG_K(gemm),
    .softmax = PG_K(softmax),
    .softmax_backward = PG_K(softmax_backward),
    .layer_norm = PG_K(layer_norm),
    .layer_norm_backward = PG_K(layer_norm_backward),
    .cross_entropy = PG_K(cross_entropy),
    .cross_entropy_backward = PG_K(cross_entropy_backward),
    .attention = PG_K(attention),
    .attention_backward = PG_K(attention_backward),
    .sgd = PG_K(sgd),
    .adam = PG_K(adam),
    .total_norm = PG_K(total_norm),
    .clip_scale = PG_K(clip_scale),
};
