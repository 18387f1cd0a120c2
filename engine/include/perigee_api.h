/* perigee_api.h: everything that the engine offers, as pure declarations.
 *
 * This file holds no preprocessor line: LuaJIT's ffi.cdef reads it as it stands. C users include perigee.h, which adds the
 * includes, visibility and extern "C" around it.
 *
 * It has two parts. The first is the machinery: handles, errors, memory, random numbers, the tape. The second is the op table:
 * each op's comment starts with its signature, which is the truth that the prototype below it, the Lua wrapper, the help, the
 * reference and the coverage specs follow (grammar: engine/README.md).
 *
 * Every function that returns int gives a status unless its comment says otherwise: PG_OK, PG_COLLECT (done, and the caller
 * should collect garbage: the handles it dropped hold much memory) or a negative code with a message in pg_last_error().
 */

enum {
    PG_OK = 0,
    PG_COLLECT = 1,
    PG_ERROR = -1,            /* wrong value, shape, dtype, device or state */
    PG_ERROR_INDEX = -2,      /* an index out of range */
    PG_ERROR_MEMORY = -3,     /* an allocation that cannot be met: collect and try once more */
    PG_ERROR_IO = -4,         /* a file that cannot be read, written or believed */
    PG_ERROR_INTERRUPT = -5   /* stopped by pg_interrupt */
};

/* The numbers of the dtypes are part of the interface, in order of promotion within a kind. */
enum {
    PG_BOOL = 0, PG_UINT8 = 1, PG_INT8 = 2, PG_INT16 = 3, PG_INT32 = 4, PG_INT64 = 5,
    PG_FLOAT16 = 6, PG_BFLOAT16 = 7, PG_FLOAT32 = 8, PG_FLOAT64 = 9, PG_DTYPES = 10
};

enum { PG_DIMS_MAX = 16 };

typedef struct pg_impl pg_impl;

/* A handle owns one reference to a tensor. It is made empty (PG_HANDLE_MAGIC, impl NULL) before the call that fills it, so an
 * interruption between the two leaks nothing. Handles are passed to C, never what is inside them. */
typedef struct pg_tensor { uint32_t magic, reserved; pg_impl *impl; } pg_tensor;
enum { PG_HANDLE_MAGIC = 0x50e716ee };

/* Results whose number is known only after the call (split, unbind, grad): handles owned by the list. */
typedef struct pg_tensor_list { uint32_t magic; int32_t n; pg_tensor *items; } pg_tensor_list;
enum { PG_LIST_MAGIC = 0x50e7115f };

enum { PG_NUMBER_BOOL = 0, PG_NUMBER_INT = 1, PG_NUMBER_FLOAT = 2 };
/* A Lua number as an operand: `i` holds bools and ints, `d` holds floats. */
typedef struct pg_number { int32_t kind; int64_t i; double d; } pg_number;

/* ---- errors, version, interruption ---- */

/* The message of this thread's last failed call, UTF-8, valid until the next failed call. */
const char *pg_last_error(void);
const char *pg_version(void);
/* A nonzero `on` makes long calls return PG_ERROR_INTERRUPT soon; zero arms them again. Safe in a signal handler. */
void pg_interrupt(int on);

/* ---- handles ---- */

/* Drops the handle's reference and empties it. NULL and empty handles are fine. This is the finalizer of Lua's handles. */
void pg_tensor_release(pg_tensor *t);
void pg_tensor_list_release(pg_tensor_list *list);
/* Moves item k (0-based) of the list into the empty handle out. */
int pg_tensor_list_take(pg_tensor *out, pg_tensor_list *list, int k);
/* out becomes a second handle of the same tensor (same id, same history). */
int pg_tensor_retain(pg_tensor *out, const pg_tensor *t);
/* t:free(): drops this handle only; a later use of it is an error. */
int pg_tensor_free(pg_tensor *t);

/* ---- what a tensor is; each needs a live handle and returns -1 (NULL, 0 for pg_tensor_id) where it is not one ---- */

double pg_tensor_id(const pg_tensor *t);                      /* unique in the process, never reused; exact in a double */
int pg_tensor_dtype(const pg_tensor *t);
int pg_tensor_dim(const pg_tensor *t);
double pg_tensor_numel(const pg_tensor *t);
/* Fill up to PG_DIMS_MAX sizes or strides (in elements); return the number of dimensions. */
int pg_tensor_sizes(const pg_tensor *t, int64_t *sizes);
int pg_tensor_strides(const pg_tensor *t, int64_t *strides);
double pg_tensor_storage_offset(const pg_tensor *t);          /* elements */
const char *pg_tensor_device(const pg_tensor *t);             /* "cpu", "cuda:0" */
int pg_tensor_is_contiguous(const pg_tensor *t);
int pg_tensor_requires_grad(const pg_tensor *t);
int pg_tensor_is_leaf(const pg_tensor *t);
int pg_tensor_is_view(const pg_tensor *t);
int pg_tensor_retains_grad(const pg_tensor *t);
double pg_tensor_version(const pg_tensor *t);                 /* PyTorch's _version */
const char *pg_tensor_grad_fn(const pg_tensor *t);            /* "AddBackward" or NULL for a leaf */
/* Two tensors share one storage. */
int pg_tensor_same_storage(const pg_tensor *a, const pg_tensor *b);
/* The address of the first element (host memory only, else NULL). From then on the storage keeps its address for life. */
void *pg_tensor_data_ptr(const pg_tensor *t);

/* ---- elements in and out ---- */

/* A new contiguous tensor from n values in row-major order: kind PG_NUMBER_* says which array is read. n must equal the product
 * of sizes. Values that dtype cannot hold are errors for integers (2^40 into int8), inf for floats. */
int pg_from_values(pg_tensor *out, const double *d, const int64_t *i, int64_t n, const int64_t *sizes, int sizes_n, int dtype,
                   const char *device);
/* Copies n elements of dtype from memory / to memory; t may have any strides, memory is row-major. */
int pg_from_memory(pg_tensor *out, const void *memory, int64_t bytes, const int64_t *sizes, int sizes_n, int dtype,
                   const char *device);
int pg_to_memory(const pg_tensor *t, void *memory, int64_t bytes);
/* The only element. kind PG_NUMBER_*; NaNs come canonical. */
int pg_item(pg_number *out, const pg_tensor *t);
/* Elements [start, start + n) in row-major order as doubles and as int64 (exact for integers). Either may be NULL. */
int pg_to_values(double *d, int64_t *i, const pg_tensor *t, int64_t start, int64_t n);

/* ---- dtypes and devices ---- */

/* Names as PyTorch's; NULL for a number that is no dtype. pg_dtype_parse gives -1 for an unknown name. */
const char *pg_dtype_name(int dtype);
int pg_dtype_parse(const char *name);
int pg_dtype_size(int dtype);                                 /* bytes */
int pg_promote_types(int a, int b);                           /* PyTorch's promote_types */
int pg_set_default_dtype(int dtype);
int pg_get_default_dtype(void);
int pg_device_count(const char *type);                        /* "cpu": 1 */
/* Where this thread's tensors are made that are not told where; NULL: the cpu. */
int pg_set_default_device(const char *name);
/* The full name of the device that is meant: "cuda" is "cuda:0"; NULL for one that is not there. */
const char *pg_device_name(const char *name);
const char *pg_get_default_device(void);

/* ---- memory ---- */

typedef struct pg_memory_stats {
    double allocated, reserved, max_allocated, max_reserved;  /* bytes */
    double allocations, frees, cache_hits, system_allocations;
    double allocated_ever, retries, failures;                 /* bytes; attempts after the cache was emptied; errors */
    double live_tensors, live_storages, live_nodes;           /* whole process; leaks show here */
} pg_memory_stats;
int pg_memory_statistics(pg_memory_stats *stats, const char *device);
int pg_reset_peak_memory_stats(const char *device);
int pg_empty_cache(const char *device);                       /* NULL: every device's */
/* collects: where an op answers PG_ERROR_MEMORY, this thread's caller collects garbage, says pg_memory_collected and calls once more.
 * A device's cache is then given up with the second failure only. */
void pg_memory_collects(bool collects);
void pg_memory_collected(void);
/* The debt counter: bytes handed out since the last pg_debt_clear on this thread's Lua state. A call past the limit answers
 * PG_COLLECT. The binding calls pg_debt_clear(seconds that collecting took, seconds since the last one) after collecting. */
void pg_debt_clear(double collect_seconds, double since_seconds);
/* Scopes free, at their end, what was made inside and is not kept. A token names the scope; scopes end in reverse order. */
int pg_scope_enter(int *token);
int pg_scope_keep(const pg_tensor *t);                        /* t outlives the innermost scope (moves to the one around it) */
int pg_scope_exempt(const pg_tensor *t);                      /* t outlives every scope: it is stored in a module, an optimizer */
int pg_scope_leave(int token);
/* Tensors made between the two are outside every scope. */
int pg_scope_suspend(int *token);
int pg_scope_resume(int token);

/* ---- random numbers ---- */

enum { PG_RNG_STATE_BYTES = 16 };
/* Each thread has streams of its own, one a device; one that it does not seed starts by chance. */
int pg_manual_seed(int64_t seed);                             /* this thread's streams */
int pg_manual_seed_of(int64_t seed, const char *device);      /* the device's alone */
double pg_initial_seed(const char *device);
int pg_get_rng_state(pg_tensor *out, const char *device);     /* uint8 (PG_RNG_STATE_BYTES) */
int pg_set_rng_state(const pg_tensor *state, const char *device);

/* ---- threads ---- */

int pg_set_num_threads(int n);
int pg_get_num_threads(void);
/* 1 where OpenBLAS takes the large matrix products, with its version and kernels in *text; else 0, and why. Opens it. */
int pg_openblas_config(const char **text);
/* How exact products of float32 are on devices that have a faster way (TF32: factors rounded to 10 bits): 0 "highest" (the default:
 * float32), 1 "high", 2 "medium" (both TF32 on CUDA; the CPU's are always exact). Of the process. */
int pg_set_float32_matmul_precision(int level);
int pg_get_float32_matmul_precision(void);
/* Whether backward runs make one kernel of a chain of pointwise ops (the default), of the process; and since its start how many
 * such kernels ran, and how many ops they stood for. The results have the same bits either way. */
void pg_chains_set(bool on);
bool pg_chains_enabled(void);
void pg_chains_count(int64_t *kernels, int64_t *ops);
const char *pg_cpu_isa(void);                                 /* the kernels in use: "baseline", "avx2", "avx512" */

/* ---- CUDA devices: streams, events, pinned memory, graphs ---- */

/* Where a device is named, NULL means the current CUDA device. */

/* Why there is no CUDA device, or NULL where there is one. The first call of this process that asks for CUDA looks for it. */
const char *pg_cuda_why_not(void);
int pg_cuda_is_emulated(void);                                /* the kernels run on the CPU (PERIGEE_CUDA=emulated) */
typedef struct pg_cuda_device_info {
    char name[256];
    int32_t major, minor, multi_processor_count, warp_size, max_threads_per_block, max_threads_per_multi_processor;
    double total_memory, shared_memory_per_block, shared_memory_per_multiprocessor, l2_cache_size;   /* bytes */
} pg_cuda_device_info;
int pg_cuda_device_properties(pg_cuda_device_info *out, const char *device);
int pg_cuda_memory_info(double *free_bytes, double *total, const char *device);
int pg_cuda_set_device(const char *device);                   /* this thread's current one: what "cuda" means */
int pg_cuda_current_device(void);
/* Waits for all that was launched on the device. What kernels found wrong (an index out of range) is this call's error, or that of
 * whichever call waits next. */
int pg_synchronize(const char *device);

/* Streams live as long as the process: a new one is one of 32 that are handed out in turn. */
typedef struct pg_stream pg_stream;
int pg_stream_new(pg_stream **out, const char *device, bool urgent);
int pg_stream_default(pg_stream **out, const char *device);
int pg_stream_current(pg_stream **out, const char *device);
int pg_stream_set(pg_stream *stream);                         /* becomes this thread's current one on its device */
int pg_stream_number(const pg_stream *stream);                /* 0: the default; -1 for NULL */
const char *pg_stream_device(const pg_stream *stream);
int pg_stream_synchronize(pg_stream *stream);
int pg_stream_query(bool *done, pg_stream *stream);
/* t's memory is not given to others before what is now on the stream has run. */
int pg_record_stream(const pg_tensor *t, pg_stream *stream);

