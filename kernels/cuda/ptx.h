/* ptx.h: what exists as PTX alone: tensor-core products, ldmatrix, asynchronous copies, packed conversions. Under nvcc these are
 * the instructions (compute capability 8.0); on the CPU the same by the lanes' meeting (cuda_on_cpu/include/on_cpu/warp.h).
 *
 * Fragments of mma (m, n, k) = (16, 8, 16), g = lane / 4, t = lane % 4, two halves a register, the lower index in the low half:
 *     a[0] rows g, columns 2t 2t+1;  a[1] row g + 8;  a[2], a[3] the same, columns + 8
 *     b[0] column g, rows 2t 2t+1;   b[1] rows + 8
 *     d[0] d[1] row g, columns 2t 2t+1;  d[2] d[3] row g + 8
 * So two d's side by side, rounded and packed, are an a.
 * ldmatrix: lane l gives the address of row l % 8 of matrix l / 8 (8 x 8 halves, rows of 16 aligned bytes in shared memory); r[i]
 * receives of matrix i row g, columns 2t 2t+1; with trans column g, rows 2t 2t+1.
 */
#ifndef PG_CUDA_PTX_H
#define PG_CUDA_PTX_H

#include "cuda.h"

#ifdef __CUDACC__

static __device__ __forceinline__ unsigned shared_address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }

/* d += a b */
#define PG_MMA(type, name)                                                                                            \
    static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, type) { \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name ".f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9}," \
                     "{%0,%1,%2,%3};" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                   \
    }
PG_MMA(__half, "f16")
PG_MMA(__nv_bfloat16, "bf16")
#undef PG_MMA

static __device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
static __device__ __forceinline__ void ldmatrix_trans(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

/* 16 aligned bytes from global to shared memory, past the first cache: there after the wait for the group that they belong to. */
static __device__ __forceinline__ void copy_async(void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0],[%1],16;" :: "r"(shared_address(shared)), "l"(global) : "memory");
}
/* The same, or 16 zero bytes where not `there`: then nothing is read. */
static __device__ __forceinline__ void copy_async_if(bool there, void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;"
                 :: "r"(shared_address(shared)), "l"(global), "r"(there ? 16 : 0) : "memory");
}
/* 8 aligned bytes. */
static __device__ __forceinline__ void copy_async8(void *shared, const void *global) {
    asm volatile("cp.async.ca.shared.global [%0],[%1],8;" :: "r"(shared_address(shared)), "l"(global) : "memory");
}
/* What was started since the last commit is a group. */
static __device__ __forceinline__ void copy_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Until at most N of this thread's groups are under way; other threads' need a barrier after it. */
template <int N> static __device__ __forceinline__ void copy_wait(void) { asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"); }

/* Two floats rounded, x in the low half. */
static __device__ __forceinline__ uint32_t pack2(float x, float y, __half) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(y), "f"(x));
    return r;
}
static __device__ __forceinline__ uint32_t pack2(float x, float y, __nv_bfloat16) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(y), "f"(x));
    return r;
}

/* The two floats of a pair. */
static __device__ __forceinline__ void unpack2(uint32_t pair, float *low, float *high, __half) {
    *low = __half2float(__ushort_as_half((unsigned short)pair));
    *high = __half2float(__ushort_as_half((unsigned short)(pair >> 16)));
}
static __device__ __forceinline__ void unpack2(uint32_t pair, float *low, float *high, __nv_bfloat16) {
    *low = __uint_as_float(pair << 16);
    *high = __uint_as_float(pair & 0xffff0000u);
}

