// The CUDA language as far as the kernels use it, for a host compiler. See emulator.h.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "../common/convert.h"
#include "approximate.h"
#include "emulator.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __constant__ static const
// One block at a time: static memory serves. The emulator finds it as this module's thread-local storage, to poison it.
#define __shared__ static thread_local

using cudaStream_t = struct CUstream_st*;

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }

constexpr int warpSize = 32;

// Barriers, shuffles and votes. Default arguments carry the caller's place in the source.
#define FCN_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(FCN_SITE) { fcn::emulator::meet_block(nullptr, nullptr, {"__syncthreads", file, line}); }
inline void __syncwarp(unsigned mask = ~0u, FCN_SITE) { fcn::emulator::meet_warp(mask, nullptr, nullptr, {"__syncwarp", file, line}); }

namespace fcn::emulator {

// What a lane brings to a shuffle or a vote and takes home.
template <class T>
struct Exchange {
    T value, result;
    int lane, source;  // source: lane within the warp, or -1 for one's own value
};

template <class T>
void exchange(void* const* parts, int count, unsigned mask) {
    for (int i = 0; i < count; ++i) {
        if (!(mask >> i & 1)) continue;
        auto& mine = *static_cast<Exchange<T>*>(parts[i]);
        if (mine.source < 0) {
            mine.result = mine.value;
        } else if (mine.source < count && (mask >> mine.source & 1)) {
            mine.result = static_cast<Exchange<T>*>(parts[mine.source])->value;
        } else {
            std::memset(static_cast<void*>(&mine.result), kPoison, sizeof(T));  // undefined: of a lane that is not there
        }
    }
}

template <class T>
T shuffle(unsigned mask, T value, int source, const char* what, const char* file, int line) {
    Exchange<T> mine{value, value, thread_in_block() % 32, source};
    meet_warp(mask, &mine, exchange<T>, {what, file, line});
    return mine.result;
}

inline void ballot(void* const* parts, int count, unsigned mask) {
    unsigned votes = 0;
    for (int i = 0; i < count; ++i) votes |= (mask >> i & 1) && static_cast<Exchange<unsigned>*>(parts[i])->value ? 1u << i : 0;
    for (int i = 0; i < count; ++i) {
        if (mask >> i & 1) static_cast<Exchange<unsigned>*>(parts[i])->result = votes;
    }
}

inline unsigned vote(unsigned mask, bool yes, const char* what, const char* file, int line) {
    Exchange<unsigned> mine{yes, 0, 0, 0};
    meet_warp(mask, &mine, ballot, {what, file, line});
    return mine.result;
}

inline void count_block(void* const* parts, int count, unsigned) {
    int total = 0;
    for (int i = 0; i < count; ++i) total += static_cast<Exchange<int>*>(parts[i])->value;
    for (int i = 0; i < count; ++i) static_cast<Exchange<int>*>(parts[i])->result = total;
}

inline int block_count(bool yes, const char* what, const char* file, int line) {
    Exchange<int> mine{yes, 0, 0, 0};
    meet_block(&mine, count_block, {what, file, line});
    return mine.result;
}

}  // namespace fcn::emulator

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, FCN_SITE) {
    const int lane = fcn::emulator::thread_in_block() % 32, segment = lane / width * width;
    return fcn::emulator::shuffle(mask, value, segment + source % width, "__shfl_sync", file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, FCN_SITE) {
    const int lane = fcn::emulator::thread_in_block() % 32, source = lane - int(delta);
    return fcn::emulator::shuffle(mask, value, source < lane / width * width ? -1 : source, "__shfl_up_sync", file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, FCN_SITE) {
    const int lane = fcn::emulator::thread_in_block() % 32, source = lane + int(delta);
    return fcn::emulator::shuffle(mask, value, source >= (lane / width + 1) * width ? -1 : source, "__shfl_down_sync", file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, FCN_SITE) {
    const int lane = fcn::emulator::thread_in_block() % 32, source = lane ^ bits;
    return fcn::emulator::shuffle(mask, value, source >= (lane / width + 1) * width ? -1 : source, "__shfl_xor_sync", file, line);
}
inline unsigned __ballot_sync(unsigned mask, bool yes, FCN_SITE) { return fcn::emulator::vote(mask, yes, "__ballot_sync", file, line); }
inline int __any_sync(unsigned mask, bool yes, FCN_SITE) { return fcn::emulator::vote(mask, yes, "__any_sync", file, line) != 0; }
inline int __all_sync(unsigned mask, bool yes, FCN_SITE) { return fcn::emulator::vote(mask, !yes, "__all_sync", file, line) == 0; }
inline int __syncthreads_count(bool yes, FCN_SITE) { return fcn::emulator::block_count(yes, "__syncthreads_count", file, line); }
inline int __syncthreads_or(bool yes, FCN_SITE) { return fcn::emulator::block_count(yes, "__syncthreads_or", file, line) > 0; }
inline int __syncthreads_and(bool yes, FCN_SITE) { return fcn::emulator::block_count(!yes, "__syncthreads_and", file, line) == 0; }

// Threads take turns, so a plain operation is atomic.
template <class T>
T atomicAdd(T* at, std::common_type_t<T> value) { const T before = *at; *at = before + value; return before; }
template <class T>
T atomicMax(T* at, std::common_type_t<T> value) { const T before = *at; *at = before > value ? before : value; return before; }
template <class T>
T atomicMin(T* at, std::common_type_t<T> value) { const T before = *at; *at = before < value ? before : value; return before; }
template <class T>
T atomicOr(T* at, std::common_type_t<T> value) { const T before = *at; *at = before | value; return before; }
template <class T>
T atomicExch(T* at, std::common_type_t<T> value) { const T before = *at; *at = value; return before; }
template <class T>
T atomicCAS(T* at, std::common_type_t<T> compare, std::common_type_t<T> value) {
    const T before = *at;
    if (before == compare) *at = value;
    return before;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __ldg(const T* at) { return *at; }
template <class T>
T __ldcs(const T* at) { return *at; }
template <class T>
void __stwb(T* at, T value) { *at = value; }
template <class T>
void __stcs(T* at, T value) { *at = value; }

inline unsigned __float_as_uint(float v) { return fcn::FCN_ISA::bit_cast<unsigned>(v); }
inline int __float_as_int(float v) { return fcn::FCN_ISA::bit_cast<int>(v); }
inline float __uint_as_float(unsigned v) { return fcn::FCN_ISA::bit_cast<float>(v); }
inline float __int_as_float(int v) { return fcn::FCN_ISA::bit_cast<float>(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(unsigned(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const uint64_t bytes = uint64_t(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= unsigned(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return result;
}

inline float __fdividef(float a, float b) { return fcn::emulator::divide(a, b); }
inline float __frcp_rn(float v) { return 1.0f / v; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __int2float_rn(int v) { return float(v); }
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }

template <class T>
T min(T a, std::common_type_t<T> b) { return b < a ? b : a; }
template <class T>
T max(T a, std::common_type_t<T> b) { return a < b ? b : a; }
