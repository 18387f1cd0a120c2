/* kernels.h: the arithmetic that every device provides: raw pointers, sizes, strides; no tensor, no tape.
 *
 * Every kernel takes a context first, returns a status (0, or a PG_KERNEL_ code) and allocates nothing: what it needs beyond its
 * arguments it asks of context->scratch. Memory is the device's, `const double *hyper` too, so that a captured graph can be replayed
 * with other values. The host's are the structs passed here with the arrays in them that are no operands (sizes, offsets, the lists
 * of pointers in pg_parameters) and `const pg_philox *`: a device that cannot read them asks context->constant. Strides count elements and may be zero (broadcast) or
 * negative (flip). Outputs never overlap inputs unless they are the same elements in the same order.
 * Promise: the same bits whatever the number of threads, so a reduction's order is fixed by its shape.
 */
#ifndef PG_KERNELS_H
#define PG_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PG_KERNEL_OK = 0, PG_KERNEL_UNSUPPORTED = 1, PG_KERNEL_NO_SCRATCH = 2, PG_KERNEL_BAD_INDEX = 3, PG_KERNEL_INTERRUPTED = 4,
       PG_KERNEL_ZERO_DIVISION = 5,     /* an integer was divided by zero; its result is 0 */
       PG_KERNEL_FAILED = 6 };          /* the device refused the launch; its library knows why */

/* PG_DIMS_MAX and the dtype numbers are the interface's (perigee_api.h). */
enum { PG_K_DIMS = 16, PG_K_OPERANDS = 8 };
enum {
    PG_K_BOOL, PG_K_UINT8, PG_K_INT8, PG_K_INT16, PG_K_INT32, PG_K_INT64, PG_K_FLOAT16, PG_K_BFLOAT16, PG_K_FLOAT32, PG_K_FLOAT64
};

typedef struct pg_context pg_context;
/* body handles items [begin, end); it must not depend on how the range was split. worker < context->threads names scratch of its
 * own. Small ranges (n <= grain) run in the calling thread. */
typedef void (*pg_body)(void *arg, int64_t begin, int64_t end, int worker);
struct pg_context {
    void *stream;                  /* CUDA: the stream; CPU: NULL */
    int threads;                   /* how many workers parallel may use, >= 1 */
    int64_t grain_limit;           /* no grain is taken as larger than this: INT64_MAX, or what a test asks for */
    const char *op;                /* which op asked: what a message that comes later names */
    int64_t *bad_index;            /* a kernel that meets an index out of range sets [0] to 1, [1] to the index, [2] to the size; on
                                      a device that runs late [0] is the status that it would have returned, and [3] is `op` */
    void (*parallel)(const pg_context *context, int64_t n, int64_t grain, pg_body body, void *arg);
    void *(*scratch)(const pg_context *context, size_t bytes);   /* 64-byte aligned, valid until the kernel returns, or NULL */
    /* The same bytes where the device's kernels can read them, valid until what this kernel launches has run. */
    const void *(*constant)(const pg_context *context, const void *host, size_t bytes);
    /* CPU: the library that large products go to (cpu/blas.h), opened when first asked for; it answers NULL where there is none. */
    const struct pg_blas *(*blas)(void);
    /* The same of a random state; one that a recorded call draws with is brought up to date before each replay. */
    const struct pg_philox *(*random_state)(const pg_context *context, const struct pg_philox *host);
    const volatile int *interrupt; /* nonzero: a long kernel returns PG_KERNEL_INTERRUPTED soon */
};

/* One value of an op's dtype: i for bools and integers, d for floats. */
typedef struct pg_value { int64_t i; double d; } pg_value;

/* Operands over one iteration space; dimensions are coalesced and ordered so that the last is the best inner loop; ndim 0 is one
 * element. Operand 0 is the output. data[k] NULL means that operand k is the constant scalar[k]. */
typedef struct pg_strided {
    int ndim, n;
    int64_t shape[PG_K_DIMS];
    int64_t stride[PG_K_OPERANDS][PG_K_DIMS];
    void *data[PG_K_OPERANDS];
    pg_value scalar[PG_K_OPERANDS];
} pg_strided;

/* X(NAME, arity, kinds): kinds: a = any dtype incl. bool, n = numbers, f = floats only, i = integers and bool.
 * Result dtype: that of the operands, but bool for PG_K_ comparisons and logical (marked by X2).
 * p0, p1: value.d of the constants `p` passed along. */
