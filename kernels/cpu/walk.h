/* walk.h: runs of an iteration space. Strided operands are gathered into small dense blocks, so that every
 * op needs one dense loop. */
#ifndef PG_WALK_H
#define PG_WALK_H

#include <string.h>

#include "cpu.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#pragma clang diagnostic ignored "-Wpass-failed"    /* loops that call the C library stay scalar */
#else
#define INDEPENDENT _Pragma("GCC ivdep")       /* an output may be an input, never a shifted one */
#endif

/* elements in a block: a few of them fit the first-level cache */
enum { BLOCK = 512 };
/* Outputs of at least this many bytes are written past the caches. */
#define STREAM_BYTES ((int64_t)24 << 20)

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static inline int64_t count_of(int ndim, const int64_t *shape) {
    int64_t n = 1;
    for (int d = 0; d < ndim; d++) n *= shape[d];
    return n;
}

/* Whether linear order is memory order (every stride the product of the sizes after it; sizes of 1 have
 * none). */
static inline bool is_dense(int ndim, const int64_t *shape, const int64_t *stride) {
    int64_t expect = 1;
    for (int d = ndim - 1; d >= 0; d--) {
        if (shape[d] != 1 && stride[d] != expect) return false;
        expect *= shape[d];
    }
    return true;
}
static inline bool is_broadcast(int ndim, const int64_t *shape, const int64_t *stride) {
    for (int d = 0; d < ndim; d++)
        if (shape[d] != 1 && stride[d] != 0) return false;
    return true;
}

typedef struct walk { int ndim; const int64_t *shape; int64_t at[PG_K_DIMS]; } walk;

static inline void walk_to(walk *w, int ndim, const int64_t *shape, int64_t linear) {
    w->ndim = ndim;
    w->shape = shape;
    for (int d = ndim - 1; d >= 0; d--) {
        w->at[d] = linear % shape[d];
        linear /= shape[d];
    }
}
static inline int64_t walk_offset(const walk *w, const int64_t *stride) {
    int64_t offset = 0;
    for (int d = 0; d < w->ndim; d++) offset += w->at[d] * stride[d];
    return offset;
}
/* m elements onwards; m is at most what is left of the innermost row. */
static inline void walk_on(walk *w, int64_t m) {
    int d = w->ndim - 1;
    if (d < 0) return;
    w->at[d] += m;
    while (w->at[d] >= w->shape[d] && d > 0) {
        w->at[d--] = 0;
        w->at[d]++;
    }
}

/* Elements by size alone, whatever their dtype. */
typedef uint8_t __attribute__((may_alias)) bytes_1;
typedef uint16_t __attribute__((may_alias)) bytes_2;
typedef uint32_t __attribute__((may_alias)) bytes_4;
typedef uint64_t __attribute__((may_alias)) bytes_8;

#define DEFINE_RUNS(T, NAME) \
    static inline void gather_run_##NAME(T *to, const T *from, int64_t stride, int64_t n) { \
        if (stride == 1) memcpy(to, from, (size_t)n * sizeof(T)); \
        else if (stride == 0) { T v = *from; for (int64_t i = 0; i < n; i++) to[i] = v; } \
        else for (int64_t i = 0; i < n; i++) to[i] = from[i * stride]; \
    } \
    static inline void scatter_run_##NAME(T *to, const T *from, int64_t stride, int64_t n) { \
        if (stride == 1) memcpy(to, from, (size_t)n * sizeof(T)); \
        else for (int64_t i = 0; i < n; i++) to[i * stride] = from[i]; \
    } \
    static inline void gather_##NAME(T *to, const T *base, walk w, const int64_t *stride, int64_t n) { \
        int last = w.ndim - 1; \
        if (last < 0) { *to = *base; return; } \
        int64_t offset = walk_offset(&w, stride); \
        for (;;) { \
            int64_t run = min64(w.shape[last] - w.at[last], n); \
            if (run < 8) for (int64_t i = 0; i < run; i++) to[i] = base[offset + i * stride[last]]; \
            else gather_run_##NAME(to, base + offset, stride[last], run); \
            if ((n -= run) <= 0) return; \
            to += run; \
            offset -= w.at[last] * stride[last]; \
            w.at[last] = 0; \
            for (int d = last - 1; d >= 0; d--) { \
                offset += stride[d]; \
                if (++w.at[d] < w.shape[d]) break; \
                offset -= stride[d] * w.shape[d]; \
                w.at[d] = 0; \
            } \
        } \
    } \
    static inline void scatter_##NAME(T *base, const T *from, walk w, const int64_t *stride, int64_t n) { \
        int last = w.ndim - 1; \
        if (last < 0) { *base = *from; return; } \
        int64_t offset = walk_offset(&w, stride); \
        for (;;) { \
            int64_t run = min64(w.shape[last] - w.at[last], n); \
            if (run < 8) for (int64_t i = 0; i < run; i++) base[offset + i * stride[last]] = from[i]; \
            else scatter_run_##NAME(base + offset, from, stride[last], run); \
            if ((n -= run) <= 0) return; \
            from += run; \
            offset -= w.at[last] * stride[last]; \
            w.at[last] = 0; \
            for (int d = last - 1; d >= 0; d--) { \
                offset += stride[d]; \
                if (++w.at[d] < w.shape[d]) break; \
                offset -= stride[d] * w.shape[d]; \
                w.at[d] = 0; \
            } \
        } \
    }
DEFINE_RUNS(bytes_1, 1)
DEFINE_RUNS(bytes_2, 2)
DEFINE_RUNS(bytes_4, 4)
DEFINE_RUNS(bytes_8, 8)

/* n elements of `item` bytes from position w of the space, into / out of a dense block. */
static inline void gather(int item, void *to, const void *base, const walk *w, const int64_t *stride,
                          int64_t n) {
    switch (item) {
    case 1: gather_1(to, base, *w, stride, n); break;
    case 2: gather_2(to, base, *w, stride, n); break;
    case 4: gather_4(to, base, *w, stride, n); break;
    default: gather_8(to, base, *w, stride, n); break;
    }
}
static inline void scatter(int item, void *base, const void *from, const walk *w, const int64_t *stride,
                           int64_t n) {
    switch (item) {
    case 1: scatter_1(base, from, *w, stride, n); break;
    case 2: scatter_2(base, from, *w, stride, n); break;
    case 4: scatter_4(base, from, *w, stride, n); break;
    default: scatter_8(base, from, *w, stride, n); break;
    }
}

/* Copies past the caches; `to` is 64-byte aligned. stream_end before anybody else reads. */
static inline void stream(void *to, const void *from, int64_t bytes) {
    char *o = to;
    const char *a = from;
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 64 <= bytes; i += 64)
        _mm512_stream_si512((__m512i *)(void *)(o + i), _mm512_loadu_si512(a + i));
#elif defined(__AVX__)
    for (; i + 32 <= bytes; i += 32)
        _mm256_stream_si256((__m256i *)(void *)(o + i),
                            _mm256_loadu_si256((const __m256i *)(const void *)(a + i)));
#elif defined(__SSE2__)
    for (; i + 16 <= bytes; i += 16)
        _mm_stream_si128((__m128i *)(void *)(o + i), _mm_loadu_si128((const __m128i *)(const void *)(a + i)));
#endif
    memcpy(o + i, a + i, (size_t)(bytes - i));
}
static inline void stream_end(void) {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

static inline int item_size(int dtype) {
    static const uint8_t sizes[] = {1, 1, 1, 2, 4, 8, 2, 2, 4, 8};
    return sizes[dtype];
}

#endif
