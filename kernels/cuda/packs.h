/* packs.h: packs of N elements, read and written with as few instructions as their bytes allow. */
#ifndef PG_PACKS_H
#define PG_PACKS_H

#include "cuda.h"

/* N elements at an address that is a multiple of their bytes, or of 16. */
template <class T, int N> static __device__ __forceinline__ void read_pack(const T *from, pack<T, N> &to) {
    constexpr int bytes = (int)sizeof(T) * N;
    if constexpr (bytes % 16 == 0) {
#pragma unroll
        for (int i = 0; i < bytes / 16; i++)
            reinterpret_cast<int4 *>(&to)[i] = reinterpret_cast<const int4 *>(from)[i];
    } else if constexpr (bytes == 8) {
        *reinterpret_cast<int2 *>(&to) = *reinterpret_cast<const int2 *>(from);
    } else if constexpr (bytes == 4) {
        *reinterpret_cast<int *>(&to) = *reinterpret_cast<const int *>(from);
    } else {
#pragma unroll
        for (int v = 0; v < N; v++) to.v[v] = from[v];
    }
}
template <class T, int N> static __device__ __forceinline__ void write_pack(T *to, const pack<T, N> &from) {
    constexpr int bytes = (int)sizeof(T) * N;
    if constexpr (bytes % 16 == 0) {
#pragma unroll
        for (int i = 0; i < bytes / 16; i++)
            reinterpret_cast<int4 *>(to)[i] = reinterpret_cast<const int4 *>(&from)[i];
    } else if constexpr (bytes == 8) {
        *reinterpret_cast<int2 *>(to) = *reinterpret_cast<const int2 *>(&from);
    } else if constexpr (bytes == 4) {
        *reinterpret_cast<int *>(to) = *reinterpret_cast<const int *>(&from);
    } else {
#pragma unroll
        for (int v = 0; v < N; v++) to[v] = from.v[v];
    }
}

#endif
