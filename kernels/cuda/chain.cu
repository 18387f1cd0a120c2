/* chain.cu: several pointwise ops in one kernel.
 *
 * The chain is a program that all threads read: a step chooses its operands among four registers of VALUES
 * elements each and the space's operands, which are read where they are used, and branches to its op. No
 * kernel is compiled at run time: that would need a compiler on the user's machine and tens of milliseconds
 * for each new chain, and could not run where there is no GPU.
 *
 * Bound by memory up to some five cheap steps: each operand and the output once, as if the chain were one op,
 * where the steps apart would write and read every value between them. A step costs some ten instructions an
 * element for choosing and rounding, beside its arithmetic; one 16 byte load is under way in each thread. */
#include "elementwise.h"
#include "pointwise.h"

typedef space_of_operands<PG_K_OPERANDS> chain_space;

struct program {
    uint32_t bools;
    int steps;
    struct { int16_t op; uint8_t inputs, to, from[3]; double p[2]; } step[PG_K_CHAIN_STEPS];
};

template <class R, int V> struct values { R v[V]; };
template <class T> static const int chain_values = smaller_of(8, 16 / (int)sizeof(T));

/* The offset of operand k's element at linear position i. */
static __device__ __forceinline__ int64_t offset_of(const chain_space &s, int k, uint32_t i) {
    int64_t offset = 0;
    for (int d = s.ndim - 1; d > 0; d--) {
        const uint32_t rest = divide(i, s.size[d]);
        offset += (i - rest * s.size[d].size) * s.stride[k][d];
        i = rest;
    }
    return offset + i * s.stride[k][0];
}

/* Where a thread's element v is: PACKS: V neighbours; else V elements a block apart. */
template <bool PACKS> static __device__ __forceinline__ uint32_t place_of(uint32_t i, int v) {
    return PACKS ? i + v : i + v * EACH_BLOCK;
}

/* Operand k, of elements E. */
template <class E, bool PACKS, class R, int V>
static __device__ __forceinline__ void read_operand(const chain_space &s, int k, uint32_t i, values<R, V> &to) {
    const bool constant = !s.data[k];
    if constexpr (PACKS) {
        pack<E, V> p;
        fetch_pack<E, V>(s, k, constant ? 0 : offset_of(s, k, i), s.count - i, p);
#pragma unroll
        for (int v = 0; v < V; v++) to.v[v] = (R)load_as(p.v[v]);
    } else {
#pragma unroll
        for (int v = 0; v < V; v++) {
            const uint32_t at = place_of<PACKS>(i, v);
            if (at < s.count) to.v[v] = (R)load_as(fetch_element<E>(s, k, constant ? 0 : offset_of(s, k, at)));
        }
    }
}

template <class E, bool PACKS, class R, int V>
static __device__ __forceinline__ void write_result(const chain_space &s, uint32_t i, const values<R, V> &from) {
    E *out = (E *)s.data[0];
    if constexpr (PACKS) {
        pack<E, V> p;
#pragma unroll
        for (int v = 0; v < V; v++) p.v[v] = store_as<E>((compute_t<E>)from.v[v]);
        E *to = out + offset_of(s, 0, i);
        if (s.count - i >= V) {
            write_pack<E, V>(to, p);
        } else {
#pragma unroll
            for (int v = 0; v < V; v++)
                if (v < (int)(s.count - i)) to[v] = p.v[v];
        }
    } else {
#pragma unroll
        for (int v = 0; v < V; v++) {
            const uint32_t at = place_of<PACKS>(i, v);
            if (at < s.count) out[offset_of(s, 0, at)] = store_as<E>((compute_t<E>)from.v[v]);
        }
    }
}

#define X(NAME, e) \
    template <class R> static __device__ __forceinline__ bool holds_##NAME(R a, R b) { \
        (void)b; \
        return e; \
    }
FLOAT_PREDICATES(X)
#undef X

/* All V elements of one step; T is what its values are rounded to. */
template <class T, int V, class R = compute_t<T>>
static __device__ __forceinline__ void take_step(int op, R p0, R p1, const values<R, V> &a, const values<R, V> &b,
                                                 const values<R, V> &c, values<R, V> &to) {
#define EACH(e) \
    { \
        _Pragma("unroll") for (int v = 0; v < V; v++) to.v[v] = (e); \
        break; \
    }
    switch (op) {
#define X(NAME, inputs, e) \
    case PG_K_##NAME: EACH(load_as(store_as<T>(called<line_##NAME<R>>(a.v[v], b.v[v], c.v[v], p0, p1))))
    RARE_FLOAT_OPS(X)
#undef X
#define X(NAME, inputs, e) \
    case PG_K_##NAME: EACH(load_as(store_as<T>(line_##NAME<R>::value(a.v[v], b.v[v], c.v[v], p0, p1))))
    HOT_FLOAT_OPS(X)
#undef X
    case CUBE: EACH(load_as(store_as<T>(line_CUBE<R>::value(a.v[v], b.v[v], c.v[v], p0, p1))))
    case PG_K_WHERE: EACH(a.v[v] != 0 ? b.v[v] : c.v[v])
#define X(NAME, e) case PG_K_##NAME: EACH(holds_##NAME(a.v[v], b.v[v]) ? R(1) : R(0))
    FLOAT_PREDICATES(X)
#undef X
    default: break;
    }
#undef EACH
}

