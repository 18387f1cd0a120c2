/* pointwise_type.h: the dense loops of one dtype and their table; included by pointwise.c once per dtype,
 * with T the element, TAG its suffix and OPS its list of lines. */
#define LOOP_(NAME, tag) NAME##_##tag
#define LOOP__(NAME, tag) LOOP_(NAME, tag)
#define LOOP(NAME) LOOP__(NAME, TAG)
#define HEAD(NAME) \
    static void LOOP(NAME)(int64_t n, void *out, const void *in1, const void *in2, const void *in3, \
                           const double *p) { \
        (void)in1; (void)in2; (void)in3; (void)p
#define P0 const T p0 = (T)p[0]
#define P1 const T p1 = (T)p[1]
#define BODY1(O, e) O *o = out; const T *x = in1; \
    INDEPENDENT for (int64_t i = 0; i < n; i++) { const T a = x[i]; o[i] = (O)(e); } }
#define BODY2(O, e) O *o = out; const T *x = in1, *y = in2; \
    INDEPENDENT for (int64_t i = 0; i < n; i++) { const T a = x[i], b = y[i]; o[i] = (O)(e); } }
#define BODY3(O, e) O *o = out; const T *x = in1, *y = in2, *z = in3; \
    INDEPENDENT for (int64_t i = 0; i < n; i++) { const T a = x[i], b = y[i], c = z[i]; o[i] = (O)(e); } }

#define O1(NAME, e) HEAD(NAME); BODY1(T, e)
#define O2(NAME, e) HEAD(NAME); BODY2(T, e)
#define O3(NAME, e) HEAD(NAME); BODY3(T, e)
#define O1P(NAME, e) HEAD(NAME); P0; P1; (void)p1; BODY1(T, e)
#define O2P(NAME, e) HEAD(NAME); P0; P1; (void)p1; BODY2(T, e)
#define O3P(NAME, e) HEAD(NAME); P0; BODY3(T, e)
#define Q1(NAME, e) HEAD(NAME); BODY1(uint8_t, e)
#define Q2(NAME, e) HEAD(NAME); BODY2(uint8_t, e)
OPS(O1, O2, O3, O1P, O2P, O3P)
PREDICATES(Q1, Q2)
#undef O1
#undef O2
#undef O3
#undef O1P
#undef O2P
#undef O3P
#undef Q1
#undef Q2

#define ROW(NAME, e) [PG_K_##NAME] = LOOP(NAME),
static const loop LOOP(table)[PG_K_POINTWISE_COUNT] = {
    OPS(ROW, ROW, ROW, ROW, ROW, ROW)
    PREDICATES(ROW, ROW)
};
#undef ROW
#undef HEAD
#undef P0
#undef P1
#undef BODY1
#undef BODY2
#undef BODY3
#undef LOOP
#undef LOOP_
#undef LOOP__
#undef T
#undef TAG
#undef OPS
#undef PREDICATES