typedef struct pg_event pg_event;
int pg_event_new(pg_event **out, const char *device, bool timed);
void pg_event_free(pg_event *event);
int pg_event_record(pg_event *event, pg_stream *stream);
int pg_event_wait(pg_event *event, pg_stream *stream);        /* what comes on the stream waits; the caller does not */
int pg_event_query(bool *done, pg_event *event);
int pg_event_synchronize(pg_event *event);
int pg_event_elapsed(double *milliseconds, pg_event *from, pg_event *to);

int pg_pin_memory(pg_tensor *out, const pg_tensor *t);        /* a copy in pinned memory, or t itself where it is pinned */
int pg_tensor_is_pinned(const pg_tensor *t);                  /* -1 where t is no live tensor */

/* Between begin and end what this thread launches on the device is recorded, not run; values cannot be read meanwhile. A replay
 * runs it on the current stream, with the same memory and fresh random numbers. end with keep false drops what was recorded;
 * either way the graph is freed by the caller. */
typedef struct pg_graph pg_graph;
int pg_graph_begin(pg_graph **out, const char *device);
int pg_graph_end(pg_graph *graph, bool keep);
int pg_graph_replay(pg_graph *graph);
void pg_graph_free(pg_graph *graph);
bool pg_graph_capturing(void);                                /* this thread captures */
/* While on, memory that this thread makes during a capture is none that captured kernels may have used and given back before: it
 * keeps what is written to it between replays. Answers what was set before. */
bool pg_graph_lasting(bool on);

/* ---- autograd ---- */

/* Regions: entering gives the mode to go back to, leaving checks that regions nest. */
int pg_grad_mode_enter(int *token, int enabled);
int pg_grad_mode_leave(int token);
int pg_is_grad_enabled(void);
int pg_set_grad_enabled(int enabled);
/* Mixed precision: between enter and leave the ops of this thread whose rows say `autocast` convert their floating arguments on
 * device_type ("cpu", "cuda"). dtype: PG_FLOAT16, PG_BFLOAT16, or -1 for the default (cuda float16, cpu bfloat16). cache_enabled:
 * what leaves that require gradients become is kept until the outermost region ends. */
int pg_autocast_enter(int *token, const char *device_type, int dtype, int enabled, int cache_enabled);
int pg_autocast_leave(int token);
int pg_is_autocast_enabled(const char *device_type);          /* 1, 0 */
int pg_get_autocast_dtype(const char *device_type);
int pg_is_autocast_cache_enabled(void);

int pg_requires_grad_(const pg_tensor *t, int requires_grad);
int pg_retain_grad(const pg_tensor *t);
int pg_get_grad(pg_tensor *out, const pg_tensor *t);          /* out stays empty where there is none */
int pg_set_grad(const pg_tensor *t, const pg_tensor *grad);   /* grad NULL clears */
int pg_detach(pg_tensor *out, const pg_tensor *t);
int pg_detach_(const pg_tensor *t);

/* A backward run is an object. The caller loops on pg_backward_next until it answers PG_STEP_DONE, doing what each step asks:
 * PG_STEP_HOOK: hooks of the tensor with integer id `hook`: read gradient 0 with pg_backward_grad, may replace it with
 *   pg_backward_give(run, 0, g).
 * PG_STEP_CUSTOM: the custom function with integer id `custom`: read its output gradients (an empty handle is None), give its
 *   input gradients. */
typedef struct pg_backward_run pg_backward_run;
enum { PG_STEP_DONE = 0, PG_STEP_HOOK = 1, PG_STEP_CUSTOM = 2 };
typedef struct pg_backward_step { int32_t kind, n_outputs, n_inputs, reserved; double hook, custom; } pg_backward_step;
/* grads may be NULL (ones for scalars) or hold NULL entries; inputs NULL: accumulate into leaves, else the gradients of inputs
 * alone are captured (pg.autograd.grad). */
int pg_backward_begin(pg_backward_run **run, const pg_tensor *const *roots, int roots_n, const pg_tensor *const *grads,
                      int grads_n, const pg_tensor *const *inputs, int inputs_n, bool retain_graph, bool create_graph,
                      bool allow_unused);
int pg_backward_next(pg_backward_run *run, pg_backward_step *step);
int pg_backward_grad(pg_tensor *out, pg_backward_run *run, int k);
int pg_backward_give(pg_backward_run *run, int k, const pg_tensor *grad);   /* grad NULL: None */
int pg_backward_captured(pg_tensor *out, pg_backward_run *run, int k);      /* gradient of inputs[k], empty where unused */
/* Ends the run, finished or abandoned. NULL is fine. */
void pg_backward_end(pg_backward_run *run);

/* The tensor's hooks live in Lua under an integer id, which the tape reports when they are to run (PG_STEP_HOOK). Gives the id,
 * made at the first call. */
int pg_hook_id(double *id, const pg_tensor *t);
/* A custom function's node: `id` is Lua's key of the ctx, negative (ids of hooks are positive). Outputs become non-leaf with this
 * node as grad_fn; an output that is one of the inputs or a view is replaced by an alias. saved tensors go through C
 * (version-checked); a saved output is kept as "output k of this node". */
int pg_custom_record(const char *name, double id, const pg_tensor *const *inputs, int inputs_n, pg_tensor *const *outputs,
                     int outputs_n, const pg_tensor *const *saved, int saved_n, const int64_t *non_differentiable,
                     int non_differentiable_n);
int pg_custom_saved(pg_tensor *out, pg_backward_run *run, int k);
int pg_mark_dirty(const pg_tensor *t);                        /* bumps the version: an in-place change made outside the ops */
/* Ids of hooks and custom functions whose node or tensor has died; returns how many were written (at most n). */
int pg_dead_ids(double *ids, int n);

/* ---- ops by name ---- */

enum {
    PG_BOX_NONE = 0, PG_BOX_TENSOR = 1, PG_BOX_TENSORS = 2, PG_BOX_LIST = 3, PG_BOX_NUMBER = 4, PG_BOX_INT = 5, PG_BOX_INTS = 6,
    PG_BOX_FLOAT = 7, PG_BOX_BOOL = 8, PG_BOX_STRING = 9
};
/* One argument or result: kind says which member counts, n is the length of an array (PG_BOX_TENSORS, PG_BOX_INTS). Words and
 * devices are strings, a dtype is an int. A result's box is a tensor (the handle to fill), a list, or receives a value. */
typedef struct pg_boxed {
    int32_t kind, n;
    union {
        pg_tensor *tensor;
        const pg_tensor *const *tensors;
        pg_tensor_list *list;
        pg_number number;
        int64_t i;
        const int64_t *ints;
        double f;
        bool b;
        const char *string;
    } as;
} pg_boxed;
/* Calls the op whose row declares `symbol` ("pg_add"). args: the results in order, then the parameters as the signature has
 * them; PG_BOX_NONE, or an argument left out at the end, takes its default. */
int pg_call(const char *symbol, pg_boxed *args, int n);
int pg_op_count(void);
/* The row's signature and symbol; NULL out of range. */
const char *pg_op_signature(int row);
const char *pg_op_symbol(int row);

/* ---- files ---- */

/* safetensors. An open file lists its tensors by position; names and metadata are UTF-8 owned by the file. */
typedef struct pg_safetensors pg_safetensors;
int pg_safetensors_open(pg_safetensors **file, const char *path, bool map);
int pg_safetensors_count(const pg_safetensors *file);
const char *pg_safetensors_name(const pg_safetensors *file, int k);
int pg_safetensors_tensor(pg_tensor *out, pg_safetensors *file, int k, const char *device);
int pg_safetensors_metadata_count(const pg_safetensors *file);
const char *pg_safetensors_metadata_key(const pg_safetensors *file, int k);
const char *pg_safetensors_metadata_value(const pg_safetensors *file, int k);
void pg_safetensors_close(pg_safetensors *file);
int pg_safetensors_save(const char *path, const char *const *names, const pg_tensor *const *tensors, int tensors_n,
                        const char *const *keys, const char *const *values, int metadata_n);

/* ============================================ the op table ============================================ */

/* ---- pointwise ---- */

/* add(input: Tensor, other: Tensor|number, *, alpha: number = 1) -> Tensor
 *   [method, operator +, out, grad2, cpu scalars]
 * input + alpha * other, broadcast. PyTorch's add. */
int pg_add(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number,
           const pg_number *alpha);
/* add_(input: Tensor, other: Tensor|number, *, alpha: number = 1) -> self
 *   [method, inplace of pg_add, cpu scalars] */
int pg_add_(pg_tensor *input, const pg_tensor *other, const pg_number *other_number, const pg_number *alpha);
/* sub(input: Tensor, other: Tensor|number, *, alpha: number = 1) -> Tensor
 *   [method, operator -, out, grad2, cpu scalars]
 * input - alpha * other, broadcast. Not for bools. PyTorch's sub. */
int pg_sub(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number,
           const pg_number *alpha);
/* sub_(input: Tensor, other: Tensor|number, *, alpha: number = 1) -> self
 *   [method, inplace of pg_sub, cpu scalars] */
int pg_sub_(pg_tensor *input, const pg_tensor *other, const pg_number *other_number, const pg_number *alpha);
/* subtract(input: Tensor, other: Tensor|number, *, alpha: number = 1) -> Tensor   [method, same as pg_sub]
 * PyTorch's subtract: sub. */
/* rsub(input: Tensor, other: Tensor|number, *, alpha: number = 1) -> Tensor
 *   [method, grad2, cpu scalars]
 * other - alpha * input, broadcast. PyTorch's rsub. */
int pg_rsub(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number,
            const pg_number *alpha);
/* mul(input: Tensor, other: Tensor|number) -> Tensor
 *   [method, operator *, out, grad2, cpu scalars]
 * input * other, broadcast. PyTorch's mul. */
