/* bf16.h: products of bfloat16 by the instructions of AVX512-BF16, where the machine has them (asked at run
 * time: the avx512 kernels alone have this). VDPBF16PS adds two products to a float32 sum: a and b lie packed
 * in pairs along k, 32 bits each.
 *
 * An element of c is one chain over k, two at a time, in float32, whatever part, block or worker computes it;
 * it is rounded once. The instruction takes subnormal bfloat16 as zero, and rounds after each pair.
 *
 * Included by matmul.c after its bodies. */
#ifndef PG_CPU_BF16_H
#define PG_CPU_BF16_H

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__x86_64__)
#define PG_BF16 __attribute__((target("avx512bf16")))

/* A block of a (BF_MC x BF_KC) and one of b (BF_KC x BF_NC) are packed; their product, in float32, takes the
 * same room again: all in the second cache. One panel of b (BF_KC x BF_NR) stays in the first. */
enum { BF_MR = 14, BF_NR = 32, BF_MC = 168, BF_NC = 256, BF_KC = 384, BF_PAIRS = BF_KC / 2 };

static bool has_bf16(void) {
    static _Atomic signed char known; /* 0: not asked yet; 1: no; 2: yes */
    signed char k = atomic_load_explicit(&known, memory_order_relaxed);
    if (k == 0) {
        k = __builtin_cpu_supports("avx512bf16") ? 2 : 1;
        atomic_store_explicit(&known, k, memory_order_relaxed);
    }
    return k == 2;
}

/* sums (mr, 32; BF_NC apart) += a (mr, pairs; a word at i * si + p * sp) times a panel of b (pairs, 32). */
static PG_BF16 inline __attribute__((always_inline)) void bf16_tile(const int mr, int64_t pairs,
                                                                    const uint32_t *a, int64_t si, int64_t sp,
                                                                    const uint32_t *b, float *sums) {
    __m512 acc[BF_MR][2];
    const uint32_t *a5 = a + 5 * si, *a10 = a + 10 * si;
#pragma GCC unroll 14
    for (int i = 0; i < mr; i++) {
        acc[i][0] = _mm512_loadu_ps(sums + i * BF_NC);
        acc[i][1] = _mm512_loadu_ps(sums + i * BF_NC + 16);
    }
    for (int64_t p = 0; p < pairs; p++) {
        const __m512bh b0 = (__m512bh)_mm512_loadu_si512(b), b1 = (__m512bh)_mm512_loadu_si512(b + 16);
#pragma GCC unroll 14
        for (int i = 0; i < mr; i++) {
            const uint32_t *row = i < 5 ? a : i < 10 ? a5 : a10;
            const __m512bh x = (__m512bh)_mm512_set1_epi32((int)row[i % 5 * si]);
            acc[i][0] = _mm512_dpbf16_ps(acc[i][0], x, b0);
            acc[i][1] = _mm512_dpbf16_ps(acc[i][1], x, b1);
        }
        a += sp, a5 += sp, a10 += sp;
        b += BF_NR;
    }
#pragma GCC unroll 14
    for (int i = 0; i < mr; i++) {
        _mm512_storeu_ps(sums + i * BF_NC, acc[i][0]);
        _mm512_storeu_ps(sums + i * BF_NC + 16, acc[i][1]);
    }
}
#define BF16_TILE(mr)                                                                            \
    static PG_BF16 void bf16_tile_##mr(int64_t pairs, const uint32_t *a, int64_t si, int64_t sp, \
                                       const uint32_t *b, float *sums) {                         \
        bf16_tile(mr, pairs, a, si, sp, b, sums);                                                \
    }
BF16_TILE(1)
BF16_TILE(2) BF16_TILE(3) BF16_TILE(4) BF16_TILE(5) BF16_TILE(6) BF16_TILE(7) BF16_TILE(8) BF16_TILE(9)
    BF16_TILE(10) BF16_TILE(11) BF16_TILE(12) BF16_TILE(13) BF16_TILE(14)
#undef BF16_TILE
        static void (*const bf16_tiles[BF_MR + 1])(int64_t, const uint32_t *, int64_t, int64_t,
                                                   const uint32_t *, float *) = {
            NULL,         bf16_tile_1,  bf16_tile_2,  bf16_tile_3,  bf16_tile_4,
            bf16_tile_5,  bf16_tile_6,  bf16_tile_7,  bf16_tile_8,  bf16_tile_9,
            bf16_tile_10, bf16_tile_11, bf16_tile_12, bf16_tile_13, bf16_tile_14,
};