#define PG_POINTWISE(X) \
    X(ADD, 2, n) X(SUB, 2, n) X(MUL, 2, a) X(DIV, 2, f) X(POW, 2, n) X(MAXIMUM, 2, a) X(MINIMUM, 2, a) \
    X(FLOOR_DIVIDE, 2, n) X(REMAINDER, 2, n) X(FMOD, 2, n) X(ATAN2, 2, f) X(ADDCMUL, 3, n) /* a + p0 * b * c */ X(LERP, 3, f) \
    X(ADD_SCALED, 2, n)      /* a + p0 * b */ \
    X(NEG, 1, n) X(ABS, 1, n) X(SIGN, 1, n) X(SQUARE, 1, n) X(RECIPROCAL, 1, f) \
    X(EXP, 1, f) X(EXPM1, 1, f) X(EXP2, 1, f) X(LOG, 1, f) X(LOG1P, 1, f) X(LOG2, 1, f) X(LOG10, 1, f) \
    X(SQRT, 1, f) X(RSQRT, 1, f) X(SIN, 1, f) X(COS, 1, f) X(TAN, 1, f) X(SINH, 1, f) X(COSH, 1, f) X(TANH, 1, f) \
    X(SIGMOID, 1, f) X(ERF, 1, f) X(FLOOR, 1, n) X(CEIL, 1, n) X(ROUND, 1, n) X(TRUNC, 1, n) \
    X(RELU, 1, n) X(GELU, 1, f) X(GELU_TANH, 1, f) X(SILU, 1, f) X(SOFTPLUS, 1, f) /* p0 beta, p1 threshold */ \
    X(LEAKY_RELU, 1, f)      /* p0 slope */ \
    X(CLAMP, 3, n)           /* x, lo, hi; NaN bounds propagate; an absent bound is the dtype's extreme */ \
    X(RELU_BACKWARD, 2, f)   /* grad, result */ \
    X(GELU_BACKWARD, 2, f) X(GELU_TANH_BACKWARD, 2, f) X(SILU_BACKWARD, 2, f) X(SOFTPLUS_BACKWARD, 2, f) \
    X(LEAKY_RELU_BACKWARD, 2, f) /* grad, input */ \
    X(TANH_BACKWARD, 2, f) X(SIGMOID_BACKWARD, 2, f) /* grad, result */ \
    X(WHERE, 3, a)           /* condition (bool), a, b */ \
    X(BITWISE_AND, 2, i) X(BITWISE_OR, 2, i) X(BITWISE_XOR, 2, i) X(BITWISE_NOT, 1, i)
/* Result bool. */
#define PG_PREDICATES(X) \
    X(EQ, 2, a) X(NE, 2, a) X(LT, 2, a) X(LE, 2, a) X(GT, 2, a) X(GE, 2, a) X(LOGICAL_AND, 2, a) X(LOGICAL_OR, 2, a) \
    X(LOGICAL_XOR, 2, a) X(LOGICAL_NOT, 1, a) X(ISNAN, 1, a) X(ISINF, 1, a) X(ISFINITE, 1, a)

enum {
#define X(NAME, arity, kinds) PG_K_##NAME,
    PG_POINTWISE(X) PG_PREDICATES(X)
#undef X
    PG_K_POINTWISE_COUNT
};

/* A chain: pointwise ops over one iteration space in one pass; what they hand on is written nowhere. Each step's result is rounded
 * to its dtype, so that the chain has the bits of its steps run one by one. The last step's goes to operand 0 of the space, which
 * may have PG_K_OPERANDS operands here (pointwise has at most 4). */
enum { PG_K_CHAIN_STEPS = 16, PG_K_CHAIN_REGISTERS = 4 };
typedef struct pg_step {
    uint8_t op;                      /* PG_K_ADD ... */
    bool bools;                      /* of bools (logical ops alone), else of the chain's dtype */
    uint8_t to;                      /* a register, none of those that the step reads */
    uint8_t from[3];                 /* a register, or PG_K_CHAIN_REGISTERS + an operand */
    double p[2];
} pg_step;
typedef struct pg_chain {
    const pg_strided *space;
    int dtype;                       /* floating */
    uint32_t bools;                  /* bit k: operand k is of bools */
    int steps;
    pg_step step[PG_K_CHAIN_STEPS];
} pg_chain;

/* Reductions. Kept and reduced dimensions apart, each coalesced, innermost last; outputs are dense in kept order. ALL and ANY take
 * any dtype and give bool; ARGMAX, ARGMIN give int64; MAX and MIN give value and index of its first occurrence (NaN wins); SUM,
 * PROD, MEAN, the norms keep the dtype (float16 and bfloat16 accumulate in float32); VAR gives the variance (correction = p0) in
 * out and the mean in out2 (may be NULL); NORM is the p-norm of order p0; LOGSUMEXP. An empty reduction is the caller's business for
 * those without identity. */
