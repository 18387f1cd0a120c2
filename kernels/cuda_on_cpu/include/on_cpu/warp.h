/* warp.h: what the 32 lanes of a warp do together: shuffles, votes, reductions, __syncwarp, and the ground
 * for more.
 *
 * A collective: each lane named in the mask gives pointers to variables of its own and waits; the last one to
 * come performs the operation for all, through these pointers. An operation of one's own (a tensor core's
 * product, ldmatrix) is a function like shuffle_lanes below and a static warp_operation that names it.
 * perform is compiled without the sanitizers' checks (PG_UNCHECKED), since it touches other lanes' variables;
 * memory that the hardware would read or write for the lane is announced by the lane itself before it calls
 * collective (reads, writes: sanitizers.h).
 */
#ifndef PG_ON_CPU_WARP_H
#define PG_ON_CPU_WARP_H

#include "sanitizers.h"
#include "thread.h"

#pragma GCC visibility push(hidden)
namespace on_cpu {

struct lane_call {
    const void *in;
    void *out;
    int argument;
};
struct warp_call {
    unsigned mask;                 /* which lanes take part; all of these have come */
    const lane_call *lanes[32];    /* theirs; the others' are undefined */
    const char *file;
    int line;                      /* for fail() */
};
struct warp_operation {
    const char *name;              /* for messages */
    void (*perform)(const warp_call &call);
    bool orders_memory;            /* what a lane wrote before, the others see afterwards: __syncwarp alone */
};

/* Lanes of one warp that come with the same mask must come with the same operation and from the same line; a
 * lane that is not in its own mask, or one of the mask that never comes, ends the launch. Lanes that the
 * block does not have are taken out of the mask. */
void collective(const warp_operation &operation, unsigned mask, const lane_call &mine, const char *file,
                int line);

static inline int lane_id() { return (int)(current->linear % 32); }

/* ---- shuffles: argument is the lane to read; sizes of 1 to 16 bytes ---- */

template <class T> PG_UNCHECKED void shuffle_lanes(const warp_call &call) {
    for (unsigned rest = call.mask; rest; rest &= rest - 1) {
        const lane_call &to = *call.lanes[__builtin_ctz(rest)];
        if (!(call.mask >> to.argument & 1)) {
            fail(call.file, call.line, "lane %d shuffles from lane %d, which its mask %08x leaves out",
                 __builtin_ctz(rest), to.argument, call.mask);
        }
        *(T *)to.out = *(const T *)call.lanes[to.argument]->in;
    }
}
template <class T> inline constexpr warp_operation shuffle_operation = {"a shuffle", shuffle_lanes<T>, false};

/* source outside the segment of `width` lanes: the lane's own value. */
template <class T>
inline T shuffle(unsigned mask, T value, int source, int width, const char *file, int line) {
    const int lane = lane_id();
    if (source < 0 || source / width != lane / width) source = lane;
    T result;
    collective(shuffle_operation<T>, mask, {&value, &result, source}, file, line);
    return result;
}

/* ---- votes and reductions ---- */

template <class T, class Combine>
PG_UNCHECKED inline void combine_lanes(const warp_call &call, Combine combine) {
    unsigned rest = call.mask;
    T all = *(const T *)call.lanes[__builtin_ctz(rest)]->in;
    while (rest &= rest - 1) all = combine(all, *(const T *)call.lanes[__builtin_ctz(rest)]->in);
    for (rest = call.mask; rest; rest &= rest - 1) *(T *)call.lanes[__builtin_ctz(rest)]->out = all;
}
#define PG_WARP_REDUCTION(name, words, expression)                                                          \
    template <class T> struct reduce_##name {                                                               \
        PG_UNCHECKED T operator()(T a, T b) const { return expression; }                                    \
        PG_UNCHECKED static void perform(const warp_call &call) { combine_lanes<T>(call, reduce_##name()); } \
        static constexpr warp_operation operation = {words, perform, false};                                \
    };
PG_WARP_REDUCTION(add, "__reduce_add_sync", (T)(a + b))
PG_WARP_REDUCTION(max, "__reduce_max_sync", a > b ? a : b)
PG_WARP_REDUCTION(min, "__reduce_min_sync", a < b ? a : b)
PG_WARP_REDUCTION(and, "__reduce_and_sync", a & b)
PG_WARP_REDUCTION(or, "__reduce_or_sync", a | b)
PG_WARP_REDUCTION(xor, "__reduce_xor_sync", a ^ b)
PG_WARP_REDUCTION(ballot, "a ballot", a | b)
#undef PG_WARP_REDUCTION

template <class Reduce, class T> inline T reduce(unsigned mask, T value, const char *file, int line) {
    T result;
    collective(Reduce::operation, mask, {&value, &result, 0}, file, line);
    return result;
}

PG_UNCHECKED inline void nothing_to_do(const warp_call &) {}
inline constexpr warp_operation syncwarp_operation = {"__syncwarp", nothing_to_do, true};

}   // namespace on_cpu
#pragma GCC visibility pop

static inline void __syncwarp(unsigned mask = ~0u, PG_PLACE) {
    on_cpu::collective(on_cpu::syncwarp_operation, mask, {nullptr, nullptr, 0}, file, line);
}
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, PG_PLACE) {
    const int lane = (on_cpu::lane_id() & ~(width - 1)) | (source & (width - 1));
    return on_cpu::shuffle(mask, value, lane, width, file, line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, PG_PLACE) {
    return on_cpu::shuffle(mask, value, on_cpu::lane_id() - (int)delta, width, file, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, PG_PLACE) {
    return on_cpu::shuffle(mask, value, on_cpu::lane_id() + (int)delta, width, file, line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, PG_PLACE) {
    return on_cpu::shuffle(mask, value, on_cpu::lane_id() ^ bits, width, file, line);
}
static inline unsigned __ballot_sync(unsigned mask, int vote, PG_PLACE) {
    const unsigned mine = vote ? 1u << on_cpu::lane_id() : 0u;
    return on_cpu::reduce<on_cpu::reduce_ballot<unsigned>>(mask, mine, file, line);
}
static inline int __any_sync(unsigned mask, int vote, PG_PLACE) {
    return on_cpu::reduce<on_cpu::reduce_or<int>>(mask, (int)(vote != 0), file, line);
}
static inline int __all_sync(unsigned mask, int vote, PG_PLACE) {
    return on_cpu::reduce<on_cpu::reduce_and<int>>(mask, (int)(vote != 0), file, line);
}
/* As in CUDA: all of them for int and unsigned; and, or, xor for unsigned alone. */
#define PG_REDUCE_SYNC(name, type)                                                                      \
    static inline type __reduce_##name##_sync(unsigned mask, type value, PG_PLACE) {                    \
        return on_cpu::reduce<on_cpu::reduce_##name<type>>(mask, value, file, line);                    \
    }
PG_REDUCE_SYNC(add, int) PG_REDUCE_SYNC(add, unsigned)
PG_REDUCE_SYNC(max, int) PG_REDUCE_SYNC(max, unsigned)
PG_REDUCE_SYNC(min, int) PG_REDUCE_SYNC(min, unsigned)
PG_REDUCE_SYNC(and, unsigned) PG_REDUCE_SYNC(or, unsigned) PG_REDUCE_SYNC(xor, unsigned)
#undef PG_REDUCE_SYNC

/* The lanes that run now: on the CPU the caller alone, which CUDA allows too. */
static inline unsigned __activemask(void) { return 1u << on_cpu::lane_id(); }

#endif