/* Rows 2p and 2p + 1 of x, n <= 32 columns: words (p, 32), columns from n on zero. The second row of an odd
 * last pair is zero. */
static PG_BF16 void bf16_interleave(const uint16_t *x, int64_t row, int64_t depth, int n, uint32_t *to,
                                    int64_t apart) {
    static const uint16_t order[2][32] = {
        {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
         8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
        {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
         24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63},
    };
    const __m512i low = _mm512_loadu_si512(order[0]), high = _mm512_loadu_si512(order[1]);
    const __mmask32 seen = n >= 32 ? 0xffffffffu : (__mmask32)((1u << n) - 1);
    for (int64_t k = 0; k < depth; k += 2, to += apart) {
        const __m512i first = _mm512_maskz_loadu_epi16(seen, x + k * row);
        const __m512i second =
            k + 1 < depth ? _mm512_maskz_loadu_epi16(seen, x + (k + 1) * row) : _mm512_setzero_si512();
        _mm512_storeu_si512(to, _mm512_permutex2var_epi16(first, low, second));
        _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(first, high, second));
    }
}
/* n <= 16 rows of x, each along k: words (p, 16 of every `apart`), rows from n on zero. */
static PG_BF16 void bf16_transpose(const uint16_t *x, int64_t row, int64_t depth, int n, uint32_t *to,
                                   int64_t apart) {
    for (int64_t k = 0; k < depth; k += 32) {
        const int64_t left = depth - k < 32 ? depth - k : 32;
        const __mmask32 seen = left >= 32 ? 0xffffffffu : (__mmask32)((1u << left) - 1);
        __m512 r[16];
        for (int i = 0; i < 16; i++)
            r[i] = i < n ? _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(seen, x + i * row + k))
                         : _mm512_setzero_ps();
        transpose16(r);
        for (int p = 0; p < (int)(left + 1) / 2; p++)
            _mm512_storeu_ps((float *)(to + (k / 2 + p) * apart), r[p]);
    }
}

typedef struct bf16_job {
    const pg_context *context;
    const pg_gemm *g;
    cut grid;
    char *scratch;
} bf16_job;
enum {
    BF_A = (BF_MC + BF_NR) * BF_PAIRS * 4,
    BF_B = BF_PAIRS * BF_NC * 4,
    BF_SUMS = BF_MC * BF_NC * 4,
    BF_ROOM = BF_A + BF_B + BF_SUMS
};

/* Rows [i, i + m), columns [j, j + n) of c: alpha * sums + beta * c + bias, aux, activation, rounded. */
static void bf16_finish(const pg_gemm *g, int64_t at, int64_t i, int64_t j, int64_t m, int64_t n,
                        const float *sums) {
    float row[BF_NC], other[BF_NC];
    const float alpha = (float)g->alpha, beta = (float)g->beta;
    for (int64_t r = 0; r < m; r++) {
        const int64_t to = at * g->c_batch + (i + r) * g->ldc + j;
        uint16_t *c = (uint16_t *)g->c + to;
        for (int64_t q = 0; q < n; q++) row[q] = alpha * sums[r * BF_NC + q];
        if (beta != 0) {
            widen(PG_K_BFLOAT16, n, c, other);
            for (int64_t q = 0; q < n; q++) row[q] = fma32(beta, other[q], row[q]);
        }
        if (g->bias) {
            widen(PG_K_BFLOAT16, n, (const uint16_t *)g->bias + j, other);
            for (int64_t q = 0; q < n; q++) row[q] += other[q];
        }
        if (g->aux) narrow(PG_K_BFLOAT16, n, row, (uint16_t *)g->aux + to);
        activate_f32(g->activation, n, row);
        narrow(PG_K_BFLOAT16, n, row, c);
    }
}