#define PG_REDUCTIONS(X) \
    X(SUM) X(MEAN) X(PROD) X(AMAX) X(AMIN) X(MAX) X(MIN) X(ARGMAX) X(ARGMIN) X(ALL) X(ANY) X(VAR) X(NORM) X(LOGSUMEXP)
enum {
#define X(NAME) PG_K_REDUCE_##NAME,
    PG_REDUCTIONS(X)
#undef X
    PG_K_REDUCE_COUNT
};
typedef struct pg_reduction {
    int kept_n, reduced_n;
    int64_t kept_shape[PG_K_DIMS], kept_stride[PG_K_DIMS];
    int64_t reduced_shape[PG_K_DIMS], reduced_stride[PG_K_DIMS];
    const void *in;
    void *out;       /* values */
    void *out2;      /* int64 indices (MAX, MIN) or the mean (VAR) */
    double p0;
} pg_reduction;

/* Matrix products: for each of `batch` c = act(alpha * op(a) op(b) + beta * c + bias). Row-major; lda, ldb, ldc count elements
 * between rows as stored; batch strides in elements. bias (n) or NULL. aux (m, n; ld = ldc, batch stride = c_batch) or NULL takes
 * the values before the activation. With batch_dims, see matmul.c: a and b may be broadcast (batch stride 0). */
enum { PG_K_ACT_NONE, PG_K_ACT_RELU, PG_K_ACT_GELU, PG_K_ACT_GELU_TANH };
typedef struct pg_gemm {
    bool ta, tb;
    int64_t m, n, k, batch;
    const void *a, *b;
    void *c;
    int64_t lda, ldb, ldc, a_batch, b_batch, c_batch;
    double alpha, beta;
    const void *bias;
    void *aux;
    int activation;
    /* Where set, a and b addresses per batch entry (batch long, in elements from a and b) replace a_batch and b_batch. */
    const int64_t *a_offset, *b_offset;
    bool tf32;       /* float32 factors may be rounded to TF32 (10 bits) on a device that multiplies those faster */
} pg_gemm;

/* Philox4x32-10: element i of a draw uses counter offset + i/4, lane i%4 (kernels/philox.h). */
typedef struct pg_philox { uint64_t seed, offset; } pg_philox;
enum {
    PG_K_RANDOM_UNIFORM,   /* [a, b): a + (b - a) * u */
    PG_K_RANDOM_NORMAL,    /* a + b * z */
    PG_K_RANDOM_BERNOULLI, /* u < a */
    PG_K_RANDOM_INTEGER,   /* ia + high part of bits * (ib - ia) */
    PG_K_RANDOM_BITS       /* int64 in [0, 2^63): for permutations */
};

/* Indexed access over `n_index` leading positions: out[r, j, :] = in[r, index[j], :], r < outer, inner elements of item bytes. An
 * index outside [0, size), or [-size, size) where from_end says that negative ones count from the end, is PG_KERNEL_BAD_INDEX. */
typedef struct pg_rows {
    int64_t outer, size, n_index, inner;
    const int64_t *index;
    bool from_end;
} pg_rows;

/* Element-wise indexed access along one dimension, everything else strided: index over shape; for gather
 * out[...] = in[..., index[...], ...]; for scatter_add self[..., index[...], ...] += src[...]. stride[0] = index, [1] = the dense side
 * (out or src), [2] = the indexed side with the stride of the indexed dimension set to 0 and given as dim_stride. Negative indices
 * are out of range. */
typedef struct pg_gathering {
    pg_strided s;           /* operands: 0 index (int64), 1 dense side, 2 indexed side; in the given order of dimensions */
    int64_t size, dim_stride;
    int dim;                /* which dimension of s is the indexed one: scatter is serial along it per line */
} pg_gathering;

/* Advanced indexing: n index tensors broadcast to one shape. Iteration space: s.shape; operands: 0 the dense side (out or values),
 * 1 the indexed side with zero strides where indices rule, then per index tensor its int64 data: index_data[k] with index_stride[k].
 * Position = base + sum_k resolved(index_k) * dim_stride[k]; negative indices count from the end. */
typedef struct pg_advanced {
    pg_strided s;
    int n;
    const int64_t *index_data[PG_K_DIMS];
    int64_t index_stride[PG_K_DIMS][PG_K_DIMS], size[PG_K_DIMS], dim_stride[PG_K_DIMS];
} pg_advanced;

