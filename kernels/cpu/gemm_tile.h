/* gemm_tile.h: one thread's matrix product, shared by matmul.c and attention.c. The body of an each_float.h; MR x NR is the
 * tile that lives in registers.
 *
 * c (m, n) = alpha * a (m, k) b (k, n) + beta * c. a and b are given by two strides each, so that a transposed operand is nothing
 * special. An element's value is one chain of fma over k, cut every KC: it depends on k alone, not on m, n, the tile it falls into
 * or the number of threads.
 */
#ifdef VMASKED
#define MR 14
#else
#define MR 6
#endif
#define NR (2 * VL)

/* mr x (nv vectors) of c. a[i * ra + k * rd] is broadcast, b[k * rb] is a row of NR; strides of a in bytes, so that x86 addresses
 * five rows from one register and two offsets. nr columns are stored. beta 0 does not read c. */
static inline __attribute__((always_inline)) void F(tile)(const int mr, const int nv, int64_t kc, const T *a, int64_t ra,
                                                          int64_t rd, const T *b, int64_t rb, T *c, int64_t ldc, int nr,
                                                          T alpha, T beta) {
    V acc[MR][2];
    const char *p0 = (const char *)a, *p1 = p0 + 5 * ra, *p2 = p1 + 5 * ra;
    const int64_t ra3 = 3 * ra;
    for (int i = 0; i < mr; i++) acc[i][0] = acc[i][1] = VZERO();
#ifdef VMASKED
    const VMASK m0 = VMASK_OF(nr), m1 = VMASK_OF(nr - VL);
#endif
    for (int64_t k = 0; k < kc; k++) {
#ifdef VMASKED
        V b0 = nv == 1 ? VMLOAD(m0, b) : VLOAD(b), b1 = nv == 1 ? VZERO() : VMLOAD(m1, b + VL);
#else
        V b0 = VLOAD(b), b1 = nv == 1 ? VZERO() : VLOAD(b + VL);
#endif
#pragma GCC unroll 14
        for (int i = 0; i < mr; i++) {
            const char *p = i < 5 ? p0 : i < 10 ? p1 : p2;
            const int j = i % 5;
            V ai = VSET1(*(const T *)(j == 0 ? p : j == 1 ? p + ra : j == 2 ? p + 2 * ra : j == 3 ? p + ra3 : p + 4 * ra));
            acc[i][0] = VFMA(ai, b0, acc[i][0]);
            if (nv == 2) acc[i][1] = VFMA(ai, b1, acc[i][1]);
        }
        p0 += rd;
        if (mr > 5) p1 += rd;
        if (mr > 10) p2 += rd;
        b += rb;
    }
    const V va = VSET1(alpha), vb = VSET1(beta);
#pragma GCC unroll 14
    for (int i = 0; i < mr; i++) {
        T *ci = c + i * ldc;
        V r0 = VMUL(acc[i][0], va), r1 = VMUL(acc[i][1], va);
#ifdef VMASKED
        if (nv == 1) {
            if (beta != 0) r0 = VFMA(vb, VMLOAD(m0, ci), r0);
            VMSTORE(m0, ci, r0);
        } else {
            if (beta != 0) r0 = VFMA(vb, VLOAD(ci), r0), r1 = VFMA(vb, VMLOAD(m1, ci + VL), r1);
            VSTORE(ci, r0), VMSTORE(m1, ci + VL, r1);
        }
#else
        if (nr == nv * VL) {
            if (beta != 0) r0 = VFMA(vb, VLOAD(ci), r0);
            VSTORE(ci, r0);
            if (nv == 2) {
                if (beta != 0) r1 = VFMA(vb, VLOAD(ci + VL), r1);
                VSTORE(ci + VL, r1);
            }
        } else {
            T row[2 * VL];
            VSTORE(row, r0), VSTORE(row + VL, r1);
            for (int j = 0; j < nr; j++) ci[j] = beta != 0 ? VFMA1(beta, ci[j], row[j]) : row[j];
        }
#endif
    }
}

typedef void (*F(tile_function))(int64_t kc, const T *a, int64_t ra, int64_t rd, const T *b, int64_t rb, T *c, int64_t ldc,
                                 int nr, T alpha, T beta);
