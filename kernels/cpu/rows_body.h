/* rows_body.h: the body of rows.h. Four vectors of partial results, then the lanes in halves, then what is left over. */

#ifndef VSUM
static inline T F(vector_sum)(V a) {
    T lane[VL];
    VSTORE(lane, a);
    for (int width = VL / 2; width > 0; width /= 2)
        for (int l = 0; l < width; l++) lane[l] += lane[l + width];
    return lane[0];
}
static inline T F(vector_max)(V a) {
    T lane[VL], best = (T)-INFINITY;
    VSTORE(lane, a);
    for (int l = 0; l < VL; l++) best = lane[l] > best ? lane[l] : best;
    return best;
}
#define VSUM(a) F(vector_sum)(a)
#define VTOP(a) F(vector_max)(a)
#endif

static inline T F(lanes_sum)(const V *s) { return VSUM(VADD(VADD(s[0], s[1]), VADD(s[2], s[3]))); }

static inline T F(row_sum)(int64_t n, const T *x) {
    V s[4] = {VZERO(), VZERO(), VZERO(), VZERO()};
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int v = 0; v < 4; v++) s[v] = VADD(s[v], VLOAD(x + i + v * VL));
    for (; i + VL <= n; i += VL) s[0] = VADD(s[0], VLOAD(x + i));
    T rest = 0;
    for (; i < n; i++) rest += x[i];
    return F(lanes_sum)(s) + rest;
}

/* NaNs may be passed over: what is computed from them stays NaN. */
static inline T F(row_max)(int64_t n, const T *x) {
    const V low = VSET1((T)-INFINITY);
    V s[4] = {low, low, low, low};
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int v = 0; v < 4; v++) s[v] = VMAX(s[v], VLOAD(x + i + v * VL));
    for (; i + VL <= n; i += VL) s[0] = VMAX(s[0], VLOAD(x + i));
    T best = VTOP(VMAX(VMAX(s[0], s[1]), VMAX(s[2], s[3])));
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    return best;
}

static inline T F(row_dot)(int64_t n, const T *x, const T *y) {
    V s[4] = {VZERO(), VZERO(), VZERO(), VZERO()};
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int v = 0; v < 4; v++) s[v] = VFMA(VLOAD(x + i + v * VL), VLOAD(y + i + v * VL), s[v]);
    for (; i + VL <= n; i += VL) s[0] = VFMA(VLOAD(x + i), VLOAD(y + i), s[0]);
    T rest = 0;
    for (; i < n; i++) rest = VFMA1(x[i], y[i], rest);
    return F(lanes_sum)(s) + rest;
}

/* y = exp(x - shift); y may be x. */
static inline void F(row_exp)(int64_t n, const T *x, T shift, T *y) {
    for (int64_t i = 0; i < n; i++) y[i] = F(exp)(x[i] - shift);
}

static inline T F(fma)(T a, T b, T c) { return VFMA1(a, b, c); }

/* The sum of (x - mean)^2. */
static inline T F(row_spread)(int64_t n, const T *x, T mean) {
    const V minus = VSET1(-mean);
    V s[4] = {VZERO(), VZERO(), VZERO(), VZERO()};
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int v = 0; v < 4; v++) {
            const V d = VADD(VLOAD(x + i + v * VL), minus);
            s[v] = VFMA(d, d, s[v]);
        }
    for (; i + VL <= n; i += VL) {
        const V d = VADD(VLOAD(x + i), minus);
        s[0] = VFMA(d, d, s[0]);
    }
    T rest = 0;
    for (; i < n; i++) rest = VFMA1(x[i] - mean, x[i] - mean, rest);
    return F(lanes_sum)(s) + rest;
}

/* With z = (x - mean) rstd and h = g w (w NULL: h = g): sums of h and of h z. */
static inline void F(norm_sums)(int64_t n, const T *g, const T *w, const T *x, T mean, T rstd, T *sum, T *dot) {
    const V minus = VSET1(-mean);
    V s[4] = {VZERO(), VZERO(), VZERO(), VZERO()}, d[4] = {VZERO(), VZERO(), VZERO(), VZERO()};
    int64_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL)
        for (int v = 0; v < 2; v++) {
            const V h = w ? VMUL(VLOAD(g + i + v * VL), VLOAD(w + i + v * VL)) : VLOAD(g + i + v * VL);
            s[v] = VADD(s[v], h);
            d[v] = VFMA(h, VADD(VLOAD(x + i + v * VL), minus), d[v]);
        }
    T sum_rest = 0, dot_rest = 0;
    for (; i < n; i++) {
        const T h = w ? g[i] * w[i] : g[i];
        sum_rest += h;
        dot_rest = VFMA1(h, x[i] - mean, dot_rest);
    }
    *sum = F(lanes_sum)(s) + sum_rest;
    *dot = (F(lanes_sum)(d) + dot_rest) * rstd;
}