/* Rows of classification: logits (rows, classes), rows row_stride elements apart; target int64 (rows) or probabilities (rows, classes). */
typedef struct pg_classifier {
    int64_t rows, classes, row_stride;
    const void *logits;
    const int64_t *target;      /* class ids, or NULL */
    const void *probabilities;  /* (rows, classes) dense, or NULL */
    const void *weight;         /* (classes), float32 for halves, or NULL */
    int64_t ignore_index;
    double label_smoothing;
} pg_classifier;

/* Attention. q (batch, heads, q_len, size), k (.., k_len, size), v (.., k_len, v_size): element strides for batch, head, position; the
 * last dimension is dense. mask: float of the same dtype, added, with four strides (zero broadcasts), or NULL. Head h of q uses
 * head h / (heads / kv_heads) of k and v. dropout_p > 0 drops weights by philox (element index ((b*heads+h)*q_len+i)*k_len+j). */
typedef struct pg_attention {
    int64_t batch, heads, kv_heads, q_len, k_len, size, v_size;
    const void *q, *k, *v;
    void *out;                       /* strides below: dense in (batch, q_len, heads, v_size) order or as given */
    void *lse;                       /* float32 or float64 (batch, heads, q_len): saved for backward */
    int64_t q_stride[3], k_stride[3], v_stride[3], out_stride[3];
    const void *mask;
    int64_t mask_stride[4];
    bool causal;
    double scale, dropout_p;
    const pg_philox *philox;
    /* backward only */
    const void *grad_out;
    int64_t grad_out_stride[3];
    void *grad_q, *grad_k, *grad_v;  /* strides as q, k, v */
    int64_t grad_q_stride[3], grad_k_stride[3], grad_v_stride[3];
} pg_attention;

/* Optimizers: count tensors; sizes[k] elements each, dense. hyper: device memory (double), see each entry. */
typedef struct pg_parameters {
    int count;
    const int64_t *sizes;
    void *const *param;
    const void *const *grad;
    void *const *state1, *const *state2, *const *state3;   /* momentum; exp_avg, exp_avg_sq, max_exp_avg_sq */
} pg_parameters;