int pg_mul(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* mul_(input: Tensor, other: Tensor|number) -> self   [method, inplace of pg_mul, cpu scalars] */
int pg_mul_(pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* multiply(input: Tensor, other: Tensor|number) -> Tensor   [method, same as pg_mul]
 * PyTorch's multiply: mul. */
/* div(input: Tensor, other: Tensor|number, *, rounding_mode: 'trunc'|'floor'? = nil) -> Tensor
 *   [method, operator /, out, grad2, cpu scalars]
 * input / other, broadcast. Integers are divided as floats unless a rounding mode is given: towards zero
 * (trunc), or down (floor). PyTorch's div. */
int pg_div(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number,
           int rounding_mode);
/* div_(input: Tensor, other: Tensor|number, *, rounding_mode: 'trunc'|'floor'? = nil) -> self
 *   [method, inplace of pg_div, cpu scalars] */
int pg_div_(pg_tensor *input, const pg_tensor *other, const pg_number *other_number, int rounding_mode);
/* divide(input: Tensor, other: Tensor|number, *, rounding_mode: 'trunc'|'floor'? = nil) -> Tensor
 *   [method, same as pg_div]
 * PyTorch's divide: div. */
/* floor_divide(input: Tensor, other: Tensor|number) -> Tensor
 *   [method, out, grad2, cpu scalars]
 * input / other rounded down, as Python's //. An integer divided by zero is an error. PyTorch's
 * floor_divide. */
int pg_floor_divide(pg_tensor *out, const pg_tensor *input, const pg_tensor *other,
                    const pg_number *other_number);
/* floor_divide_(input: Tensor, other: Tensor|number) -> self
 *   [method, inplace of pg_floor_divide, cpu scalars] */
int pg_floor_divide_(pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* remainder(input: Tensor, other: Tensor|number) -> Tensor
 *   [method, operator %, out, grad2, cpu scalars]
 * input - other * floor(input / other): the sign of other, as Python's and Lua's %. PyTorch's remainder. */
int pg_remainder(pg_tensor *out, const pg_tensor *input, const pg_tensor *other,
                 const pg_number *other_number);
/* remainder_(input: Tensor, other: Tensor|number) -> self   [method, inplace of pg_remainder, cpu scalars] */
int pg_remainder_(pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* fmod(input: Tensor, other: Tensor|number) -> Tensor   [method, out, grad2, cpu scalars]
 * input - other * trunc(input / other): the sign of input, as C's fmod. PyTorch's fmod. */
int pg_fmod(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* fmod_(input: Tensor, other: Tensor|number) -> self   [method, inplace of pg_fmod, cpu scalars] */
int pg_fmod_(pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* pow(input: Tensor, exponent: Tensor|number) -> Tensor
 *   [method, operator ^, out, grad2, cpu scalars, autocast f32 cuda]
 * input to the power of exponent, broadcast. Integers to a negative number are an error. PyTorch's pow. */
int pg_pow(pg_tensor *out, const pg_tensor *input, const pg_tensor *exponent,
           const pg_number *exponent_number);
/* pow_(input: Tensor, exponent: Tensor|number) -> self   [method, inplace of pg_pow, cpu scalars] */
int pg_pow_(pg_tensor *input, const pg_tensor *exponent, const pg_number *exponent_number);
/* pow(input: number, exponent: Tensor) -> Tensor   [grad2, autocast f32 cuda]
 * A number to the power of exponent. PyTorch's pow. */
int pg_pow_base(pg_tensor *out, const pg_number *input, const pg_tensor *exponent);
/* maximum(input: Tensor, other: Tensor) -> Tensor   [method, out, grad2, cpu scalars]
 * The larger of two elements, broadcast; NaN if one is. Ties share the gradient. PyTorch's maximum. */
int pg_maximum(pg_tensor *out, const pg_tensor *input, const pg_tensor *other);
/* maximum_(input: Tensor, other: Tensor) -> self   [method, inplace of pg_maximum, cpu scalars] */
int pg_maximum_(pg_tensor *input, const pg_tensor *other);
/* minimum(input: Tensor, other: Tensor) -> Tensor   [method, out, grad2, cpu scalars]
 * The smaller of two elements, broadcast; NaN if one is. Ties share the gradient. PyTorch's minimum. */
int pg_minimum(pg_tensor *out, const pg_tensor *input, const pg_tensor *other);
/* minimum_(input: Tensor, other: Tensor) -> self   [method, inplace of pg_minimum, cpu scalars] */
int pg_minimum_(pg_tensor *input, const pg_tensor *other);
/* atan2(input: Tensor, other: Tensor) -> Tensor   [method, out, grad2, cpu scalars, autocast promote cuda]
 * The angle of the point (other, input), in (-pi, pi]. PyTorch's atan2. */
int pg_atan2(pg_tensor *out, const pg_tensor *input, const pg_tensor *other);
/* atan2_(input: Tensor, other: Tensor) -> self   [method, inplace of pg_atan2, cpu scalars] */
int pg_atan2_(pg_tensor *input, const pg_tensor *other);
/* lerp(input: Tensor, end: Tensor, weight: Tensor|number) -> Tensor
 *   [method, out, grad2, cpu scalars]
 * input + weight * (end - input), broadcast. Floating. PyTorch's lerp. */
int pg_lerp(pg_tensor *out, const pg_tensor *input, const pg_tensor *end, const pg_tensor *weight,
            const pg_number *weight_number);
/* lerp_(input: Tensor, end: Tensor, weight: Tensor|number) -> self
 *   [method, inplace of pg_lerp, cpu scalars] */
int pg_lerp_(pg_tensor *input, const pg_tensor *end, const pg_tensor *weight,
             const pg_number *weight_number);
/* addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: number = 1) -> Tensor
 *   [method, out, grad2, cpu scalars, autocast promote cuda]
 * input + value * tensor1 * tensor2, broadcast. PyTorch's addcmul. */
int pg_addcmul(pg_tensor *out, const pg_tensor *input, const pg_tensor *tensor1, const pg_tensor *tensor2,
               const pg_number *value);
/* addcmul_(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: number = 1) -> self
 *   [method, inplace of pg_addcmul, cpu scalars] */
int pg_addcmul_(pg_tensor *input, const pg_tensor *tensor1, const pg_tensor *tensor2,
                const pg_number *value);
/* addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: number = 1) -> Tensor
 *   [method, out, grad2, cpu scalars, autocast promote cuda]
 * input + value * tensor1 / tensor2, broadcast. PyTorch's addcdiv. */
int pg_addcdiv(pg_tensor *out, const pg_tensor *input, const pg_tensor *tensor1, const pg_tensor *tensor2,
               const pg_number *value);
/* addcdiv_(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: number = 1) -> self
 *   [method, inplace of pg_addcdiv, cpu scalars] */
int pg_addcdiv_(pg_tensor *input, const pg_tensor *tensor1, const pg_tensor *tensor2,
                const pg_number *value);
/* eq(input: Tensor, other: Tensor|number) -> Tensor   [method, out, nograd, cpu scalars]
 * input == other, broadcast, as bools. PyTorch's eq. */
int pg_eq(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* ne(input: Tensor, other: Tensor|number) -> Tensor   [method, out, nograd, cpu scalars]
 * input ~= other, broadcast, as bools. PyTorch's ne. */
int pg_ne(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* lt(input: Tensor, other: Tensor|number) -> Tensor   [method, out, nograd, cpu scalars]
 * input < other, broadcast, as bools. PyTorch's lt. */
int pg_lt(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* le(input: Tensor, other: Tensor|number) -> Tensor   [method, out, nograd, cpu scalars]
 * input <= other, broadcast, as bools. PyTorch's le. */
int pg_le(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* gt(input: Tensor, other: Tensor|number) -> Tensor   [method, out, nograd, cpu scalars]
 * input > other, broadcast, as bools. PyTorch's gt. */
int pg_gt(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* ge(input: Tensor, other: Tensor|number) -> Tensor   [method, out, nograd, cpu scalars]
 * input >= other, broadcast, as bools. PyTorch's ge. */
int pg_ge(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* logical_and(input: Tensor, other: Tensor) -> Tensor   [method, out, nograd, cpu scalars]
 * Whether both are not zero, broadcast. PyTorch's logical_and. */
int pg_logical_and(pg_tensor *out, const pg_tensor *input, const pg_tensor *other);
/* logical_or(input: Tensor, other: Tensor) -> Tensor   [method, out, nograd, cpu scalars]
 * Whether one is not zero, broadcast. PyTorch's logical_or. */
int pg_logical_or(pg_tensor *out, const pg_tensor *input, const pg_tensor *other);
/* logical_xor(input: Tensor, other: Tensor) -> Tensor   [method, out, nograd, cpu scalars]
 * Whether exactly one is not zero, broadcast. PyTorch's logical_xor. */
int pg_logical_xor(pg_tensor *out, const pg_tensor *input, const pg_tensor *other);
/* logical_not(input: Tensor) -> Tensor   [method, out, nograd]
 * Whether it is zero. PyTorch's logical_not. */
int pg_logical_not(pg_tensor *out, const pg_tensor *input);
/* bitwise_and(input: Tensor, other: Tensor|number) -> Tensor   [method, out, nograd, cpu scalars]
 * Bits set in both; integers and bools. PyTorch's bitwise_and. */
int pg_bitwise_and(pg_tensor *out, const pg_tensor *input, const pg_tensor *other,
                   const pg_number *other_number);
/* bitwise_and_(input: Tensor, other: Tensor|number) -> self
 *   [method, inplace of pg_bitwise_and, cpu scalars] */
int pg_bitwise_and_(pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* bitwise_or(input: Tensor, other: Tensor|number) -> Tensor   [method, out, nograd, cpu scalars]
 * Bits set in one; integers and bools. PyTorch's bitwise_or. */
int pg_bitwise_or(pg_tensor *out, const pg_tensor *input, const pg_tensor *other,
                  const pg_number *other_number);
/* bitwise_or_(input: Tensor, other: Tensor|number) -> self
 *   [method, inplace of pg_bitwise_or, cpu scalars] */
int pg_bitwise_or_(pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* bitwise_xor(input: Tensor, other: Tensor|number) -> Tensor   [method, out, nograd, cpu scalars]
 * Bits set in exactly one; integers and bools. PyTorch's bitwise_xor. */
int pg_bitwise_xor(pg_tensor *out, const pg_tensor *input, const pg_tensor *other,
                   const pg_number *other_number);
/* bitwise_xor_(input: Tensor, other: Tensor|number) -> self
 *   [method, inplace of pg_bitwise_xor, cpu scalars] */
int pg_bitwise_xor_(pg_tensor *input, const pg_tensor *other, const pg_number *other_number);
/* bitwise_not(input: Tensor) -> Tensor   [method, out, nograd]
 * Every bit flipped; integers and bools. PyTorch's bitwise_not. */
int pg_bitwise_not(pg_tensor *out, const pg_tensor *input);
/* bitwise_not_(input: Tensor) -> self   [method, inplace of pg_bitwise_not] */
int pg_bitwise_not_(pg_tensor *input);
/* where(condition: Tensor, input: Tensor|number, other: Tensor|number) -> Tensor
 *   [grad2, cpu scalars]
 * input where condition (bool) is true, else other; all broadcast. PyTorch's where. */
int pg_where(pg_tensor *out, const pg_tensor *condition, const pg_tensor *input,
             const pg_number *input_number, const pg_tensor *other, const pg_number *other_number);
/* _where(input: Tensor, condition: Tensor, other: Tensor|number) -> Tensor
 *   [internal, method where, grad2, cpu scalars]
 * x:where(condition, other): x where condition (bool) is true, else other. PyTorch's Tensor.where. */
int pg__where(pg_tensor *out, const pg_tensor *input, const pg_tensor *condition, const pg_tensor *other,
              const pg_number *other_number);
/* clamp(input: Tensor, min: Tensor|number? = nil, max: Tensor|number? = nil) -> Tensor
 *   [method, out, grad2, cpu scalars]
 * input limited to [min, max]; either may be nil. NaN stays. Where min > max the result is max. PyTorch's
 * clamp. */
int pg_clamp(pg_tensor *out, const pg_tensor *input, const pg_tensor *min, const pg_number *min_number,
             const pg_tensor *max, const pg_number *max_number);
/* clamp_(input: Tensor, min: Tensor|number? = nil, max: Tensor|number? = nil) -> self
 *   [method, inplace of pg_clamp, cpu scalars] */
int pg_clamp_(pg_tensor *input, const pg_tensor *min, const pg_number *min_number, const pg_tensor *max,
              const pg_number *max_number);
/* clip(input: Tensor, min: Tensor|number? = nil, max: Tensor|number? = nil) -> Tensor
 *   [method, same as pg_clamp]
 * PyTorch's clip: clamp. */
/* neg(input: Tensor) -> Tensor   [method, operator neg, out, grad2]
 * -input. Not for bools. PyTorch's neg. */
int pg_neg(pg_tensor *out, const pg_tensor *input);
/* neg_(input: Tensor) -> self   [method, inplace of pg_neg] */
int pg_neg_(pg_tensor *input);
/* negative(input: Tensor) -> Tensor   [method, same as pg_neg]
 * PyTorch's negative: neg. */
/* abs(input: Tensor) -> Tensor   [method, out, grad2]
 * |input|. Its gradient at 0 is 0. PyTorch's abs. */
int pg_abs(pg_tensor *out, const pg_tensor *input);
/* abs_(input: Tensor) -> self   [method, inplace of pg_abs] */
int pg_abs_(pg_tensor *input);
/* sign(input: Tensor) -> Tensor   [method, out, grad2]
 * 1, 0 or -1 as input is positive, zero (or NaN) or negative. PyTorch's sign. */
int pg_sign(pg_tensor *out, const pg_tensor *input);
/* sign_(input: Tensor) -> self   [method, inplace of pg_sign] */
int pg_sign_(pg_tensor *input);
/* square(input: Tensor) -> Tensor   [method, out, grad2]
 * input squared. PyTorch's square. */
int pg_square(pg_tensor *out, const pg_tensor *input);
/* square_(input: Tensor) -> self   [method, inplace of pg_square] */
int pg_square_(pg_tensor *input);
/* floor(input: Tensor) -> Tensor   [method, out, grad2]
 * The largest integer that is not above input. PyTorch's floor. */
int pg_floor(pg_tensor *out, const pg_tensor *input);
/* floor_(input: Tensor) -> self   [method, inplace of pg_floor] */
int pg_floor_(pg_tensor *input);
/* ceil(input: Tensor) -> Tensor   [method, out, grad2]
 * The smallest integer that is not below input. PyTorch's ceil. */
int pg_ceil(pg_tensor *out, const pg_tensor *input);
/* ceil_(input: Tensor) -> self   [method, inplace of pg_ceil] */
int pg_ceil_(pg_tensor *input);
/* trunc(input: Tensor) -> Tensor   [method, out, grad2]
 * The integer part of input. PyTorch's trunc. */
int pg_trunc(pg_tensor *out, const pg_tensor *input);
/* trunc_(input: Tensor) -> self   [method, inplace of pg_trunc] */
int pg_trunc_(pg_tensor *input);
/* absolute(input: Tensor) -> Tensor   [method, same as pg_abs]
 * PyTorch's absolute: abs. */
/* round(input: Tensor, *, decimals: int = 0) -> Tensor   [method, out, grad2]
 * The nearest integer, or number of so many decimals; halves go to the even one. PyTorch's round. */
int pg_round(pg_tensor *out, const pg_tensor *input, int64_t decimals);
/* round_(input: Tensor, *, decimals: int = 0) -> self   [method, inplace of pg_round] */
int pg_round_(pg_tensor *input, int64_t decimals);
/* exp(input: Tensor) -> Tensor   [method, out, grad2, autocast f32 cuda]
 * e to the power of input. PyTorch's exp. */
int pg_exp(pg_tensor *out, const pg_tensor *input);
/* exp_(input: Tensor) -> self   [method, inplace of pg_exp] */
int pg_exp_(pg_tensor *input);
/* expm1(input: Tensor) -> Tensor   [method, out, grad2, autocast f32 cuda]
 * exp(input) - 1, exact near 0. PyTorch's expm1. */
int pg_expm1(pg_tensor *out, const pg_tensor *input);
/* expm1_(input: Tensor) -> self   [method, inplace of pg_expm1] */
int pg_expm1_(pg_tensor *input);
/* exp2(input: Tensor) -> Tensor   [method, out, grad2]
 * 2 to the power of input. PyTorch's exp2. */
int pg_exp2(pg_tensor *out, const pg_tensor *input);
/* exp2_(input: Tensor) -> self   [method, inplace of pg_exp2] */
int pg_exp2_(pg_tensor *input);
/* log(input: Tensor) -> Tensor   [method, out, grad2, autocast f32 cuda]
 * The natural logarithm. PyTorch's log. */
int pg_log(pg_tensor *out, const pg_tensor *input);
/* log_(input: Tensor) -> self   [method, inplace of pg_log] */
int pg_log_(pg_tensor *input);
/* log1p(input: Tensor) -> Tensor   [method, out, grad2, autocast f32 cuda]
 * log(1 + input), exact near 0. PyTorch's log1p. */
int pg_log1p(pg_tensor *out, const pg_tensor *input);
/* log1p_(input: Tensor) -> self   [method, inplace of pg_log1p] */
int pg_log1p_(pg_tensor *input);
/* log2(input: Tensor) -> Tensor   [method, out, grad2, autocast f32 cuda]
 * The logarithm to base 2. PyTorch's log2. */
int pg_log2(pg_tensor *out, const pg_tensor *input);
/* log2_(input: Tensor) -> self   [method, inplace of pg_log2] */
int pg_log2_(pg_tensor *input);
/* log10(input: Tensor) -> Tensor   [method, out, grad2, autocast f32 cuda]
 * The logarithm to base 10. PyTorch's log10. */
int pg_log10(pg_tensor *out, const pg_tensor *input);
/* log10_(input: Tensor) -> self   [method, inplace of pg_log10] */
int pg_log10_(pg_tensor *input);
/* sqrt(input: Tensor) -> Tensor   [method, out, grad2]
 * The square root. PyTorch's sqrt. */
int pg_sqrt(pg_tensor *out, const pg_tensor *input);
/* sqrt_(input: Tensor) -> self   [method, inplace of pg_sqrt] */
int pg_sqrt_(pg_tensor *input);
/* rsqrt(input: Tensor) -> Tensor   [method, out, grad2, autocast f32 cuda]
 * 1 / sqrt(input). PyTorch's rsqrt. */
int pg_rsqrt(pg_tensor *out, const pg_tensor *input);
/* rsqrt_(input: Tensor) -> self   [method, inplace of pg_rsqrt] */
int pg_rsqrt_(pg_tensor *input);
/* reciprocal(input: Tensor) -> Tensor   [method, out, grad2, autocast f32 cuda]
 * 1 / input. PyTorch's reciprocal. */
int pg_reciprocal(pg_tensor *out, const pg_tensor *input);
/* reciprocal_(input: Tensor) -> self   [method, inplace of pg_reciprocal] */
int pg_reciprocal_(pg_tensor *input);
/* sin(input: Tensor) -> Tensor   [method, out, grad2]
 * The sine of input in radians. PyTorch's sin. */
int pg_sin(pg_tensor *out, const pg_tensor *input);
/* sin_(input: Tensor) -> self   [method, inplace of pg_sin] */
int pg_sin_(pg_tensor *input);
/* cos(input: Tensor) -> Tensor   [method, out, grad2]
 * The cosine of input in radians. PyTorch's cos. */
int pg_cos(pg_tensor *out, const pg_tensor *input);
/* cos_(input: Tensor) -> self   [method, inplace of pg_cos] */
int pg_cos_(pg_tensor *input);
/* tan(input: Tensor) -> Tensor   [method, out, grad2, autocast f32 cuda]
 * The tangent of input in radians. PyTorch's tan. */
int pg_tan(pg_tensor *out, const pg_tensor *input);
/* tan_(input: Tensor) -> self   [method, inplace of pg_tan] */
int pg_tan_(pg_tensor *input);
/* sinh(input: Tensor) -> Tensor   [method, out, grad2, autocast f32 cuda]
 * The hyperbolic sine. PyTorch's sinh. */
int pg_sinh(pg_tensor *out, const pg_tensor *input);
/* sinh_(input: Tensor) -> self   [method, inplace of pg_sinh] */
int pg_sinh_(pg_tensor *input);
/* cosh(input: Tensor) -> Tensor   [method, out, grad2, autocast f32 cuda]
 * The hyperbolic cosine. PyTorch's cosh. */
int pg_cosh(pg_tensor *out, const pg_tensor *input);
/* cosh_(input: Tensor) -> self   [method, inplace of pg_cosh] */
int pg_cosh_(pg_tensor *input);
/* tanh(input: Tensor) -> Tensor   [method, out, grad2]
 * The hyperbolic tangent. PyTorch's tanh. */
int pg_tanh(pg_tensor *out, const pg_tensor *input);
/* tanh_(input: Tensor) -> self   [method, inplace of pg_tanh] */
int pg_tanh_(pg_tensor *input);
/* sigmoid(input: Tensor) -> Tensor   [method, out, grad2]
 * 1 / (1 + exp(-input)). PyTorch's sigmoid. */
int pg_sigmoid(pg_tensor *out, const pg_tensor *input);
/* sigmoid_(input: Tensor) -> self   [method, inplace of pg_sigmoid] */
int pg_sigmoid_(pg_tensor *input);
/* erf(input: Tensor) -> Tensor   [method, out, grad2]
 * The error function. PyTorch's erf. */
int pg_erf(pg_tensor *out, const pg_tensor *input);
/* erf_(input: Tensor) -> self   [method, inplace of pg_erf] */
int pg_erf_(pg_tensor *input);
/* isnan(input: Tensor) -> Tensor   [method, nograd]
 * Whether it is NaN. PyTorch's isnan. */
int pg_isnan(pg_tensor *out, const pg_tensor *input);
/* isinf(input: Tensor) -> Tensor   [method, nograd]
 * Whether it is inf or -inf. PyTorch's isinf. */
int pg_isinf(pg_tensor *out, const pg_tensor *input);
/* isfinite(input: Tensor) -> Tensor   [method, nograd]
 * Whether it is neither infinite nor NaN. PyTorch's isfinite. */
int pg_isfinite(pg_tensor *out, const pg_tensor *input);
/* isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08,
 *   equal_nan: bool = false) -> Tensor
 *   [method, nograd, cpu scalars]
 * |input - other| <= atol + rtol * |other|, as bools; NaNs are close where equal_nan. PyTorch's isclose. */
int pg_isclose(pg_tensor *out, const pg_tensor *input, const pg_tensor *other, double rtol, double atol,
               bool equal_nan);
/* allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08,
 *   equal_nan: bool = false) -> bool
 *   [method, nograd, sync]
 * Whether isclose holds everywhere. PyTorch's allclose. */
int pg_allclose(bool *out, const pg_tensor *input, const pg_tensor *other, double rtol, double atol,
                bool equal_nan);
/* equal(input: Tensor, other: Tensor) -> bool   [method, nograd, sync]
 * Whether shapes and all elements are equal. PyTorch's equal. */
int pg_equal(bool *out, const pg_tensor *input, const pg_tensor *other);

/* ---- activations ---- */

/* relu(input: Tensor) -> Tensor   [method, out, grad2]
 * max(input, 0). PyTorch's relu. */
int pg_relu(pg_tensor *out, const pg_tensor *input);
/* relu_(input: Tensor) -> self   [method, inplace of pg_relu] */
int pg_relu_(pg_tensor *input);
/* nn.functional.relu(input: Tensor) -> Tensor   [same as pg_relu]
 * max(input, 0). PyTorch's relu. */
/* nn.functional.tanh(input: Tensor) -> Tensor   [same as pg_tanh]
 * The hyperbolic tangent. PyTorch's tanh. */
/* nn.functional.sigmoid(input: Tensor) -> Tensor   [same as pg_sigmoid]
 * 1 / (1 + exp(-input)). PyTorch's sigmoid. */
/* nn.functional.gelu(input: Tensor, approximate: 'none'|'tanh' = 'none') -> Tensor   [grad2]
 * input * Phi(input), Phi the normal distribution function; 'tanh': 0.5 x (1 + tanh(sqrt(2 / pi) (x +
 * 0.044715 x^3))). Floating. Hendrycks and Gimpel 2016, "Gaussian error linear units". PyTorch's gelu. */
int pg_gelu(pg_tensor *out, const pg_tensor *input, int approximate);
/* nn.functional.silu(input: Tensor) -> Tensor   [grad2]
 * input * sigmoid(input). Floating. Elfwing et al. 2018. PyTorch's silu. */
int pg_silu(pg_tensor *out, const pg_tensor *input);
/* nn.functional.softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor
 *   [grad2, autocast f32 cuda]
 * log(1 + exp(beta * input)) / beta; input itself where beta * input > threshold. Floating. PyTorch's
 * softplus. */
int pg_softplus(pg_tensor *out, const pg_tensor *input, double beta, double threshold);
/* nn.functional.leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor   [grad2]
 * input where positive, else negative_slope * input. Floating. PyTorch's leaky_relu. */
int pg_leaky_relu(pg_tensor *out, const pg_tensor *input, double negative_slope);
/* nn.functional.logsigmoid(input: Tensor) -> Tensor   [grad2]
 * log(sigmoid(input)). Floating. PyTorch's logsigmoid. */
int pg_logsigmoid(pg_tensor *out, const pg_tensor *input);
/* nn.functional.elu(input: Tensor, alpha: float = 1) -> Tensor   [grad2]
 * input where positive, else alpha * (exp(input) - 1). Floating. Clevert et al. 2016. PyTorch's elu. */
int pg_elu(pg_tensor *out, const pg_tensor *input, double alpha);
/* nn.functional.relu6(input: Tensor) -> Tensor   [grad2]
 * min(max(input, 0), 6). PyTorch's relu6. */
int pg_relu6(pg_tensor *out, const pg_tensor *input);
/* nn.functional.hardtanh(input: Tensor, min_val: float = -1, max_val: float = 1) -> Tensor   [grad2]
 * input limited to [min_val, max_val]. PyTorch's hardtanh. */
int pg_hardtanh(pg_tensor *out, const pg_tensor *input, double min_val, double max_val);

/* ---- reductions ---- */

/* sum(input: Tensor, dim: int[]? = nil, keepdim: bool = false, *, dtype: dtype? = nil) -> Tensor
 *   [method, out, grad2, autocast f32 cuda]
 * Sum over the dimensions dim (all of them: nil). Integers and bools sum to int64. PyTorch's sum. */
int pg_sum(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim, int dtype);
/* mean(input: Tensor, dim: int[]? = nil, keepdim: bool = false, *, dtype: dtype? = nil) -> Tensor
 *   [method, out, grad2]
 * Mean over the dimensions dim (all of them: nil); floating. nan where nothing is reduced. PyTorch's mean. */
int pg_mean(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim, int dtype);
/* prod(input: Tensor, *, dtype: dtype? = nil) -> Tensor   [method, grad2, autocast f32]
 * Product of all elements. Integers and bools multiply to int64. PyTorch's prod. */
int pg_prod(pg_tensor *out, const pg_tensor *input, int dtype);
/* prod(input: Tensor, dim: int, keepdim: bool = false, *, dtype: dtype? = nil) -> Tensor
 *   [method, out, grad2, autocast f32]
 * Product over one dimension. */
int pg_prod_dim(pg_tensor *out, const pg_tensor *input, int64_t dim, bool keepdim, int dtype);
/* max(input: Tensor) -> Tensor   [method, grad2]
 * The largest element; nan wins. Ties share the gradient. PyTorch's max. */
int pg_max(pg_tensor *out, const pg_tensor *input);
/* max(input: Tensor, dim: int, keepdim: bool = false) -> (values: Tensor, indices: Tensor)
 *   [method, out, grad2]
 * The largest along dim and the position (int64) of its first occurrence, which gets the gradient. */
int pg_max_dim(pg_tensor *values, pg_tensor *indices, const pg_tensor *input, int64_t dim, bool keepdim);
/* max(input: Tensor, other: Tensor) -> Tensor   [method, grad2, cpu scalars]
 * The larger of two elements, broadcast: maximum. PyTorch's max. */
int pg_max_other(pg_tensor *out, const pg_tensor *input, const pg_tensor *other);
/* min(input: Tensor) -> Tensor   [method, grad2]
 * The smallest element; nan wins. Ties share the gradient. PyTorch's min. */
int pg_min(pg_tensor *out, const pg_tensor *input);
/* min(input: Tensor, dim: int, keepdim: bool = false) -> (values: Tensor, indices: Tensor)
 *   [method, out, grad2]
 * The smallest along dim and the position (int64) of its first occurrence, which gets the gradient. */
int pg_min_dim(pg_tensor *values, pg_tensor *indices, const pg_tensor *input, int64_t dim, bool keepdim);
/* min(input: Tensor, other: Tensor) -> Tensor   [method, grad2, cpu scalars]
 * The smaller of two elements, broadcast: minimum. PyTorch's min. */
int pg_min_other(pg_tensor *out, const pg_tensor *input, const pg_tensor *other);
/* amax(input: Tensor, dim: int[]? = nil, keepdim: bool = false) -> Tensor   [method, out, grad2]
 * The largest over the dimensions dim (all of them: nil). Ties share the gradient. PyTorch's amax. */
int pg_amax(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim);
/* amin(input: Tensor, dim: int[]? = nil, keepdim: bool = false) -> Tensor   [method, out, grad2]
 * The smallest over the dimensions dim (all of them: nil). Ties share the gradient. PyTorch's amin. */
int pg_amin(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim);
/* argmax(input: Tensor, dim: int? = nil, keepdim: bool = false) -> Tensor   [method, out, nograd]
 * Position (int64) of the largest, the first of several; over everything (nil) in row-major order. PyTorch's
 * argmax. */
int pg_argmax(pg_tensor *out, const pg_tensor *input, const int64_t *dim, bool keepdim);
/* argmin(input: Tensor, dim: int? = nil, keepdim: bool = false) -> Tensor   [method, out, nograd]
 * Position (int64) of the smallest, the first of several; over everything (nil) in row-major order.
 * PyTorch's argmin. */
int pg_argmin(pg_tensor *out, const pg_tensor *input, const int64_t *dim, bool keepdim);
/* all(input: Tensor, dim: int[]? = nil, keepdim: bool = false) -> Tensor   [method, out, nograd]
 * Whether no element is zero (bool). PyTorch's all. */
int pg_all(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim);
/* any(input: Tensor, dim: int[]? = nil, keepdim: bool = false) -> Tensor   [method, out, nograd]
 * Whether an element is not zero (bool). PyTorch's any. */
int pg_any(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim);
/* count_nonzero(input: Tensor, dim: int[]? = nil) -> Tensor   [method, nograd]
 * How many elements over dim (nil: all dimensions) are not zero, int64. PyTorch's count_nonzero. */
int pg_count_nonzero(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n);
/* var(input: Tensor, dim: int[]? = nil, *, correction: float = 1, unbiased: bool? = nil,
 *   keepdim: bool = false) -> Tensor
 *   [method, out, grad2]
 * Sum of squared differences from the mean over n - correction; unbiased false is correction 0. Floating.
 * PyTorch's var. */
int pg_var(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, double correction,
           int unbiased, bool keepdim);
/* std(input: Tensor, dim: int[]? = nil, *, correction: float = 1, unbiased: bool? = nil,
 *   keepdim: bool = false) -> Tensor
 *   [method, out, grad2]
 * The square root of var. PyTorch's std. */
int pg_std(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, double correction,
           int unbiased, bool keepdim);
/* norm(input: Tensor, p: float = 2, dim: int[]? = nil, keepdim: bool = false, *,
 *   dtype: dtype? = nil) -> Tensor
 *   [method, out, grad2, autocast f32 cuda]
 * (sum |x|^p)^(1/p) over the dimensions dim (all of them: nil); p = 0 counts nonzeros, inf and -inf are
 * extremes. PyTorch's norm. */
int pg_norm(pg_tensor *out, const pg_tensor *input, double p, const int64_t *dim, int dim_n, bool keepdim,
            int dtype);
/* logsumexp(input: Tensor, dim: int[], keepdim: bool = false) -> Tensor
 *   [method, out, grad2, autocast f32 cuda]
 * log(sum(exp(x))) over the dimensions dim, without overflow. PyTorch's logsumexp. */
int pg_logsumexp(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n, bool keepdim);
/* cumsum(input: Tensor, dim: int, *, dtype: dtype? = nil) -> Tensor   [method, out, grad2, autocast f32 cuda]
 * Sums of all elements up to each along dim. PyTorch's cumsum. */
int pg_cumsum(pg_tensor *out, const pg_tensor *input, int64_t dim, int dtype);
/* cumsum_(input: Tensor, dim: int, *, dtype: dtype? = nil) -> self   [method, inplace of pg_cumsum] */
int pg_cumsum_(pg_tensor *input, int64_t dim, int dtype);

/* ---- making ---- */

/* empty(size: int..., *, dtype: dtype? = nil, device: device? = nil, requires_grad: bool = false) -> Tensor
 *   [nograd]
 * A new tensor whose elements are undefined. PyTorch's empty. */
int pg_empty(pg_tensor *out, const int64_t *size, int size_n, int dtype, const char *device,
             bool requires_grad);
/* zeros(size: int..., *, dtype: dtype? = nil, device: device? = nil, requires_grad: bool = false) -> Tensor
 *   [nograd]
 * A new tensor of zeros. PyTorch's zeros. */
int pg_zeros(pg_tensor *out, const int64_t *size, int size_n, int dtype, const char *device,
             bool requires_grad);
/* ones(size: int..., *, dtype: dtype? = nil, device: device? = nil, requires_grad: bool = false) -> Tensor
 *   [nograd]
 * A new tensor of ones. PyTorch's ones. */
int pg_ones(pg_tensor *out, const int64_t *size, int size_n, int dtype, const char *device,
            bool requires_grad);
/* full(size: int[], fill_value: number, *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false) -> Tensor
 *   [nograd]
 * A new tensor of one value; the default dtype, or bool for a boolean, unless told. PyTorch's full. */
int pg_full(pg_tensor *out, const int64_t *size, int size_n, const pg_number *fill_value, int dtype,
            const char *device, bool requires_grad);
/* empty_like(input: Tensor, *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false) -> Tensor   [nograd]
 * A new tensor of input's shape, dtype and device, elements undefined. PyTorch's empty_like. */
int pg_empty_like(pg_tensor *out, const pg_tensor *input, int dtype, const char *device, bool requires_grad);
/* zeros_like(input: Tensor, *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false) -> Tensor   [nograd]
 * Zeros of input's shape, dtype and device. PyTorch's zeros_like. */
int pg_zeros_like(pg_tensor *out, const pg_tensor *input, int dtype, const char *device, bool requires_grad);
/* ones_like(input: Tensor, *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false) -> Tensor   [nograd]
 * Ones of input's shape, dtype and device. PyTorch's ones_like. */
int pg_ones_like(pg_tensor *out, const pg_tensor *input, int dtype, const char *device, bool requires_grad);
/* full_like(input: Tensor, fill_value: number, *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false)
 *   -> Tensor   [nograd]
 * One value in input's shape, dtype and device. PyTorch's full_like. */
int pg_full_like(pg_tensor *out, const pg_tensor *input, const pg_number *fill_value, int dtype,
                 const char *device, bool requires_grad);
/* new_empty(input: Tensor, size: int..., *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false) -> Tensor
 *   [method, nograd]
 * A new tensor of another size with input's dtype and device, elements undefined. PyTorch's
 * Tensor.new_empty. */
int pg_new_empty(pg_tensor *out, const pg_tensor *input, const int64_t *size, int size_n, int dtype,
                 const char *device, bool requires_grad);
/* new_zeros(input: Tensor, size: int..., *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false) -> Tensor
 *   [method, nograd]
 * Zeros of another size with input's dtype and device. PyTorch's Tensor.new_zeros. */
int pg_new_zeros(pg_tensor *out, const pg_tensor *input, const int64_t *size, int size_n, int dtype,
                 const char *device, bool requires_grad);
/* new_ones(input: Tensor, size: int..., *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false) -> Tensor
 *   [method, nograd]
 * Ones of another size with input's dtype and device. PyTorch's Tensor.new_ones. */
int pg_new_ones(pg_tensor *out, const pg_tensor *input, const int64_t *size, int size_n, int dtype,
                const char *device, bool requires_grad);
/* new_full(input: Tensor, size: int[], fill_value: number, *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false) -> Tensor   [method, nograd]
 * One value in another size with input's dtype and device. PyTorch's Tensor.new_full. */
int pg_new_full(pg_tensor *out, const pg_tensor *input, const int64_t *size, int size_n,
                const pg_number *fill_value, int dtype, const char *device, bool requires_grad);
/* arange(limit: number, *, dtype: dtype? = nil, device: device? = nil, requires_grad: bool = false) -> Tensor
 *   [nograd]
 * 0, 1, ... below limit. Integral numbers give int64, others the default dtype. PyTorch's arange. */
int pg_arange(pg_tensor *out, const pg_number *limit, int dtype, const char *device, bool requires_grad);
/* arange(start: number, stop: number, step: number = 1, *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false) -> Tensor   [nograd]
 * start, start + step, ... below (above, for a negative step) stop. */
int pg_arange_range(pg_tensor *out, const pg_number *start, const pg_number *stop, const pg_number *step,
                    int dtype, const char *device, bool requires_grad);
/* linspace(start: float, stop: float, steps: int, *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false)
 *   -> Tensor   [nograd]
 * steps numbers at even distances, both ends included. PyTorch's linspace. */
int pg_linspace(pg_tensor *out, double start, double stop, int64_t steps, int dtype, const char *device,
                bool requires_grad);
/* eye(n: int, m: int? = nil, *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false) -> Tensor   [nograd]
 * (n, m) with ones on the diagonal; m is n unless told. PyTorch's eye. */
int pg_eye(pg_tensor *out, int64_t n, const int64_t *m, int dtype, const char *device, bool requires_grad);

/* ---- random ---- */

/* rand(size: int..., *, dtype: dtype? = nil, device: device? = nil, requires_grad: bool = false) -> Tensor
 *   [nograd, random]
 * Uniform in [0, 1). PyTorch's rand. */
int pg_rand(pg_tensor *out, const int64_t *size, int size_n, int dtype, const char *device,
            bool requires_grad);
/* randn(size: int..., *, dtype: dtype? = nil, device: device? = nil, requires_grad: bool = false) -> Tensor
 *   [nograd, random]
 * Standard normal. PyTorch's randn. */
int pg_randn(pg_tensor *out, const int64_t *size, int size_n, int dtype, const char *device,
             bool requires_grad);
/* rand_like(input: Tensor, *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false) -> Tensor
 *   [nograd, random]
 * Uniform in [0, 1), of input's shape, dtype and device. PyTorch's rand_like. */
int pg_rand_like(pg_tensor *out, const pg_tensor *input, int dtype, const char *device, bool requires_grad);
/* randn_like(input: Tensor, *, dtype: dtype? = nil, device: device? = nil,
 *   requires_grad: bool = false) -> Tensor
 *   [nograd, random]
 * Standard normal, of input's shape, dtype and device. PyTorch's randn_like. */
int pg_randn_like(pg_tensor *out, const pg_tensor *input, int dtype, const char *device, bool requires_grad);
/* randint(low: int, high: int, size: int[], *, dtype: dtype? = nil, device: device? = nil) -> Tensor
 *   [internal, nograd, random]
 * Integers in [low, high), int64 unless told. Lua's pg.randint takes PyTorch's shorter form, randint(high,
 * size), as well. */
int pg_randint(pg_tensor *out, int64_t low, int64_t high, const int64_t *size, int size_n, int dtype,
               const char *device);
/* randint_like(input: Tensor, low: int, high: int, *, dtype: dtype? = nil, device: device? = nil) -> Tensor
 *   [nograd, random]
 * Integers in [low, high), of input's shape, dtype and device. PyTorch's randint_like. */
int pg_randint_like(pg_tensor *out, const pg_tensor *input, int64_t low, int64_t high, int dtype,
                    const char *device);
/* randperm(n: int, *, dtype: dtype? = nil, device: device? = nil) -> Tensor   [nograd, random]
 * 0 .. n - 1 in random order, int64 unless told. PyTorch's randperm. */
int pg_randperm(pg_tensor *out, int64_t n, int dtype, const char *device);
/* bernoulli(input: Tensor) -> Tensor   [method, nograd, random, sync]
 * 1 with the probability that input gives, else 0; input's dtype (floating). PyTorch's bernoulli. */
int pg_bernoulli(pg_tensor *out, const pg_tensor *input);
/* bernoulli(input: Tensor, p: float) -> Tensor   [method, nograd, random]
 * 1 with probability p, else 0; input gives shape and dtype. */
int pg_bernoulli_p(pg_tensor *out, const pg_tensor *input, double p);
/* multinomial(input: Tensor, num_samples: int, replacement: bool = false) -> Tensor
 *   [method, nograd, random, sync]
 * Categories drawn with the weights of each row of input ((classes) or (rows, classes), floating), int64.
 * PyTorch's multinomial. */
int pg_multinomial(pg_tensor *out, const pg_tensor *input, int64_t num_samples, bool replacement);
/* _normal(input: Tensor, mean: float = 0, std: float = 1) -> Tensor   [internal, nograd, random]
 * A normal draw in input's shape and dtype. */
int pg__normal(pg_tensor *out, const pg_tensor *input, double mean, double std);
/* normal_(input: Tensor, mean: float = 0, std: float = 1) -> self   [method, inplace of pg__normal] */
int pg_normal_(pg_tensor *input, double mean, double std);
/* _uniform(input: Tensor, from: float = 0, to: float = 1) -> Tensor   [internal, nograd, random]
 * A uniform draw of [from, to) in input's shape and dtype. */
int pg__uniform(pg_tensor *out, const pg_tensor *input, double from, double to);
/* uniform_(input: Tensor, from: float = 0, to: float = 1) -> self   [method, inplace of pg__uniform] */
int pg_uniform_(pg_tensor *input, double from, double to);
/* _bernoulli(input: Tensor, p: float = 0.5) -> Tensor   [internal, nograd, random]
 * 1 with probability p, else 0, in input's shape and dtype. */
int pg__bernoulli(pg_tensor *out, const pg_tensor *input, double p);
/* bernoulli_(input: Tensor, p: float = 0.5) -> self   [method, inplace of pg__bernoulli] */
int pg_bernoulli_(pg_tensor *input, double p);

/* ---- sorting ---- */

/* sort(input: Tensor, dim: int = -1, descending: bool = false, stable: bool = false) -> (values: Tensor,
 *   indices: Tensor)
 *   [method, out, grad2]
 * In order along dim, and where each came from (int64); equal elements keep their order; nan counts as
 * largest. PyTorch's sort. */
int pg_sort(pg_tensor *values, pg_tensor *indices, const pg_tensor *input, int64_t dim, bool descending,
            bool stable);
/* argsort(input: Tensor, dim: int = -1, descending: bool = false, stable: bool = false) -> Tensor
 *   [method, nograd]
 * The indices of sort. PyTorch's argsort. */
int pg_argsort(pg_tensor *out, const pg_tensor *input, int64_t dim, bool descending, bool stable);
/* topk(input: Tensor, k: int, dim: int = -1, largest: bool = true, sorted: bool = true) -> (values: Tensor,
 *   indices: Tensor)
 *   [method, out, grad2]
 * The k largest (smallest) along dim, in order, and where each came from (int64). PyTorch's topk. */
int pg_topk(pg_tensor *values, pg_tensor *indices, const pg_tensor *input, int64_t k, int64_t dim,
            bool largest, bool sorted);

/* ---- views ---- */

/* view(input: Tensor, shape: int...) -> Tensor   [method, view, grad2]
 * The same elements in another shape (one size may be -1), sharing memory; an error where the strides do not
 * allow it. PyTorch's view. */
int pg_view(pg_tensor *out, const pg_tensor *input, const int64_t *shape, int shape_n);
/* view(input: Tensor, dtype: dtype) -> Tensor   [method, view, nograd]
 * The same bits as another dtype. Where its size differs, the last dimension, which must be dense, grows or
 * shrinks. PyTorch's view(dtype). */
int pg_view_dtype(pg_tensor *out, const pg_tensor *input, int dtype);
/* reshape(input: Tensor, shape: int...) -> Tensor   [method, view, grad2]
 * The same elements in another shape (one size may be -1); a view where strides allow it, else a copy.
 * PyTorch's reshape. */
int pg_reshape(pg_tensor *out, const pg_tensor *input, const int64_t *shape, int shape_n);
/* alias(input: Tensor) -> Tensor   [internal, view, grad2]
 * A view of all of input: x[{}]. */
int pg_alias_view(pg_tensor *out, const pg_tensor *input);
/* flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor   [method, view, grad2]
 * The dimensions start_dim to end_dim as one; input (*, a, b, *) to (*, a * b, *). PyTorch's flatten. */
int pg_flatten(pg_tensor *out, const pg_tensor *input, int64_t start_dim, int64_t end_dim);
/* unflatten(input: Tensor, dim: int, sizes: int[]) -> Tensor   [method, view, grad2]
 * Dimension dim as several, whose sizes (one may be -1) multiply up to its size. PyTorch's unflatten. */
int pg_unflatten(pg_tensor *out, const pg_tensor *input, int64_t dim, const int64_t *sizes, int sizes_n);
/* squeeze(input: Tensor, dim: int[]? = nil) -> Tensor   [method, view, grad2]
 * Without the dimensions of size 1: all of them, or those among dim. PyTorch's squeeze. */
int pg_squeeze(pg_tensor *out, const pg_tensor *input, const int64_t *dim, int dim_n);
/* unsqueeze(input: Tensor, dim: int) -> Tensor   [method, view, grad2]
 * With a dimension of size 1 at dim, which may be the number of dimensions. PyTorch's unsqueeze. */
int pg_unsqueeze(pg_tensor *out, const pg_tensor *input, int64_t dim);
/* permute(input: Tensor, dims: int...) -> Tensor   [method, view, grad2]
 * Dimension k of the result is dimension dims[k] of input. PyTorch's permute. */
int pg_permute(pg_tensor *out, const pg_tensor *input, const int64_t *dims, int dims_n);
/* transpose(input: Tensor, dim0: int, dim1: int) -> Tensor   [method, view, grad2]
 * With two dimensions exchanged. PyTorch's transpose. */
int pg_transpose(pg_tensor *out, const pg_tensor *input, int64_t dim0, int64_t dim1);
/* swapaxes(input: Tensor, dim0: int, dim1: int) -> Tensor   [method, same as pg_transpose]
 * With two dimensions exchanged. PyTorch's swapaxes. */
/* t(input: Tensor) -> Tensor   [method, view, grad2]
 * A matrix transposed; input with fewer dimensions as it is. PyTorch's t. */
int pg_t(pg_tensor *out, const pg_tensor *input);
/* movedim(input: Tensor, source: int[], destination: int[]) -> Tensor   [method, view, grad2]
 * Dimension source[k] moved to place destination[k], the others in their order. PyTorch's movedim. */
int pg_movedim(pg_tensor *out, const pg_tensor *input, const int64_t *source, int source_n,
               const int64_t *destination, int destination_n);
/* expand(input: Tensor, sizes: int...) -> Tensor   [method, view, grad2]
 * A view with dimensions of size 1 repeated (stride 0); -1 keeps a size; new ones go in front. PyTorch's
 * expand. */
int pg_expand(pg_tensor *out, const pg_tensor *input, const int64_t *sizes, int sizes_n);
/* broadcast_to(input: Tensor, sizes: int...) -> Tensor   [method, same as pg_expand]
 * A view with dimensions of size 1 repeated. PyTorch's broadcast_to. */
/* narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor   [method, view, grad2]
 * Positions start to start + length of dimension dim. PyTorch's narrow. */
int pg_narrow(pg_tensor *out, const pg_tensor *input, int64_t dim, int64_t start, int64_t length);
/* select(input: Tensor, dim: int, index: int) -> Tensor   [method, view, grad2]
 * Position index of dimension dim, which goes. PyTorch's select. */
int pg_select(pg_tensor *out, const pg_tensor *input, int64_t dim, int64_t index);
/* slice(input: Tensor, dim: int, start: int? = nil, stop: int? = nil, step: int = 1) -> Tensor
 *   [internal, view, grad2]
 * Positions start, start + step, ... before stop of dimension dim, bounds clamped as Python's:
 * x[start:stop:step]. */
int pg_slice(pg_tensor *out, const pg_tensor *input, int64_t dim, const int64_t *start, const int64_t *stop,
             int64_t step);
/* split(input: Tensor, split_size: int, dim: int = 0) -> Tensor[]   [method, view, grad2]
 * Views of input along dim, each of split_size but the last, which may be smaller. PyTorch's split. */
int pg_split(pg_tensor_list *out, const pg_tensor *input, int64_t split_size, int64_t dim);
/* split(input: Tensor, sections: int[], dim: int = 0) -> Tensor[]   [method, view, grad2]
 * Views of input along dim of the sizes that sections lists; they sum to dim's. PyTorch's split. */
int pg_split_sections(pg_tensor_list *out, const pg_tensor *input, const int64_t *sections, int sections_n,
                      int64_t dim);
/* chunk(input: Tensor, chunks: int, dim: int = 0) -> Tensor[]   [method, view, grad2]
 * At most `chunks` views of equal size of dimension dim, the last one shorter. PyTorch's chunk. */
int pg_chunk(pg_tensor_list *out, const pg_tensor *input, int64_t chunks, int64_t dim);
/* unbind(input: Tensor, dim: int = 0) -> Tensor[]   [method, view, grad2]
 * A view of each position of dimension dim. PyTorch's unbind. */
int pg_unbind(pg_tensor_list *out, const pg_tensor *input, int64_t dim);
/* diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor   [method, view, grad2]
 * The diagonal over dim1 and dim2 as the last dimension: elements (i, i + offset). PyTorch's diagonal. */
int pg_diagonal(pg_tensor *out, const pg_tensor *input, int64_t offset, int64_t dim1, int64_t dim2);
/* as_strided(input: Tensor, size: int[], stride: int[], storage_offset: int? = nil) -> Tensor
 *   [method, view, grad2]
 * Any view of input's storage; strides and offset count elements; nothing outside the storage may be reached.
 * PyTorch's as_strided. */
int pg_as_strided(pg_tensor *out, const pg_tensor *input, const int64_t *size, int size_n,
                  const int64_t *stride, int stride_n, const int64_t *storage_offset);
/* contiguous(input: Tensor) -> Tensor   [method, grad2]
 * input itself where it is contiguous (row-major, dense), else a copy that is. PyTorch's contiguous. */
int pg_contiguous(pg_tensor *out, const pg_tensor *input);
/* clone(input: Tensor) -> Tensor   [method, grad2]
 * A contiguous copy. PyTorch's clone. */
int pg_clone(pg_tensor *out, const pg_tensor *input);
/* _to(input: Tensor, *, dtype: dtype? = nil, device: device? = nil, copy: bool = false,
 *   non_blocking: bool = false) -> Tensor
 *   [internal, any device, grad2]
 * input with another dtype, on another device; itself where nothing changes and copy is false. non_blocking:
 * from pinned memory, and to the cpu (into pinned memory), the copy runs when the stream comes to it.
 * PyTorch's to. */
int pg__to(pg_tensor *out, const pg_tensor *input, int dtype, const char *device, bool copy, bool non_blocking);
/* copy_(input: Tensor, src: Tensor, non_blocking: bool = false) -> self   [method, any device, grad2]
 * Writes src, broadcast and converted, into input. non_blocking: between pinned memory and a device the copy
 * runs when the stream comes to it. PyTorch's copy_. */
int pg_copy_(pg_tensor *input, const pg_tensor *src, bool non_blocking);
/* fill_(input: Tensor, value: Tensor|number) -> self   [method, grad2, cpu scalars]
 * Sets all elements to value: a number or a tensor of no dimensions. PyTorch's fill_. */
int pg_fill_(pg_tensor *input, const pg_tensor *value, const pg_number *value_number);
/* zero_(input: Tensor) -> self   [method, grad2]
 * Sets all elements to 0. PyTorch's zero_. */
int pg_zero_(pg_tensor *input);

/* ---- indexing ---- */

/* index(input: Tensor, indices: Tensor[], dims: int[]) -> Tensor   [internal, grad2]
 * x[...] with tensors: indices[k] (integers, negative ones counting from the end, or bool) stands for
 * dimension dims[k] (a bool one of n dimensions for dims[k] to dims[k] + n - 1). They broadcast together;
 * their dimensions come first in the result, or, where the dimensions that they stand for are neighbours, in
 * place of these. PyTorch's advanced indexing. */
int pg_index(pg_tensor *out, const pg_tensor *input, const pg_tensor *const *indices, int indices_n,
             const int64_t *dims, int dims_n);
/* index_put(input: Tensor, indices: Tensor[], dims: int[], values: Tensor,
 *   accumulate: bool = false) -> Tensor   [internal, grad2]
 * A copy of input with values (broadcast) at the places that `index` would take; accumulate adds to what is
 * there. */
int pg_index_put(pg_tensor *out, const pg_tensor *input, const pg_tensor *const *indices, int indices_n,
                 const int64_t *dims, int dims_n, const pg_tensor *values, bool accumulate);
/* index_put_(input: Tensor, indices: Tensor[], dims: int[], values: Tensor, accumulate: bool = false) -> self
 *   [internal, grad2]
 * Writes values (broadcast) to the places that `index` would take. PyTorch's index_put_. */
int pg_index_put_(pg_tensor *input, const pg_tensor *const *indices, int indices_n, const int64_t *dims,
                  int dims_n, const pg_tensor *values, bool accumulate);
/* gather(input: Tensor, dim: int, index: Tensor) -> Tensor   [method, out, grad2]
 * out[i][j][k] = input[index[i][j][k]][j][k] for dim 0. index (int64) is no larger than input apart from
 * dim; the result has its shape. PyTorch's gather. */
int pg_gather(pg_tensor *out, const pg_tensor *input, int64_t dim, const pg_tensor *index);
/* scatter(input: Tensor, dim: int, index: Tensor, src: Tensor|number) -> Tensor   [method, out, grad2]
 * A copy of input with out[index[i][j][k]][j][k] = src[i][j][k] for dim 0. Where an index stands several
 * times, the last value in row-major order wins. PyTorch's scatter. */
int pg_scatter(pg_tensor *out, const pg_tensor *input, int64_t dim, const pg_tensor *index,
               const pg_tensor *src, const pg_number *src_number);
/* scatter_(input: Tensor, dim: int, index: Tensor, src: Tensor|number) -> self
 *   [method, inplace of pg_scatter] */
int pg_scatter_(pg_tensor *input, int64_t dim, const pg_tensor *index, const pg_tensor *src,
                const pg_number *src_number);
/* scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor
 *   [method, out, grad2, autocast promote cuda]
 * A copy of input with out[index[i][j][k]][j][k] += src[i][j][k] for dim 0, summed in row-major order.
 * PyTorch's scatter_add. */
int pg_scatter_add(pg_tensor *out, const pg_tensor *input, int64_t dim, const pg_tensor *index,
                   const pg_tensor *src);
/* scatter_add_(input: Tensor, dim: int, index: Tensor, src: Tensor) -> self
 *   [method, inplace of pg_scatter_add] */
int pg_scatter_add_(pg_tensor *input, int64_t dim, const pg_tensor *index, const pg_tensor *src);
/* index_select(input: Tensor, dim: int, index: Tensor) -> Tensor   [method, out, grad2]
 * Positions index (one dimension, integers) of dimension dim. PyTorch's index_select. */
int pg_index_select(pg_tensor *out, const pg_tensor *input, int64_t dim, const pg_tensor *index);
/* index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: number = 1) -> Tensor
 *   [method, out, grad2]
 * A copy of input with alpha * source's position k of dimension dim added to position index[k]. PyTorch's
 * index_add. */
int pg_index_add(pg_tensor *out, const pg_tensor *input, int64_t dim, const pg_tensor *index,
                 const pg_tensor *source, const pg_number *alpha);
/* index_add_(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: number = 1) -> self
 *   [method, inplace of pg_index_add] */
int pg_index_add_(pg_tensor *input, int64_t dim, const pg_tensor *index, const pg_tensor *source,
                  const pg_number *alpha);
/* masked_fill(input: Tensor, mask: Tensor, value: Tensor|number) -> Tensor   [method, grad2, cpu scalars]
 * value where mask (bool, broadcast) is true, else input. PyTorch's masked_fill. */
int pg_masked_fill(pg_tensor *out, const pg_tensor *input, const pg_tensor *mask, const pg_tensor *value,
                   const pg_number *value_number);
/* masked_fill_(input: Tensor, mask: Tensor, value: Tensor|number) -> self
 *   [method, inplace of pg_masked_fill, cpu scalars] */
int pg_masked_fill_(pg_tensor *input, const pg_tensor *mask, const pg_tensor *value,
                    const pg_number *value_number);
/* masked_select(input: Tensor, mask: Tensor) -> Tensor   [method, grad2, sync]
 * The elements where mask (bool, broadcast) is true, in row-major order, as one dimension. PyTorch's
 * masked_select. */
int pg_masked_select(pg_tensor *out, const pg_tensor *input, const pg_tensor *mask);
/* nonzero(input: Tensor) -> Tensor   [method, nograd, sync]
 * Indices of the elements that are not zero: int64 (n, dimensions of input), in row-major order. PyTorch's
 * nonzero. */
int pg_nonzero(pg_tensor *out, const pg_tensor *input);

/* ---- rearranging ---- */

/* cat(tensors: Tensor[], dim: int = 0) -> Tensor   [out, grad2, autocast promote]
 * The tensors one after the other along dim; other sizes are equal (empty tensors of one dimension are
 * skipped). dtypes promote. PyTorch's cat. */
int pg_cat(pg_tensor *out, const pg_tensor *const *tensors, int tensors_n, int64_t dim);
/* concat(tensors: Tensor[], dim: int = 0) -> Tensor   [same as pg_cat]
 * The tensors one after the other along dim. PyTorch's concat. */
/* stack(tensors: Tensor[], dim: int = 0) -> Tensor   [out, grad2, autocast promote]
 * Tensors of one shape along a new dimension dim. PyTorch's stack. */
int pg_stack(pg_tensor *out, const pg_tensor *const *tensors, int tensors_n, int64_t dim);
/* hstack(tensors: Tensor[]) -> Tensor   [grad2]
 * The tensors side by side: along dimension 1, vectors along 0. PyTorch's hstack. */
int pg_hstack(pg_tensor *out, const pg_tensor *const *tensors, int tensors_n);
/* vstack(tensors: Tensor[]) -> Tensor   [grad2]
 * The tensors one under the other: along dimension 0, vectors as rows. PyTorch's vstack. */
int pg_vstack(pg_tensor *out, const pg_tensor *const *tensors, int tensors_n);
/* tril(input: Tensor, diagonal: int = 0) -> Tensor   [method, out, grad2]
 * The lower triangle of each matrix, elements with column - row <= diagonal; zeros elsewhere. input (*,
 * rows, columns). PyTorch's tril. */
int pg_tril(pg_tensor *out, const pg_tensor *input, int64_t diagonal);
/* triu(input: Tensor, diagonal: int = 0) -> Tensor   [method, out, grad2]
 * The upper triangle of each matrix, elements with column - row >= diagonal; zeros elsewhere. input (*,
 * rows, columns). PyTorch's triu. */
int pg_triu(pg_tensor *out, const pg_tensor *input, int64_t diagonal);
/* repeat_(input: Tensor, repeats: int...) -> Tensor   [method, grad2]
 * input repeats[k] times along dimension k, as a copy; new dimensions go in front. PyTorch's repeat, which
 * is a word of Lua's. */
int pg_repeat(pg_tensor *out, const pg_tensor *input, const int64_t *repeats, int repeats_n);
/* repeat(input: Tensor, repeats: int...) -> Tensor   [method, same as pg_repeat]
 * repeat_ under PyTorch's name: x["repeat"](x, 2, 1). */
/* tile(input: Tensor, dims: int...) -> Tensor   [method, grad2]
 * As repeat, but dims may be shorter than input's dimensions: 1 in front. PyTorch's tile. */
int pg_tile(pg_tensor *out, const pg_tensor *input, const int64_t *dims, int dims_n);
/* repeat_interleave(input: Tensor, repeats: int, dim: int? = nil) -> Tensor   [method, grad2]
 * Each element `repeats` times in a row along dim, or (nil) of the flattened input. PyTorch's
 * repeat_interleave. */
int pg_repeat_interleave(pg_tensor *out, const pg_tensor *input, int64_t repeats, const int64_t *dim);
/* flip(input: Tensor, dims: int...) -> Tensor   [method, grad2]
 * The order of elements along dims reversed. PyTorch's flip. */
int pg_flip(pg_tensor *out, const pg_tensor *input, const int64_t *dims, int dims_n);
/* roll(input: Tensor, shifts: int[], dims: int[]? = nil) -> Tensor   [method, grad2]
 * Elements moved by shifts[k] along dims[k], those past the end coming in at the start; nil: in the
 * flattened input. PyTorch's roll. */
int pg_roll(pg_tensor *out, const pg_tensor *input, const int64_t *shifts, int shifts_n, const int64_t *dims,
            int dims_n);
/* nn.functional.one_hot(input: Tensor, num_classes: int = -1) -> Tensor   [nograd, sync]
 * int64 (*, num_classes): 1 at position input[...], else 0; input int64 (*). -1: one more than the largest.
 * PyTorch's one_hot. */
int pg_one_hot(pg_tensor *out, const pg_tensor *input, int64_t num_classes);

/* ---- products ---- */

/* matmul(input: Tensor, other: Tensor) -> Tensor   [method, out, grad2, autocast low]
 * Matrix product. 2-D: (m, k) @ (k, n) -> (m, n). 1-D: a row on the left, a column on the right, left out of
 * the result. More dimensions: batches of matrices, broadcast. One dtype, any but bool. PyTorch's matmul. */
int pg_matmul(pg_tensor *out, const pg_tensor *input, const pg_tensor *other);
/* mm(input: Tensor, mat2: Tensor) -> Tensor   [method, out, grad2, autocast low]
 * (m, k) @ (k, n) -> (m, n). PyTorch's mm. */
int pg_mm(pg_tensor *out, const pg_tensor *input, const pg_tensor *mat2);
/* bmm(input: Tensor, mat2: Tensor) -> Tensor   [method, out, grad2, autocast low]
 * (b, m, k) @ (b, k, n) -> (b, m, n). PyTorch's bmm. */
int pg_bmm(pg_tensor *out, const pg_tensor *input, const pg_tensor *mat2);
/* mv(input: Tensor, vec: Tensor) -> Tensor   [method, out, grad2, autocast low cuda]
 * (m, k) @ (k) -> (m). PyTorch's mv. */
int pg_mv(pg_tensor *out, const pg_tensor *input, const pg_tensor *vec);
/* dot(input: Tensor, other: Tensor) -> Tensor   [method, out, grad2, autocast promote cuda]
 * (k) @ (k) -> (). PyTorch's dot. */
int pg_dot(pg_tensor *out, const pg_tensor *input, const pg_tensor *other);
/* addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: number = 1, alpha: number = 1) -> Tensor
 *   [method, out, grad2, autocast low]
 * beta * input + alpha * (mat1 @ mat2); input is broadcast to (m, n); beta 0 does not read it. PyTorch's
 * addmm. */
int pg_addmm(pg_tensor *out, const pg_tensor *input, const pg_tensor *mat1, const pg_tensor *mat2,
             const pg_number *beta, const pg_number *alpha);
/* nn.functional.linear(input: Tensor, weight: Tensor, bias: Tensor? = nil, *,
 *   activation: 'relu'|'gelu'|'gelu_tanh'? = nil)
 *   -> Tensor   [grad2, autocast low]
 * input @ weight^T + bias. input (*, in), weight (out, in), bias (out) -> (*, out). activation is applied to
 * the result while it is in the cache. PyTorch's linear. */
int pg_linear(pg_tensor *out, const pg_tensor *input, const pg_tensor *weight, const pg_tensor *bias,
              int activation);

/* ---- networks ---- */

/* softmax(input: Tensor, dim: int, *, dtype: dtype? = nil) -> Tensor
 *   [method, out, grad2, autocast f32 cuda]
 * exp(x) / sum(exp(x)) along dim, from which the maximum is taken first; dtype converts input before.
 * PyTorch's softmax. */
int pg_softmax(pg_tensor *out, const pg_tensor *input, int64_t dim, int dtype);
/* nn.functional.softmax(input: Tensor, dim: int, *, dtype: dtype? = nil) -> Tensor   [same as pg_softmax] */
/* log_softmax(input: Tensor, dim: int, *, dtype: dtype? = nil) -> Tensor
 *   [method, out, grad2, autocast f32 cuda]
 * x - log(sum(exp(x))) along dim. PyTorch's log_softmax. */
int pg_log_softmax(pg_tensor *out, const pg_tensor *input, int64_t dim, int dtype);
/* nn.functional.log_softmax(input: Tensor, dim: int, *, dtype: dtype? = nil) -> Tensor
 *   [same as pg_log_softmax] */
/* nn.functional.layer_norm(input: Tensor, normalized_shape: int[], weight: Tensor? = nil,
 *   bias: Tensor? = nil,
 *   eps: float = 1e-5) -> Tensor   [grad2, autocast f32 cuda]
 * (x - mean) / sqrt(var + eps) * weight + bias over the last dimensions. input (*, normalized_shape),
 * floating; weight and bias (normalized_shape). Ba et al. 2016, "Layer Normalization". PyTorch's
 * layer_norm. */
int pg_layer_norm(pg_tensor *out, const pg_tensor *input, const int64_t *normalized_shape,
                  int normalized_shape_n, const pg_tensor *weight, const pg_tensor *bias, double eps);
/* nn.functional.add_layer_norm(input: Tensor, residual: Tensor, normalized_shape: int[],
 *   weight: Tensor? = nil, bias: Tensor? = nil, eps: float = 1e-5) -> (output: Tensor, sum: Tensor)
 *   [grad2, autocast f32]
 * sum = input + residual and output = layer_norm(sum), in one pass over memory; residual has the shape and
 * dtype of input. */
int pg_add_layer_norm(pg_tensor *output, pg_tensor *sum, const pg_tensor *input, const pg_tensor *residual,
                      const int64_t *normalized_shape, int normalized_shape_n, const pg_tensor *weight,
                      const pg_tensor *bias, double eps);
/* nn.functional.embedding(input: Tensor, weight: Tensor, padding_idx: int? = nil) -> Tensor   [grad2]
 * weight[input]: input (*) ids, int64 or int32, weight (rows, size) -> (*, size). The row padding_idx gets
 * no gradient. PyTorch's embedding. */
int pg_embedding(pg_tensor *out, const pg_tensor *input, const pg_tensor *weight, const int64_t *padding_idx);
/* _C.embedding_backward(grad: Tensor, ids: Tensor, num_weights: int, padding_idx: int) -> Tensor
 *   [internal, grad2]
 * The gradient of embedding's weight: (num_weights, size), rows of grad (*, size) added by id; padding_idx
 * -1: none. */
int pg_embedding_backward(pg_tensor *out, const pg_tensor *grad, const pg_tensor *ids, int64_t num_weights,
                          int64_t padding_idx);
/* nn.functional.dropout(input: Tensor, p: float = 0.5, training: bool = true) -> Tensor   [grad2, random]
 * Zeroes each element with probability p and scales the others by 1 / (1 - p); input itself where training
 * is false or p is 0. Srivastava et al. 2014, "Dropout". PyTorch's dropout. */
int pg_dropout(pg_tensor *out, const pg_tensor *input, double p, bool training);
/* nn.functional.scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor,
 *   attn_mask: Tensor? = nil,
 *   dropout_p: float = 0, is_causal: bool = false, *, scale: float? = nil,
 *   enable_gqa: bool = false) -> Tensor
 *   [grad2, random, autocast low]
 * softmax(scale * query @ key^T + attn_mask) @ value by blocks. query (*, heads, L, E), key (*, heads, S,
 * E), value (*, heads, S, Ev) -> (*, heads, L, Ev). attn_mask broadcasts to (*, heads, L, S): bool (true:
 * attend) or floating (added); is_causal: query i sees keys 0 to i. scale: 1 / sqrt(E). enable_gqa: heads of
 * query share those of key and value. Dao et al. 2022, "FlashAttention". PyTorch's
 * scaled_dot_product_attention. */
int pg_scaled_dot_product_attention(pg_tensor *out, const pg_tensor *query, const pg_tensor *key,
                                    const pg_tensor *value, const pg_tensor *attn_mask, double dropout_p,
                                    bool is_causal, const double *scale, bool enable_gqa);
/* nn.functional.cross_entropy(input: Tensor, target: Tensor, weight: Tensor? = nil, *,
 *   ignore_index: int = -100,
 *   reduction: 'none'|'mean'|'sum' = 'mean', label_smoothing: float = 0) -> Tensor   [grad2, autocast f32]
 * -log softmax(input) at the target's class. input (C), (N, C) or (N, C, d1, ...), logits; target class ids
 * (N, d1, ...) or probabilities of input's shape; weight (C). The mean divides by the sum of the targets'
 * weights (probabilities: by N d1 ...). PyTorch's cross_entropy. */
int pg_cross_entropy(pg_tensor *out, const pg_tensor *input, const pg_tensor *target, const pg_tensor *weight,
                     int64_t ignore_index, int reduction, double label_smoothing);
/* nn.functional.linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, *,
 *   linear_bias: Tensor? = nil, weight: Tensor? = nil, reduction: 'none'|'mean'|'sum' = 'mean',
 *   ignore_index: int? = nil, label_smoothing: float = 0, dtype: dtype? = nil) -> Tensor
 *   [grad2, autocast loss]
 * cross_entropy(linear(input, linear_weight, linear_bias), target, ...) without logits in the caller's hands:
 * the gradient takes their memory over. input (N, in) or (in), linear_weight (C, in), linear_bias (C), target
 * class ids (N) or (); weight (C). The loss has input's dtype unless told another. Probabilities (N, C) and
 * linear_weight (C, d1, ..., in), with linear_bias (C, d1, ...) and target (N, d1, ...), are composed of
 * linear and cross_entropy. ignore_index: -100 for class ids. PyTorch's linear_cross_entropy. */
int pg_linear_cross_entropy(pg_tensor *out, const pg_tensor *input, const pg_tensor *linear_weight,
                            const pg_tensor *target, const pg_tensor *linear_bias, const pg_tensor *weight,
                            int reduction, const int64_t *ignore_index, double label_smoothing, int dtype);
/* nn.functional.nll_loss(input: Tensor, target: Tensor, weight: Tensor? = nil, *, ignore_index: int = -100,
 *   reduction: 'none'|'mean'|'sum' = 'mean') -> Tensor   [grad2, autocast f32]
 * -input at the target's class: input (C), (N, C) or (N, C, d1, ...), log-probabilities; target class ids.
 * PyTorch's nll_loss. */
int pg_nll_loss(pg_tensor *out, const pg_tensor *input, const pg_tensor *target, const pg_tensor *weight,
                int64_t ignore_index, int reduction);
/* nn.functional.mse_loss(input: Tensor, target: Tensor, *, reduction: 'none'|'mean'|'sum' = 'mean') -> Tensor
 *   [grad2, autocast f32]
 * (input - target)^2. PyTorch's mse_loss. */
int pg_mse_loss(pg_tensor *out, const pg_tensor *input, const pg_tensor *target, int reduction);
/* nn.functional.l1_loss(input: Tensor, target: Tensor, *, reduction: 'none'|'mean'|'sum' = 'mean') -> Tensor
 *   [grad2, autocast f32]
 * |input - target|. PyTorch's l1_loss. */
int pg_l1_loss(pg_tensor *out, const pg_tensor *input, const pg_tensor *target, int reduction);
/* nn.functional.binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor? = nil, *,
 *   reduction: 'none'|'mean'|'sum' = 'mean', pos_weight: Tensor? = nil) -> Tensor   [grad2, autocast f32]
 * -(pos_weight t log sigmoid(x) + (1 - t) log(1 - sigmoid(x))) * weight; target has input's shape, the
 * weights broadcast. PyTorch's binary_cross_entropy_with_logits. */
int pg_binary_cross_entropy_with_logits(pg_tensor *out, const pg_tensor *input, const pg_tensor *target,
                                        const pg_tensor *weight, int reduction, const pg_tensor *pos_weight);

/* ---- optimizers (called by the library's optim and nn.utils) ---- */

/* _C.sgd_step_(hyper: Tensor, params: Tensor[], grads: Tensor[], momentum_buffers: Tensor[]? = nil) -> self
 *   [internal, nograd]
 * One step over all params. hyper: 7 float64 on the params' device: lr, momentum, dampening, weight_decay,
 * nesterov, maximize, whether this is the first step of the momentum_buffers (which then are written, not
 * read). momentum_buffers nil: momentum 0. */
int pg_sgd_step_(pg_tensor *hyper, const pg_tensor *const *params, int params_n,
                 const pg_tensor *const *grads, int grads_n, const pg_tensor *const *momentum_buffers,
                 int momentum_buffers_n);
/* _C.adam_step_(hyper: Tensor, params: Tensor[], grads: Tensor[], exp_avgs: Tensor[], exp_avg_sqs: Tensor[],
 *   max_exp_avg_sqs: Tensor[]? = nil) -> self   [internal, nograd]
 * One step over all params. hyper: 9 float64 on the params' device: lr, beta1, beta2, eps, weight_decay,
 * decoupled (AdamW), step (1-based), amsgrad, maximize. Kingma and Ba 2015, "Adam"; Loshchilov and Hutter
 * 2019, "Decoupled Weight Decay". */
int pg_adam_step_(pg_tensor *hyper, const pg_tensor *const *params, int params_n,
                  const pg_tensor *const *grads, int grads_n, const pg_tensor *const *exp_avgs,
                  int exp_avgs_n, const pg_tensor *const *exp_avg_sqs, int exp_avg_sqs_n,
                  const pg_tensor *const *max_exp_avg_sqs, int max_exp_avg_sqs_n);
/* _C.clip_grad_norm_(grads: Tensor[], max_norm: float, norm_type: float = 2,
 *   error_if_nonfinite: bool = false) -> Tensor
 *   [internal, nograd]
 * The norm of all grads as one vector (a 0-dim tensor); scales them in place by min(1, max_norm / (norm +
 * 1e-6)). norm_type: a positive order or inf. */
int pg_clip_grad_norm_(pg_tensor *out, const pg_tensor *const *grads, int grads_n, double max_norm,
                       double norm_type, bool error_if_nonfinite);
/* _C.unscale_(found_inf: Tensor, grads: Tensor[], inverse_scale: Tensor) -> self   [internal, nograd]
 * Multiplies all grads (floating) in place by inverse_scale and sets found_inf to 1 where one of them was not
 * finite. Both are one float32 on the grads' device. PyTorch's _amp_foreach_non_finite_check_and_unscale_. */
int pg_unscale_(pg_tensor *found_inf, const pg_tensor *const *grads, int grads_n,
                const pg_tensor *inverse_scale);
