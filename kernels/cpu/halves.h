/* halves.h: float16 and bfloat16 tensors taken through float32 in scratch. */
#ifndef PG_HALVES_H
#define PG_HALVES_H

#include "convert.h"
#include "cpu.h"

static inline bool is_half(int dtype) { return dtype == PG_K_FLOAT16 || dtype == PG_K_BFLOAT16; }

typedef struct halves_arg { int dtype; const void *from; void *to; } halves_arg;
static inline void halves_widen(void *arg, int64_t begin, int64_t end, int worker) {
    const halves_arg *h = arg;
    (void)worker;
    widen(h->dtype, end - begin, (const uint16_t *)h->from + begin, (float *)h->to + begin);
}
static inline void halves_narrow(void *arg, int64_t begin, int64_t end, int worker) {
    const halves_arg *h = arg;
    (void)worker;
    narrow(h->dtype, end - begin, (const float *)h->from + begin, (uint16_t *)h->to + begin);
}
/* n elements as float32 in scratch, or NULL. */
static inline float *widened(const pg_context *context, int dtype, int64_t n, const void *from) {
    float *to = context->scratch(context, (size_t)(n > 0 ? n : 1) * sizeof *to);
    halves_arg arg = {dtype, from, to};
    if (to && n > 0) parallel(context, n, 16384, halves_widen, &arg);
    return to;
}
static inline int narrowed(const pg_context *context, int dtype, int64_t n, const float *from, void *to) {
    halves_arg arg = {dtype, from, to};
    if (n > 0) parallel(context, n, 16384, halves_narrow, &arg);
    return PG_KERNEL_OK;
}

#endif