typedef struct pg_kernels {
    uint64_t hash;                  /* of this header: PG_KERNELS_HASH; a library built against another is refused */
    const char *name;               /* "avx2", "cuda" */

    int (*pointwise)(const pg_context *, int op, int dtype, const pg_strided *s, const double *p);
    int (*chain)(const pg_context *, const pg_chain *chain);
    int (*copy)(const pg_context *, int to, int from, const pg_strided *s);             /* operands: to, from; converts */
    int (*fill)(const pg_context *, int dtype, const pg_strided *s, pg_value value);    /* operand: to */
    int (*reduce)(const pg_context *, int op, int dtype, const pg_reduction *r);
    /* (outer, n, inner) dense; SUM alone today */
    int (*scan)(const pg_context *, int op, int dtype, int64_t outer, int64_t n, int64_t inner, const void *in, void *out);
    /* rows of n, dense. indices int64; values may be NULL; stable, NaN last ascending (first descending) */
    int (*sort)(const pg_context *, int dtype, int64_t rows, int64_t n, const void *in, void *values, int64_t *indices,
                bool descending);
    int (*topk)(const pg_context *, int dtype, int64_t rows, int64_t n, int64_t k, const void *in, void *values,
                int64_t *indices, bool largest);

    int (*arange)(const pg_context *, int dtype, int64_t n, pg_value start, pg_value step, void *out);  /* start + i * step */
    int (*linspace)(const pg_context *, int dtype, int64_t n, double start, double end, void *out);
    /* out: n dense elements; element i of the draw */
    int (*random)(const pg_context *, int kind, int dtype, int64_t n, pg_value a, pg_value b, const pg_philox *state, void *out);
    /* out = x * mask / (1 - p); mask bool out; dense, n elements */
    int (*dropout)(const pg_context *, int dtype, int64_t n, double p, const pg_philox *state, const void *x, void *out,
                   bool *mask);

    int (*index_select)(const pg_context *, int item, const pg_rows *r, const void *in, void *out);
    int (*index_add)(const pg_context *, int dtype, const pg_rows *r, const void *source, double alpha, void *self);
    int (*gather)(const pg_context *, int item, const pg_gathering *g);
    int (*scatter_add)(const pg_context *, int dtype, const pg_gathering *g);
    int (*scatter)(const pg_context *, int item, const pg_gathering *g);
    int (*index_get)(const pg_context *, int item, const pg_advanced *a);
    int (*index_put)(const pg_context *, int dtype, const pg_advanced *a, bool accumulate);
    /* count of nonzero elements of dense bools; positions (row-major linear) into out when out is not NULL */
    int (*nonzero)(const pg_context *, int64_t n, const bool *in, int64_t *count, int64_t *out);
    /* batch of (rows, cols), dense; keeps j - i >= k (upper) or <= k */
    int (*triangle)(const pg_context *, int item, int64_t batch, int64_t rows, int64_t cols, int64_t k, bool upper,
                    const void *in, void *out);

    int (*gemm)(const pg_context *, int dtype, const pg_gemm *g);

    /* rows of n, dense */
    int (*softmax)(const pg_context *, int dtype, int64_t rows, int64_t n, const void *in, void *out, bool log);
    int (*softmax_backward)(const pg_context *, int dtype, int64_t rows, int64_t n, const void *grad, const void *result,
                            void *out, bool log);
    /* y = (x - mean) * rstd * weight + bias; weight, bias, mean, rstd may be NULL; mean and rstd (rows), float32 for halves. With
     * residual, x + residual, which goes to sum too, stands for x; both or neither. */
    int (*layer_norm)(const pg_context *, int dtype, int64_t rows, int64_t n, const void *x, const void *residual,
                      const void *weight, const void *bias, double eps, void *y, void *sum, void *mean, void *rstd);
    /* any of dx, dweight, dbias may be NULL; grad_sum, or NULL, is added to dx */
    int (*layer_norm_backward)(const pg_context *, int dtype, int64_t rows, int64_t n, const void *grad, const void *x,
                               const void *weight, const void *mean, const void *rstd, const void *grad_sum, void *dx,
                               void *dweight, void *dbias);
    /* loss (rows) unreduced, already weighted (0 where ignored); lse (rows); row_weight (rows): what the mean divides by, summed.
     * These three, and grad_rows below, are float32 for halves. */
    int (*cross_entropy)(const pg_context *, int dtype, const pg_classifier *c, void *loss, void *lse, void *row_weight);
    /* dlogits (rows, classes) = grad_row[r] * d loss[r] / d logits, rows dlogits_stride elements apart; what lies between rows is
     * neither read nor written. It may be c->logits with c->row_stride. grad_rows has stride 0 or 1 */
    int (*cross_entropy_backward)(const pg_context *, int dtype, const pg_classifier *c, const void *lse, const void *grad_rows,
                                  int64_t grad_stride, void *dlogits, int64_t dlogits_stride);
    int (*attention)(const pg_context *, int dtype, const pg_attention *a);
    int (*attention_backward)(const pg_context *, int dtype, const pg_attention *a);

    /* hyper: [0] lr, [1] momentum, [2] dampening, [3] weight_decay, [4] nesterov, [5] maximize, [6] first step */
    int (*sgd)(const pg_context *, int dtype, const pg_parameters *p, const double *hyper);
    /* hyper: [0] lr, [1] beta1, [2] beta2, [3] eps, [4] weight_decay, [5] decoupled (AdamW), [6] step (1-based), [7] amsgrad,
     * [8] maximize */
    int (*adam)(const pg_context *, int dtype, const pg_parameters *p, const double *hyper);
    /* out[0] = p-norm over all (double), grads read only */
    int (*total_norm)(const pg_context *, int dtype, const pg_parameters *p, double order, double *out);
    /* grad *= min(1, max_norm / (norm + 1e-6)); p->param are the gradients */
    int (*clip_scale)(const pg_context *, int dtype, const pg_parameters *p, double max_norm, const double *norm);
    /* p->param *= *inverse; *found = 1 where one of them was not finite before, else it is left alone */
    int (*unscale)(const pg_context *, int dtype, const pg_parameters *p, const float *inverse, float *found);
} pg_kernels;

/* The kernels above, in that order. */
#define PG_ENTRIES(X) \
    X(pointwise) X(chain) X(copy) X(fill) X(reduce) X(scan) X(sort) X(topk) X(arange) X(linspace) X(random) \
    X(dropout) X(index_select) X(index_add) X(gather) X(scatter_add) X(scatter) X(index_get) X(index_put) X(nonzero) X(triangle) \
    X(gemm) X(softmax) X(softmax_backward) X(layer_norm) X(layer_norm_backward) X(cross_entropy) \
    X(cross_entropy_backward) X(attention) X(attention_backward) X(sgd) X(adam) X(total_norm) X(clip_scale) X(unscale)

/* Raised whenever this file changes what a kernel is given. */
#define PG_KERNELS_HASH UINT64_C(0x50e7000000000013)

#endif