#define TILE(mr, nv) \
    static void F(tile_##mr##_##nv)(int64_t kc, const T *a, int64_t ra, int64_t rd, const T *b, int64_t rb, T *c, int64_t ldc, \
                                    int nr, T alpha, T beta) { \
        F(tile)(mr, nv, kc, a, ra, rd, b, rb, c, ldc, nr, alpha, beta); \
    }
#define TILES(mr) TILE(mr, 1) TILE(mr, 2)
TILES(1) TILES(2) TILES(3) TILES(4) TILES(5) TILES(6)
#if MR == 14
TILES(7) TILES(8) TILES(9) TILES(10) TILES(11) TILES(12) TILES(13) TILES(14)
#endif
#undef TILES
#undef TILE
#define ROW(mr) {F(tile_##mr##_1), F(tile_##mr##_2)},
static const F(tile_function) F(tiles)[MR + 1][2] = {
    {0, 0}, ROW(1) ROW(2) ROW(3) ROW(4) ROW(5) ROW(6)
#if MR == 14
    ROW(7) ROW(8) ROW(9) ROW(10) ROW(11) ROW(12) ROW(13) ROW(14)
#endif
};
#undef ROW

/* dst (depth, width) panel = src[i * row + k * depth_stride] for i < rows; zeros beyond rows. Where rows lie along depth they are
 * transposed VL x VL at a time in registers. width is MR or NR; stores of whole vectors may write up to VL elements beyond the end. */
static inline void F(pack)(const T *src, int64_t row, int64_t step, int rows, int64_t depth, int width, T *dst) {
    if (row == 1) {
        if (rows == NR && width == NR) {
            for (int64_t k = 0; k < depth; k++, src += step, dst += NR) {
                VSTORE(dst, VLOAD(src));
                VSTORE(dst + VL, VLOAD(src + VL));
            }
            return;
        }
        for (int64_t k = 0; k < depth; k++, src += step, dst += width) {
            int i = 0;
            for (; i < rows; i++) dst[i] = src[i];
            for (; i < width; i++) dst[i] = 0;
        }
        return;
    }
    int64_t done = 0;
#ifdef VTRANSPOSE
    if (step == 1 && (width <= VL || width % VL == 0))
        for (; done + VL <= depth; done += VL)
            for (int i = 0; i < width; i += VL) {
                V r[VL];
                for (int j = 0; j < VL; j++) r[j] = i + j < rows ? VLOAD(src + (i + j) * row + done) : VZERO();
                VTRANSPOSE(r);
                T *d = dst + done * width + i;
                /* Where width is no multiple of VL the surplus lanes are overwritten by the next row's store. */
                for (int j = 0; j < VL; j++) VSTORE(d + (int64_t)j * width, r[j]);
            }
#endif
    for (int64_t k = done; k < depth; k++) {
        const T *s = src + k * step;
        T *d = dst + k * width;
        int i = 0;
        for (; i < rows; i++) d[i] = s[i * row];
        for (; i < width; i++) d[i] = 0;
    }
}

/* b's columns [n0, n0 + n) and depth [k0, k0 + kc) as panels of NR columns: panel j at dst + j * NR * kc. */
static inline void F(pack_b)(const T *b, int64_t rb, int64_t cb, int64_t kc, int64_t n, T *dst) {
    for (int64_t j = 0; j < n; j += NR)
        F(pack)(b + j * cb, cb, rb, (int)(n - j < NR ? n - j : NR), kc, NR, dst + j * kc);
}

enum { F(MR) = MR, F(NR) = NR };

/* Called on a finished part of c, at most MC x NR and still in the first cache: rows [i, i + m), columns [j, j + n). */
typedef void (*F(after))(void *arg, int64_t i, int64_t j, int64_t m, int64_t n);

/* c (m, n) = beta * c + alpha * a (m, kc) b, where column panel j of b stands at b + j * jump with rows rb apart: packed panels
 * (jump kc, rb NR), or a row-major b as it is (jump 1). */
static inline void F(panels)(int64_t m, int64_t n, int64_t kc, const T *a, int64_t ra, int64_t ca, const T *b, int64_t jump, int64_t rb,
                      T *c, int64_t ldc, T alpha, T beta, F(after) after, void *arg, int64_t i0, int64_t j0) {
    const int64_t bytes = (int64_t)sizeof(T);
    for (int64_t j = 0; j < n; j += NR) {
        const int nr = (int)(n - j < NR ? n - j : NR), wide = nr > VL ? 1 : 0;
        for (int64_t i = 0; i < m; i += MR) {
            const int mr = (int)(m - i < MR ? m - i : MR);
            F(tiles)[mr][wide](kc, a + i * ra, ra * bytes, ca * bytes, b + j * jump, rb, c + i * ldc + j, ldc, nr, alpha, beta);
        }
        if (after) after(arg, i0, j0 + j, m, nr);
    }
}