static void bf16_part(void *arg, int64_t begin, int64_t end, int worker) {
    const bf16_job *job = arg;
    const pg_gemm *g = job->g;
    const int64_t parts = job->grid.rows * job->grid.columns;
    uint32_t *a_words = (uint32_t *)(job->scratch + (size_t)worker * BF_ROOM), *b_words = a_words + BF_A / 4;
    float *sums = (float *)(b_words + BF_B / 4);
    for (int64_t r = begin; r < end; r++) {
        const int64_t at = r / parts, part = r % parts;
        const int64_t i0 = part / job->grid.columns * job->grid.height,
                      j0 = part % job->grid.columns * job->grid.width;
        const int64_t i1 = g->m - i0 < job->grid.height ? g->m : i0 + job->grid.height;
        const int64_t j1 = g->n - j0 < job->grid.width ? g->n : j0 + job->grid.width;
        const uint16_t *a = (const uint16_t *)g->a + (g->a_offset ? g->a_offset[at] : at * g->a_batch);
        const uint16_t *b = (const uint16_t *)g->b + (g->b_offset ? g->b_offset[at] : at * g->b_batch);
        for (int64_t j = j0; j < j1; j += BF_NC)
            for (int64_t i = i0; i < i1; i += BF_MC) {
                const int64_t m = i1 - i < BF_MC ? i1 - i : BF_MC, n = j1 - j < BF_NC ? j1 - j : BF_NC;
                if (*job->context->interrupt) return;
                for (int64_t q = 0; q < m; q++)
                    memset(sums + q * BF_NC, 0, (size_t)((n + BF_NR - 1) / BF_NR * BF_NR) * sizeof *sums);
                for (int64_t k = 0; k < g->k; k += BF_KC) {
                    const int64_t depth = g->k - k < BF_KC ? g->k - k : BF_KC, pairs = (depth + 1) / 2;
                    int64_t si = 1, sp = BF_MC + BF_NR;
                    if (g->ta) {
                        for (int64_t q = 0; q < m; q += BF_NR)
                            bf16_interleave(a + k * g->lda + i + q, g->lda, depth,
                                            m - q < BF_NR ? (int)(m - q) : BF_NR, a_words + q, sp);
                    } else {
                        si = BF_PAIRS, sp = 1;
                        for (int64_t q = 0; q < m; q++) {
                            uint16_t *to = (uint16_t *)(a_words + q * si);
                            memcpy(to, a + (i + q) * g->lda + k, (size_t)depth * sizeof *to);
                            if (depth % 2) to[depth] = 0;
                        }
                    }
                    for (int64_t q = 0; q < n; q += BF_NR) {
                        uint32_t *to = b_words + q * BF_PAIRS;
                        const int wide = n - q < BF_NR ? (int)(n - q) : BF_NR;
                        if (g->tb) {
                            const uint16_t *from = b + (j + q) * g->ldb + k;
                            bf16_transpose(from, g->ldb, depth, wide < 16 ? wide : 16, to, BF_NR);
                            bf16_transpose(from + 16 * g->ldb, g->ldb, depth, wide > 16 ? wide - 16 : 0,
                                           to + 16, BF_NR);
                        } else {
                            bf16_interleave(b + k * g->ldb + j + q, g->ldb, depth, wide, to, BF_NR);
                        }
                    }
                    for (int64_t q = 0; q < n; q += BF_NR)
                        for (int64_t p = 0; p < m; p += BF_MR)
                            bf16_tiles[m - p < BF_MR ? m - p : BF_MR](pairs, a_words + p * si, si, sp,
                                                                      b_words + q * BF_PAIRS,
                                                                      sums + p * BF_NC + q);
                }
                bf16_finish(g, at, i, j, m, n, sums);
            }
    }
}

static int gemm_bf16(const pg_context *context, const pg_gemm *g) {
    bf16_job job = {.context = context, .g = g};
    const double work = (double)g->m * (double)g->n * (double)(g->k > 0 ? g->k : 1);
    const double grain = context->grain_limit < GRAIN ? (double)context->grain_limit : GRAIN;
    int64_t parts = g->batch >= context->threads ? 1 : context->threads / g->batch;
    if (work < grain * (double)parts) parts = 1 + (int64_t)(work / grain);
    job.grid = cut_of(g->m, g->n, parts, BF_MR, BF_NR);
    if (!(job.scratch = context->scratch(context, (size_t)BF_ROOM * (size_t)context->threads)))
        return PG_KERNEL_NO_SCRATCH;
    const int64_t items = g->batch * job.grid.rows * job.grid.columns;
    const double each = work / (double)(job.grid.rows * job.grid.columns);
    parallel(context, items, each >= grain ? 1 : (int64_t)(grain / each), bf16_part, &job);
    return *context->interrupt ? PG_KERNEL_INTERRUPTED : PG_KERNEL_OK;
}

#else
static bool has_bf16(void) { return false; }
static int gemm_bf16(const pg_context *context, const pg_gemm *g) {
    (void)context, (void)g;
    return PG_KERNEL_UNSUPPORTED;
}
#endif

#endif