template <class T, bool PACKS> static __global__ void __launch_bounds__(EACH_BLOCK)
run_chain(const chain_space s, const program p) {
    typedef compute_t<T> R;
    constexpr int V = chain_values<T>;
    const uint32_t i = PACKS ? (blockIdx.x * EACH_BLOCK + threadIdx.x) * V
                             : blockIdx.x * (EACH_BLOCK * V) + threadIdx.x;
    if (i >= s.count) return;
    values<R, V> r0 = {}, r1 = {}, r2 = {}, r3 = {}, result = {}, in[3] = {};
    for (int k = 0; k < p.steps; k++) {
        const auto &step = p.step[k];
#pragma unroll
        for (int j = 0; j < 3; j++) {
            if (j >= step.inputs) break;
            const int from = step.from[j];
            switch (from) {
            case 0: in[j] = r0; break;
            case 1: in[j] = r1; break;
            case 2: in[j] = r2; break;
            case 3: in[j] = r3; break;
            default: {
                const int operand = from - PG_K_CHAIN_REGISTERS;
                if (p.bools >> operand & 1) read_operand<bool, PACKS>(s, operand, i, in[j]);
                else read_operand<T, PACKS>(s, operand, i, in[j]);
            }
            }
        }
        take_step<T, V>(step.op, (R)step.p[0], (R)step.p[1], in[0], in[1], in[2], result);
        switch (step.to) {
        case 0: r0 = result; break;
        case 1: r1 = result; break;
        case 2: r2 = result; break;
        default: r3 = result; break;
        }
    }
    if (p.bools & 1) write_result<bool, PACKS>(s, i, result);
    else write_result<T, PACKS>(s, i, result);
}

#define ROW(NAME, inputs, kinds) inputs,
static const unsigned char arities[] = {PG_POINTWISE(ROW) PG_PREDICATES(ROW)};
#undef ROW

/* The chain as the kernel reads it; false for an op that is none of its. */
static bool program_of(program *to, const pg_chain *k) {
    *to = {};
    to->bools = k->bools;
    to->steps = k->steps;
    for (int i = 0; i < k->steps; i++) {
        const pg_step *from = &k->step[i];
        if (from->op >= PG_K_POINTWISE_COUNT || (from->op != PG_K_WHERE && !floats_have(from->op))) return false;
        auto &step = to->step[i];
        step.op = from->op;
        step.inputs = arities[from->op];
        step.to = from->to;
        for (int j = 0; j < 3; j++) step.from[j] = from->from[j];
        for (int j = 0; j < 2; j++) step.p[j] = from->p[j];
        const int exponent = from->from[1] - PG_K_CHAIN_REGISTERS;
        if (from->op == PG_K_POW && exponent >= 0 && !k->space->data[exponent])
            step.op = (int16_t)cheaper_power(k->dtype, k->space->scalar[exponent]);
        if (step.op != from->op) step.inputs = 1;
    }
    return true;
}

template <class T> static int launch_chain(const pg_context *c, const pg_strided *s, const program &p) {
    const int inputs = s->n - 1;
    int item[PG_K_OPERANDS];
    for (int k = 0; k <= inputs; k++) item[k] = p.bools >> k & 1 ? 1 : (int)sizeof(T);
    const cuts k = cuts_of(c, s, inputs);
    for (piece at = {}; next_piece(&k, s, &at);) {
        const chain_space t = space_of<chain_space>(s, inputs, k.dim, at.size, at.offset, item);
        const unsigned blocks = blocks_for(t.count, EACH_BLOCK * chain_values<T>);
        if (takes_packs(t, inputs, item, chain_values<T>))
            PG_LAUNCH((run_chain<T, true>), blocks, EACH_BLOCK, 0, c, t, p);
        else
            PG_LAUNCH((run_chain<T, false>), blocks, EACH_BLOCK, 0, c, t, p);
    }
    return launched();
}

extern "C" int PG_K(chain)(const pg_context *c, const pg_chain *chain) {
    program p;
    if (!program_of(&p, chain)) return PG_KERNEL_UNSUPPORTED;
    if (count_of(chain->space->ndim, chain->space->shape) == 0) return PG_KERNEL_OK;
    PG_FOR_FLOATS(chain->dtype, { return launch_chain<T>(c, chain->space, p); })
}