/* Elements of scratch that F(product) needs. */
static inline size_t F(product_scratch)(int64_t n, int64_t k) {
    const int64_t kc = k < KC ? k : KC, nc = n < NC ? n : NC;
    return (size_t)((nc + NR - 1) / NR * NR * kc + 64 + 31) / 32 * 32;   /* workers share cache lines with nobody */
}

/* c (m, n) = alpha * a b + beta * c on one thread; k > 0. `after` may be NULL. Operands are read in place through their strides but
 * for b, which is packed once per block; few rows of c do not pay for that, so then a row-major b is read as it is. Stops between blocks once
 * *interrupt is set. */
static inline void F(product)(int64_t m, int64_t n, int64_t k, const T *a, int64_t ra, int64_t ca, const T *b, int64_t rb, int64_t cb,
                       T *c, int64_t ldc, T alpha, T beta, T *scratch, F(after) after, void *arg,
                       const volatile int *interrupt) {
    for (int64_t j = 0; j < n; j += NC) {
        const int64_t nc = n - j < NC ? n - j : NC;
        int64_t direct = cb == 1 && m <= MR ? nc : 0;
#ifndef VMASKED
        direct -= direct % NR;
#endif
        for (int64_t p = 0; p < k; p += KC) {
            if (*interrupt) return;
            const int64_t kc = k - p < KC ? k - p : KC;
            const T scale = p == 0 ? beta : 1;
            const T *block = b + p * rb + j * cb;
            const F(after) last = p + kc == k ? after : NULL;
            F(pack_b)(block + direct * cb, rb, cb, kc, nc - direct, scratch);
            for (int64_t i = 0; i < m; i += MC) {
                const int64_t mc = m - i < MC ? m - i : MC;
                const T *ai = a + i * ra + p * ca;
                T *to = c + i * ldc + j;
                if (direct)
                    F(panels)(mc, direct, kc, ai, ra, ca, block, 1, rb, to, ldc, alpha, scale, last, arg, i, j);
                if (nc > direct)
                    F(panels)(mc, nc - direct, kc, ai, ra, ca, scratch, kc, NR, to + direct, ldc, alpha, scale, last, arg, i,
                              j + direct);
            }
        }
    }
}

/* y[j * step] = alpha * dot(x, w + j * row) + beta * y[j * step] for j < n: x and the rows of w are dense. Four rows at a time,
 * two vectors of sums each, in an order that k alone decides. */
static inline void F(dots)(int64_t n, int64_t k, const T *x, const T *w, int64_t row, T *y, int64_t step, T alpha, T beta) {
    for (int64_t j = 0; j < n; j += 4) {
        const int rows = (int)(n - j < 4 ? n - j : 4);
        const T *r[4];
        V sum[4][2];
        for (int i = 0; i < 4; i++) {
            r[i] = w + (j + (i < rows ? i : 0)) * row;
            sum[i][0] = sum[i][1] = VZERO();
        }
        int64_t p = 0;
        for (; p + 2 * VL <= k; p += 2 * VL) {
            const V x0 = VLOAD(x + p), x1 = VLOAD(x + p + VL);
            for (int i = 0; i < 4; i++) {
                sum[i][0] = VFMA(VLOAD(r[i] + p), x0, sum[i][0]);
                sum[i][1] = VFMA(VLOAD(r[i] + p + VL), x1, sum[i][1]);
            }
        }
        for (int i = 0; i < rows; i++) {
            T lane[2 * VL], tail = 0;
            VSTORE(lane, sum[i][0]);
            VSTORE(lane + VL, sum[i][1]);
            for (int width = VL; width > 0; width /= 2)
                for (int l = 0; l < width; l++) lane[l] += lane[l + width];
            for (int64_t q = p; q < k; q++) tail = VFMA1(r[i][q], x[q], tail);
            T *to = y + (j + i) * step, value = alpha * (lane[0] + tail);
            *to = beta != 0 ? VFMA1(beta, *to, value) : value;
        }
    }
}

#undef MR
#undef NR
