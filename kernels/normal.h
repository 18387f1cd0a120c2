/* normal.h: the scaled complementary error function and what gelu makes of it, in C and in CUDA, the same on every device.
 * Who includes it says how: PG_NORMAL_FN before a function, PG_NORMAL_FMA32 and PG_NORMAL_FMA64 for a * b + c.
 */
#ifndef PG_NORMAL_H
#define PG_NORMAL_H

#include <math.h>

/* e^(t^2) erfc(t), t >= 0: a polynomial in q = (t - k) / (t + k), over t + k. */
PG_NORMAL_FN float erfcx_f32(float t) {
    float d = 1.0f / (t + 2.0f), q = PG_NORMAL_FMA32(-4.0f, d, 1.0f);
    float p = 6.327862e-05f;
    p = PG_NORMAL_FMA32(p, q, 3.763922e-05f);
    p = PG_NORMAL_FMA32(p, q, -0.00058809813f);
    p = PG_NORMAL_FMA32(p, q, -0.00082189107f);
    p = PG_NORMAL_FMA32(p, q, 0.0030619854f);
    p = PG_NORMAL_FMA32(p, q, 0.0064720446f);
    p = PG_NORMAL_FMA32(p, q, -0.021505808f);
    p = PG_NORMAL_FMA32(p, q, -0.03644123f);
    p = PG_NORMAL_FMA32(p, q, 0.27947178f);
    p = PG_NORMAL_FMA32(p, q, -0.68716073f);
    return PG_NORMAL_FMA32(p, q, 1.0215827f) * d;
}
PG_NORMAL_FN double erfcx_f64(double t) {
    double d = 1.0 / (t + 3.75), q = (t - 3.75) * d;
    q = t > 1e30 ? 1.0 : q;
    double p = 2.11745568745577328e-10;
    p = PG_NORMAL_FMA64(p, q, 7.05245686815725405e-10);
    p = PG_NORMAL_FMA64(p, q, -1.13752422169222451e-9);
    p = PG_NORMAL_FMA64(p, q, -6.45549573844244004e-9);
    p = PG_NORMAL_FMA64(p, q, 4.58717226631166113e-9);
    p = PG_NORMAL_FMA64(p, q, 4.21993608980006042e-8);
    p = PG_NORMAL_FMA64(p, q, -2.81353385625088148e-8);
    p = PG_NORMAL_FMA64(p, q, -2.65509800926708437e-7);
    p = PG_NORMAL_FMA64(p, q, 2.80467299174961077e-7);
    p = PG_NORMAL_FMA64(p, q, 1.65705677376589712e-6);
    p = PG_NORMAL_FMA64(p, q, -3.28959336213926661e-6);
    p = PG_NORMAL_FMA64(p, q, -8.90430266492308966e-6);
    p = PG_NORMAL_FMA64(p, q, 0.0000374717087876496772);
    p = PG_NORMAL_FMA64(p, q, 0.0000105940739632606065);
    p = PG_NORMAL_FMA64(p, q, -0.000348646845161072902);
    p = PG_NORMAL_FMA64(p, q, 0.00079482308681763746);
    p = PG_NORMAL_FMA64(p, q, 0.000986338077791426406);
    p = PG_NORMAL_FMA64(p, q, -0.0125358800398574048);
    p = PG_NORMAL_FMA64(p, q, 0.0491187786154283336);
    p = PG_NORMAL_FMA64(p, q, -0.131955401178598243);
    p = PG_NORMAL_FMA64(p, q, 0.279062049033778417);
    p = PG_NORMAL_FMA64(p, q, -0.490470291207676833);
    p = PG_NORMAL_FMA64(p, q, 0.736318925221751719);
    p = PG_NORMAL_FMA64(p, q, -0.958741576652909579);
    return PG_NORMAL_FMA64(p, q, 1.09192290956278904) * d;
}

/* The standard normal's distribution function, relative accuracy in both tails; e is e^(-x^2 / 2). */
PG_NORMAL_FN float normal_cdf_f32(float x, float e) {
    float upper = 0.5f * erfcx_f32(fabsf(x) * 0.70710678f) * e;
    return x < 0.0f ? upper : 1.0f - upper;
}
PG_NORMAL_FN double normal_cdf_f64(double x, double e) {
    double upper = 0.5 * erfcx_f64(fabs(x) * 0.7071067811865475244) * e;
    return x < 0.0 ? upper : 1.0 - upper;
}

#endif