/* 2^x within 2 ulp (2^-22), results below 2^-126 are 0: for what is rounded to a half afterwards. */
static __device__ __forceinline__ float fast_exp2(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

#else

#include <on_cpu/async_copy.h>
#include <on_cpu/warp.h>

#include <string.h>

namespace ptx_on_cpu {

struct factors { uint32_t a[4], b[2]; };

PG_UNCHECKED static inline void unpack(uint32_t pair, float *low, float *high, __half) {
    const uint16_t bits[2] = {(uint16_t)pair, (uint16_t)(pair >> 16)};
    *low = __half2float(__ushort_as_half(bits[0]));
    *high = __half2float(__ushort_as_half(bits[1]));
}
PG_UNCHECKED static inline void unpack(uint32_t pair, float *low, float *high, __nv_bfloat16) {
    const uint32_t wide[2] = {pair << 16, pair & 0xffff0000u};
    memcpy(low, &wide[0], sizeof *low);
    memcpy(high, &wide[1], sizeof *high);
}

/* The sums run over k in order, in float32; the hardware's order is its own. */
template <class T> PG_UNCHECKED void multiply(const on_cpu::warp_call &call) {
    float a[16][16], b[16][8], sum[16][8];
    if (call.mask != ~0u) on_cpu::fail(call.file, call.line, "mma needs all 32 lanes, got mask %08x", call.mask);
    for (int lane = 0; lane < 32; lane++) {
        const int g = lane / 4, t = 2 * (lane % 4);
        const factors &f = *(const factors *)call.lanes[lane]->in;
        const float *d = (const float *)call.lanes[lane]->out;
        for (int i = 0; i < 4; i++) {
            const int row = g + 8 * (i & 1), column = t + 8 * (i >> 1);
            unpack(f.a[i], &a[row][column], &a[row][column + 1], T());
        }
        for (int i = 0; i < 2; i++) unpack(f.b[i], &b[t + 8 * i][g], &b[t + 8 * i + 1][g], T());
        for (int i = 0; i < 4; i++) sum[g + 8 * (i >> 1)][t + (i & 1)] = d[i];
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++) sum[i][j] += a[i][k] * b[k][j];
    for (int lane = 0; lane < 32; lane++) {
        float *d = (float *)call.lanes[lane]->out;
        for (int i = 0; i < 4; i++) d[i] = sum[lane / 4 + 8 * (i >> 1)][2 * (lane % 4) + (i & 1)];
    }
}
template <class T> inline constexpr on_cpu::warp_operation multiply_operation = {"mma", multiply<T>, false};

template <bool TRANS> PG_UNCHECKED void load_matrices(const on_cpu::warp_call &call) {
    if (call.mask != ~0u) on_cpu::fail(call.file, call.line, "ldmatrix needs all 32 lanes, got mask %08x", call.mask);
    for (int matrix = 0; matrix < 4; matrix++) {
        uint16_t x[8][8];
        for (int row = 0; row < 8; row++) memcpy(x[row], call.lanes[8 * matrix + row]->in, sizeof x[row]);
        for (int lane = 0; lane < 32; lane++) {
            const int g = lane / 4, t = 2 * (lane % 4);
            const uint16_t low = TRANS ? x[t][g] : x[g][t], high = TRANS ? x[t + 1][g] : x[g][t + 1];
            ((uint32_t *)call.lanes[lane]->out)[matrix] = low | (uint32_t)high << 16;
        }
    }
}
template <bool TRANS> inline constexpr on_cpu::warp_operation load_operation = {TRANS ? "ldmatrix.trans" : "ldmatrix",
                                                                                load_matrices<TRANS>, false};
template <bool TRANS> static inline void load(uint32_t (&r)[4], const void *row, const char *file, int line) {
    if ((uintptr_t)row % 16 != 0) on_cpu::fail(file, line, "ldmatrix: a row that is not aligned to 16 bytes");
    on_cpu::reads(row, 16);
    on_cpu::collective(load_operation<TRANS>, ~0u, {row, r, 0}, file, line);
}

}   // namespace ptx_on_cpu

template <class T> static inline void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, T, PG_PLACE) {
    const ptx_on_cpu::factors f = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    on_cpu::collective(ptx_on_cpu::multiply_operation<T>, ~0u, {&f, d, 0}, file, line);
}
static inline void ldmatrix(uint32_t (&r)[4], const void *row, PG_PLACE) { ptx_on_cpu::load<false>(r, row, file, line); }
static inline void ldmatrix_trans(uint32_t (&r)[4], const void *row, PG_PLACE) { ptx_on_cpu::load<true>(r, row, file, line); }

static inline void copy_async(void *shared, const void *global, PG_PLACE) {
    on_cpu::async_copy_start(shared, global, 16, 16, file, line);
}
static inline void copy_async_if(bool there, void *shared, const void *global, PG_PLACE) {
    on_cpu::async_copy_start(shared, global, 16, there ? 16 : 0, file, line);
}
static inline void copy_async8(void *shared, const void *global, PG_PLACE) {
    on_cpu::async_copy_start(shared, global, 8, 8, file, line);
}
static inline void copy_commit(void) { on_cpu::async_copy_commit(); }
template <int N> static inline void copy_wait(void) { on_cpu::async_copy_wait(N); }

static inline uint32_t pack2(float x, float y, __half) {
    return __half_as_ushort(__float2half_rn(x)) | (uint32_t)__half_as_ushort(__float2half_rn(y)) << 16;
}
static inline uint32_t pack2(float x, float y, __nv_bfloat16) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(x)) | (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(y)) << 16;
}
template <class T> static inline void unpack2(uint32_t pair, float *low, float *high, T) {
    ptx_on_cpu::unpack(pair, low, high, T());
}
static inline float fast_exp2(float x) { return exp2f(x); }

#endif

#endif
